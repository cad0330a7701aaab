"""XAB preference: which of two systems is closer to a recording, X."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ttsadapt.listening.anchors import Anchor
from ttsadapt.listening.base import Clip, Trial
from ttsadapt.listening.pairs import Pairs
from ttsadapt.listening.pool import Pool
from ttsadapt.listening.references import Reference
from ttsadapt.reports.study import Spoken


class XAB(Pairs):
    """The value is 1 when the system is preferred, 0 when the other is."""

    chance = 0.5

    def __init__(
        self,
        unit: str,
        question: str,
        answers: Mapping[str, str],
        pairs: Sequence[Sequence[str]] | None,
        reference: Reference,
        anchors: Sequence[Anchor],
    ) -> None:
        """`answers` to "a" and "b"; `reference` chooses X. Checks: the recording itself against an anchor."""
        super().__init__(question, pairs)
        self.unit, self.answers, self.reference, self.anchors = unit, answers, reference, anchors

    def variants(self) -> int:
        return 2

    def trial(self, pool: Pool, spoken: Spoken, item: str, variant: int) -> Trial:
        return self._shown(pool, spoken, item, self.pair(pool, spoken, item), variant)

    def _shown(self, pool: Pool, spoken: Spoken, item: str, pair: tuple[Clip, Clip], variant: int, check: bool = False) -> Trial:
        a, b = pair if variant == 0 else pair[::-1]
        clips = (("x", replace(self.reference.clip(pool, spoken), copy=1)), ("a", a), ("b", b))
        ours = "a" if variant == 0 else "b"
        worth = {answer: float(answer == ours) for answer in ("a", "b")}
        return Trial(item, spoken, clips, self.asked(spoken), worth, (ours,) if check else None)

    def checks(self, pool: Pool, spoken: Spoken) -> list[Trial]:
        pair = self.known(pool, spoken)
        return [self._shown(pool, spoken, f"check: anchor {v}", pair, v, True) for v in (0, 1)] if pair else []

    def compared(self, item: str) -> dict[str, int]:
        system, other = self._pairs[item]
        return {system: 1, other: -1}
