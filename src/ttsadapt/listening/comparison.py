"""Comparison ratings, CMOS: how much better the second of two clips is than the first. ITU-T P.800, annex E."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ttsadapt.listening.anchors import Anchor
from ttsadapt.listening.base import Clip, Trial
from ttsadapt.listening.pairs import Pairs
from ttsadapt.listening.pool import Pool
from ttsadapt.reports.study import Spoken


class Comparison(Pairs):
    """Answers are points of B over A; their value is turned so that it is positive when the system is better than the other."""

    def __init__(
        self,
        unit: str,
        question: str,
        answers: Mapping[int, str],
        pairs: Sequence[Sequence[str]] | None,
        anchors: Sequence[Anchor],
        tie: int,
        beyond: int,
    ) -> None:
        """Checks: an anchor is at least `beyond` points worse than its recording; a clip is within `tie` points of itself."""
        super().__init__(question, pairs)
        self.unit, self.answers, self.anchors, self.tie, self.beyond = unit, answers, anchors, tie, beyond

    def variants(self) -> int:
        return 2

    def trial(self, pool: Pool, spoken: Spoken, item: str, variant: int) -> Trial:
        system, other = self.pair(pool, spoken, item)
        return self._shown(spoken, item, system, other, variant)

    def _shown(self, spoken: Spoken, item: str, better: Clip, worse: Clip, variant: int, accepted: Sequence[int] | None = None) -> Trial:
        first, second = (worse, better) if variant == 0 else (better, worse)
        sign = 1 if variant == 0 else -1
        worth = {str(points): float(sign * int(points)) for points in self.answers}
        known = None if accepted is None else tuple(map(str, accepted))
        return Trial(item, spoken, (("a", first), ("b", second)), self.asked(spoken), worth, known)

    def checks(self, pool: Pool, spoken: Spoken) -> list[Trial]:
        pair = self.known(pool, spoken)
        if pair is None:
            return []
        points = [int(p) for p in self.answers]
        same = [p for p in points if abs(p) <= self.tie]
        worse, better = [p for p in points if p <= -self.beyond], [p for p in points if p >= self.beyond]
        return [
            self._shown(spoken, "check: anchor second", *pair, 1, worse),
            self._shown(spoken, "check: a clip and itself", pair[0], replace(pair[0], copy=1), 0, same),
            self._shown(spoken, "check: anchor first", *pair, 0, better),
        ]

    def compared(self, item: str) -> dict[str, int]:
        system, other = self._pairs[item]
        return {system: 1, other: -1}
