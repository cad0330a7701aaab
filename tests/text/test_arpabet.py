import pytest

from ttsadapt.errors import DataError
from ttsadapt.text.arpabet import ArpabetTable, arpabet, symbols


def test_the_table_has_the_released_rows():
    table = symbols()
    assert len(table) == len(set(table)) == 360 and ArpabetTable().size == 361
    assert table[0] == "_" and table[1] == "-" and table[12] == "A" and table[63] == "z"
    assert table[64] == "@AA" and table[147] == "@ZH" and table[148] == "@b" and table[356] == "@rr"
    assert table[357:] == ["@sp", "@spn", "@sil"]


@pytest.mark.parametrize(
    ("phone", "spelt"),
    [
        ("ˈaɪ", ("AY1",)), ("ə", ("AH0",)), ("ˌoʊ", ("OW2",)), ("ˈɔːɹ", ("AO1", "R")), ("əl", ("AH0", "L")), ("_", ("sp",)),
        ("dʒ", ("JH",)),
        ("ˈaɪɚ", ("AY1", "ER0")), ("ʒ", ("ZH",)), ("ER1", ("ER1",)), ("b", ("B",)),
    ],
)  # fmt: skip
def test_phones_are_spelt(phone, spelt):
    assert arpabet(phone) == spelt


def test_rows_are_never_padding_and_other_languages_are_refused():
    table = ArpabetTable()
    assert [symbols()[i] for i in table.indices("ˈɔːɹ")] == ["@AO1", "@R"]
    table.fit(["ˈaɪ", "_"])
    with pytest.raises(DataError, match="phone 'yː' is none of English") as caught:
        table.fit(["ˈaɪ", "yː"])
    assert "\n" not in str(caught.value)
