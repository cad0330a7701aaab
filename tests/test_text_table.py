"""Tables for a terminal."""

import pytest

from ttsadapt.text_table import aligned


def test_names_begin_together_and_numbers_end_together():
    rows = [["system", "MCD", "unit"], ["a", "12.5", "dB"], ["longer name", "3", ""]]
    assert aligned(rows, left=(0, 2)) == ["system        MCD  unit", "a            12.5  dB", "longer name     3"]
    assert aligned(rows[:2])[1] == "a       12.5    dB"


def test_rows_are_of_one_length():
    with pytest.raises(ValueError, match="shorter"):
        aligned([["a", "b"], ["c"]])
