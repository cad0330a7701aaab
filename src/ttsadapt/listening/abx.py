"""ABX: X is one of A and B, and the listener says which. At chance, the two systems cannot be told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ttsadapt.listening.anchors import Anchor
from ttsadapt.listening.base import Clip, Trial
from ttsadapt.listening.pairs import Pairs
from ttsadapt.listening.pool import Pool
from ttsadapt.reports.study import Spoken


class ABX(Pairs):
    """The value is 1 when the answer is right."""

    chance = 0.5

    def __init__(
        self, unit: str, question: str, answers: Mapping[str, str], pairs: Sequence[Sequence[str]] | None, anchors: Sequence[Anchor]
    ) -> None:
        """`answers` to "a" and "b". Checks: a recording against an anchor."""
        super().__init__(question, pairs)
        self.unit, self.answers, self.anchors = unit, answers, anchors

    def variants(self) -> int:
        """Which comes first, and which is X."""
        return 4

    def trial(self, pool: Pool, spoken: Spoken, item: str, variant: int) -> Trial:
        return self._shown(spoken, item, self.pair(pool, spoken, item), variant)

    def _shown(self, spoken: Spoken, item: str, pair: tuple[Clip, Clip], variant: int, check: bool = False) -> Trial:
        a, b = pair if variant % 2 == 0 else pair[::-1]
        right = "a" if variant < 2 else "b"
        clips = (("x", replace(a if right == "a" else b, copy=1)), ("a", a), ("b", b))
        worth = {answer: float(answer == right) for answer in ("a", "b")}
        return Trial(item, spoken, clips, self.asked(spoken), worth, (right,) if check else None)

    def checks(self, pool: Pool, spoken: Spoken) -> list[Trial]:
        pair = self.known(pool, spoken)
        return [self._shown(spoken, f"check: anchor {v}", pair, v, True) for v in (0, 3, 1, 2)] if pair else []
