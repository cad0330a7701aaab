"""What tests of two systems at a time share: which pairs, and in which order they are shown."""

from collections.abc import Sequence

from ttsadapt.errors import UserError
from ttsadapt.listening.anchors import Anchor
from ttsadapt.listening.base import Clip, Task
from ttsadapt.listening.pool import Pool
from ttsadapt.reports.study import Spoken

AGAINST = " against "


class Pairs(Task):
    """An item is "<system> against <other>"; its value is for the first of the two."""

    anchors: Sequence[Anchor]

    def __init__(self, question: str, pairs: Sequence[Sequence[str]] | None) -> None:
        """`pairs`: [[system, other], ...]; None: every adapted system against the untuned model."""
        self.question, self.pairs = question, pairs
        self._pairs: dict[str, tuple[str, str]] = {}

    def items(self, pool: Pool) -> Sequence[str]:
        pairs = [(str(a), str(b)) for a, b in self.pairs] if self.pairs else self._against_the_floor(pool)
        for label in (label for pair in pairs for label in pair):
            if label not in pool.labels:
                raise UserError(f"page.task.pairs: {label!r} is not among the systems heard: {', '.join(pool.labels)}")
        self._pairs = {a + AGAINST + b: (a, b) for a, b in pairs}
        return list(self._pairs)

    def _against_the_floor(self, pool: Pool) -> list[tuple[str, str]]:
        adapted = [s.label for s in pool.systems if s.adapted]
        if pool.floor is None or not adapted:
            raise UserError(
                "page.task.pairs: there is no untuned model, or nothing adapted, to compare: give the pairs, "
                f"such as page.task.pairs=[[{','.join(pool.labels[:2])}]]"
            )
        return [(label, pool.floor) for label in adapted]

    def pair(self, pool: Pool, spoken: Spoken, item: str) -> tuple[Clip, Clip]:
        """(system, other)."""
        first, second = self._pairs[item]
        return Clip(first, pool.wav(first, spoken)), Clip(second, pool.wav(second, spoken))

    def known(self, pool: Pool, spoken: Spoken) -> tuple[Clip, Clip] | None:
        """(a recording, something worse): what no listener takes for each other."""
        path = pool.recording(spoken)
        anchor = next((clip for a in self.anchors if (clip := a.clip(pool, spoken))), None)
        return (Clip("recordings", path), anchor) if path and anchor else None

    def asked(self, spoken: Spoken) -> str:
        """The question with {text}, {emotion} and {speaker} filled in."""
        return self.question.format(text=spoken.text, emotion=spoken.emotion, speaker=spoken.speaker)
