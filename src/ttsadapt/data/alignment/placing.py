"""From where a CTC model heard each token to times that tile the recording."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torchaudio.functional as A
from torch import Tensor

from ttsadapt.data.alignment.base import Unaligned
from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Phone

LARGEST = 1 << 30
"""bytes: the table of a best path has one for each output and each of twice the tokens"""
_FRAME, _HOP = 0.02, 0.005
"""seconds, of the levels that pauses are found by"""


def spans(likely: Tensor, classes: Sequence[int], blank: int) -> tuple[list[tuple[int, int]], list[float]]:
    """(T, C) log probabilities, the classes in order -> outputs of each on the likeliest CTC path, its mean probability."""
    repeats = sum(a == b for a, b in pairwise(classes))
    if len(likely) < len(classes) + repeats:
        raise Unaligned(f"{len(classes)} sounds in {len(likely)} outputs of the aligner: the text is longer than what is said")
    if len(likely) * (2 * len(classes) + 1) > LARGEST:
        raise Unaligned("too long to be aligned in one piece: give word times beside it, or cut it into parts of some minutes")
    path, scores = A.forced_align(likely[None], torch.tensor([list(classes)], dtype=torch.int32), blank=blank)
    cuts = [0, *((path[0, 1:] != path[0, :-1]).nonzero()[:, 0] + 1).tolist(), len(likely)]
    found = [(a, b) for a, b in pairwise(cuts) if int(path[0, a]) != blank]
    return found, [float(scores[0, a:b].exp().mean()) for a, b in found]


def borders(likely: Tensor, classes: Sequence[int], at: Sequence[tuple[int, int]], blank: int) -> list[int]:
    """The output at which each token gives way to the next, (len(classes) - 1).

    Trained by CTC, a model marks a token at one output of many and calls the others blank. What it thinks of those beside that
    still tells one phone from its neighbour: the border is where the odds of the two change sides, summed up between their marks.
    """
    odds = likely.clone()
    odds[:, blank] = -torch.inf
    odds = odds.log_softmax(-1)
    found = []
    for (this, following), ((_, left), (right, _)) in zip(pairwise(classes), pairwise(at)):
        between = odds[left:right, this] - odds[left:right, following]
        sums = torch.cat([between.new_zeros(1), between.cumsum(0)])
        found.append(left + int(sums.argmax()) if this != following and right > left else (left + right) // 2)
    return found


class Levels:
    """How loud a recording is along its time: what is a pause."""

    def __init__(self, audio: Tensor, rate: int, drop: float = 25.0, shortest: float = 0.06) -> None:
        """A pause is `drop` dB below the 95th percentile of levels for at least `shortest` seconds."""
        frame, self.hop = max(round(_FRAME * rate), 1), max(round(_HOP * rate), 1)
        level = torch.nn.functional.pad(audio.float(), (frame // 2, frame)).unfold(0, frame, self.hop).square().mean(-1)
        self.quiet: list[bool] = (level < level.quantile(0.95) * 10 ** (-drop / 10)).tolist()
        self.step, self.shortest, self.duration = self.hop / rate, shortest, len(audio) / rate

    def pause(self, start: float, end: float) -> tuple[float, float] | None:
        """The longest quiet stretch between two times in seconds, if it is one."""
        best = max(self._runs(start, end), key=lambda r: r[1] - r[0], default=(0.0, 0.0))
        return best if best[1] - best[0] >= self.shortest else None

    def lead(self, end: float) -> float:
        """Until when it is quiet at the beginning, at most `end`."""
        runs = self._runs(0.0, end)
        return runs[0][1] if runs and runs[0][0] <= self.step else 0.0

    def tail(self, start: float) -> float:
        """From when on it is quiet until the end, at least `start`."""
        runs = self._runs(start, self.duration)
        return runs[-1][0] if runs and runs[-1][1] >= self.duration - self.step else self.duration

    def _runs(self, start: float, end: float) -> list[tuple[float, float]]:
        first, last = round(start / self.step), min(round(end / self.step), len(self.quiet))
        quiet = [False, *self.quiet[first:last], False]
        edges = [i for i, (a, b) in enumerate(pairwise(quiet)) if a != b]
        runs = [((first + a) * self.step, (first + b) * self.step) for a, b in zip(edges[::2], edges[1::2])]
        return [(max(a, start), min(b, end)) for a, b in runs if b > start and a < end]


def tiled(
    symbols: Sequence[str], words: Sequence[int], at: Sequence[tuple[float, float]], borders: Sequence[float], levels: Levels
) -> tuple[list[Phone], list[int]]:
    """Tokens heard at `at`, each giving way to the next at its border (seconds) -> phones that tile the recording, the word of each.

    Pauses, of word -1, are put where it is quiet, and only between words: within one that is the closure of a stop.
    """
    phones: list[Phone] = []
    owners: list[int] = []

    def put(symbol: str, start: float, end: float, word: int) -> None:
        if end > start:
            phones.append(Phone(symbol, start, end))
            owners.append(word)

    start = levels.lead(at[0][0])
    put(PAUSE, 0.0, start, -1)
    for i, border in enumerate(borders):
        pause = levels.pause(at[i][1], at[i + 1][0]) if words[i] != words[i + 1] else None
        end, following = pause or (border, border)
        put(symbols[i], start, end, words[i])
        put(PAUSE, end, following, -1)
        start = following
    end = levels.tail(at[-1][1])
    put(symbols[-1], start, end, words[-1])
    put(PAUSE, end, levels.duration, -1)
    return phones, owners
