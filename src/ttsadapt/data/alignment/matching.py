"""A transcript with its punctuation, and the same words with times but written otherwise: times for the transcript's own words."""

from collections.abc import Sequence
from itertools import groupby

from ttsadapt.data.alignment.base import Unaligned
from ttsadapt.data.alignment.spelling import word_spans
from ttsadapt.data.found import Word

DIFFERING = 0.3
"""share of words beyond which two texts are not the same"""


def matched(text: str, heard: Sequence[Word]) -> tuple[Word, ...]:
    """Pieces of `text`, in order and together all of it, each with the time of what was heard there.

    Words are matched by edit distance, case and punctuation apart. Where both differ ("3.5", "three point five"), and within what was
    timed as one (a caption), nothing is divided. Raises Unaligned when they are not the same text.
    """
    spans = word_spans(text)
    if not spans:
        return tuple(heard)
    said = [(_plain(w.text[a:b]), i) for i, w in enumerate(heard) for a, b in word_spans(w.text)]
    groups, differing = _groups([_plain(text[a:b]) for a, b in spans], said)
    if not groups or differing > DIFFERING * len(spans):
        raise Unaligned(f"the words with times differ from the transcript in {differing} places (of {len(spans)} words): correct either")
    return tuple(
        Word(text[spans[first][0] : spans[last][1]], min(heard[i].start for i in there), max(heard[i].end for i in there))
        for first, last, there in groups
    )


def _plain(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum()) or "-"


def _groups(wanted: Sequence[str], said: Sequence[tuple[str, int]]) -> tuple[list[tuple[int, int, set[int]]], int]:
    """(first and last word of the text, what was heard there) that tile the text; how many places differ."""
    import jiwer

    if not said:
        return [], len(wanted)
    found = jiwer.process_words(" ".join(wanted), " ".join(word for word, _ in said))
    blocks: list[tuple[range, set[int]]] = []
    differing = 0
    for same, run in groupby(found.alignments[0], lambda chunk: chunk.type == "equal"):
        chunks = list(run)
        words, there = range(chunks[0].ref_start_idx, chunks[-1].ref_end_idx), range(chunks[0].hyp_start_idx, chunks[-1].hyp_end_idx)
        differing += 0 if same else len(words) or len(there)  # a number that is spelt out is one place
        if all(chunk.type in ("equal", "substitute") for chunk in chunks):
            blocks += [(range(w, w + 1), {said[k][1]}) for w, k in zip(words, there)]
        else:
            blocks.append((words, {said[k][1] for k in there}))
    return _merged(blocks), differing


def _merged(blocks: Sequence[tuple[range, set[int]]]) -> list[tuple[int, int, set[int]]]:
    """Without blocks that lack words or times: those go with the one before; nor two that share a time."""
    groups: list[tuple[int, int, set[int]]] = []
    for words, there in blocks:
        whole = bool(groups) and len(groups[-1][2]) > 0 and groups[-1][0] <= groups[-1][1]
        if groups and not (words and there and whole and not groups[-1][2] & there):
            first, last, before = groups[-1]
            groups[-1] = (min(first, words.start) if words else first, words.stop - 1 if words else last, before | there)
        else:
            groups.append((words.start, words.stop - 1, set(there)))
    return groups
