"""Words from the outputs of a phone recogniser: token passing (Young et al. 1989) over a lexicon, under CTC's rules about blanks.

No grammar and no counts of words: nothing is known but which words there are and how they sound.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_NEVER = -1e30


class Entry(NamedTuple):
    """A word and one way to say it."""

    word: str
    phones: tuple[int, ...]
    """classes of the recogniser; 0 is the blank"""


class _Network:
    """One chain of states a word: its phones, a blank that may be left out between each two of them."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        lengths = np.array([2 * len(e.phones) - 1 for e in entries])
        self.last = np.cumsum(lengths) - 1
        self.first = self.last - lengths + 1
        self.label = np.zeros(lengths.sum(), int)
        for start, entry in zip(self.first, entries):
            self.label[start : start + 2 * len(entry.phones) - 1 : 2] = entry.phones
        self.begins = np.zeros(len(self.label), bool)
        self.begins[self.first] = True
        before = np.roll(self.label, 2)
        # A blank between two phones may be left out, unless they are the same.
        self.skips = (self.label > 0) & (before != self.label) & ~self.begins & ~np.roll(self.begins, 1)
        self.skips[:2] = False
        self.opening, self.closing = self.label[self.first], self.label[self.last]


def heard(likely: Array, entries: Sequence[Entry], price: float = 1.5) -> list[str]:
    """(T, classes) log probabilities -> the likeliest words. `price`: nats that a word costs, so that none is made of crumbs."""
    net, links = _Network(entries), [(-1, -1)]
    score, link = np.full(len(net.label), _NEVER), np.zeros(len(net.label), int)
    gap, gap_link, ends = 0.0, 0, np.full(len(entries), _NEVER)
    ends_link = np.zeros(len(entries), int)
    for t, row in enumerate(likely):
        # What a word may begin after: the gap, or the best word's last phone (the second best's where that is the same phone again).
        best = int(ends.argmax())
        other = int(np.where(net.closing != net.closing[best], ends, _NEVER).argmax())
        links += [(best, int(ends_link[best])), (other, int(ends_link[other]))]
        after = np.where(net.opening != net.closing[best], ends[best], ends[other] if net.closing[other] != net.closing[best] else _NEVER)
        after_link = np.where(net.opening != net.closing[best], len(links) - 2, len(links) - 1)
        entering, entering_link = np.maximum(gap, after) - price, np.where(gap >= after, gap_link, after_link)
        if t == 0:
            entering, entering_link = np.full(len(entries), -price), np.zeros(len(entries), int)
        gap, gap_link = (gap, gap_link) if gap >= ends[best] else (float(ends[best]), len(links) - 2)
        gap += row[0]
        score, link = _moved(net, score, link, entering, entering_link, row)
        ends, ends_link = score[net.last], link[net.last]
    best = int(ends.argmax())
    at = gap_link if gap >= ends[best] else len(links)
    links.append((best, int(ends_link[best])))
    words: list[str] = []
    while links[at][0] >= 0:
        words.append(entries[links[at][0]].word)
        at = links[at][1]
    return words[::-1]


def _moved(
    net: _Network, score: Array, link: NDArray[np.int64], entering: Array, entering_link: NDArray[np.int64], row: Array
) -> tuple[Array, NDArray[np.int64]]:
    """One frame on: every state stays, or is reached from the state before, from the one before that, or from outside its word."""
    step, step_link = np.roll(score, 1), np.roll(link, 1)
    step[net.first], step_link[net.first] = entering, entering_link
    leap, leap_link = np.where(net.skips, np.roll(score, 2), _NEVER), np.roll(link, 2)
    best, best_link = np.where(step > score, step, score), np.where(step > score, step_link, link)
    return np.where(leap > best, leap, best) + row[net.label], np.where(leap > best, leap_link, best_link)
