"""Who hears what: sheets of trials, balanced over the listeners that take them in turn."""

from typing import NamedTuple

from ttsadapt.errors import UserError


class Cell(NamedTuple):
    """One trial to be made."""

    sentence: int
    item: int
    variant: int


def sheets(sentences: int, items: int, variants: int, complete: bool, per_listener: int | None) -> list[list[Cell]]:
    """One list a sheet; listener k takes sheet k modulo their number.

    `complete`: every sentence in every item, the order of presentation (`variants`) rotating. Else a Latin square: a sentence once,
    in one item and variant; over all sheets every sentence comes once in each. `per_listener`: sentences of a sheet.
    """
    per = per_listener or sentences
    if sentences % per:
        raise UserError(
            f"page.per_listener={per} does not divide the {sentences} sentences heard: page.sentences={sentences - sentences % per}"
        )
    rows = variants if complete else items * variants
    fill = _all_items if complete else _latin
    return [
        [cell for j in range(start, start + per) for cell in fill(row, j, items, variants)]
        for row in range(rows)
        for start in range(0, sentences, per)
    ]  # fmt: skip


def _all_items(row: int, sentence: int, items: int, variants: int) -> list[Cell]:
    return [Cell(sentence, item, (row + sentence + item) % variants) for item in range(items)]


def _latin(row: int, sentence: int, items: int, variants: int) -> list[Cell]:
    place = (row + sentence) % (items * variants)
    return [Cell(sentence, place % items, place // items)]


def repeated(cells: int, times: int) -> list[int]:
    """Places of a sheet that are heard twice, spread over it."""
    times = min(times, cells)
    return [place * cells // times for place in range(times)]
