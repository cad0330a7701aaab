"""Absolute ratings, one clip a screen: naturalness, or (beside a reference) similarity or emotion. ITU-T P.800, annex B."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ttsadapt.errors import UserError
from ttsadapt.listening.anchors import Anchor
from ttsadapt.listening.base import Clip, Task, Trial
from ttsadapt.listening.pool import Pool
from ttsadapt.listening.references import Reference
from ttsadapt.reports.study import Spoken


class Rating(Task):
    """An answer is a number of points; every system is an item."""

    def __init__(
        self,
        unit: str,
        question: str,
        answers: Mapping[int, str],
        reference: Reference | None,
        anchors: Sequence[Anchor],
        low: int,
        high: int,
    ) -> None:
        """`question`: {text}, {emotion} and {speaker} are filled in.

        Checks: `anchors` must get at most `low`, recordings at least `high`.
        """
        if low >= high:
            raise UserError(f"page.task.low={low} must be below high={high}: else who always gives {low} passes every check")
        self.unit, self.question, self.answers, self.reference = unit, question, answers, reference
        self.anchors, self.low, self.high = anchors, low, high

    def items(self, pool: Pool) -> Sequence[str]:
        return pool.labels

    def variants(self) -> int:
        return 1

    def trial(self, pool: Pool, spoken: Spoken, item: str, variant: int) -> Trial:
        return self._asked(pool, spoken, item, Clip(item, pool.wav(item, spoken)))

    def _asked(self, pool: Pool, spoken: Spoken, item: str, sample: Clip, accepted: Sequence[int] | None = None) -> Trial:
        beside = (("reference", replace(self.reference.clip(pool, spoken), copy=1)),) if self.reference else ()
        question = self.question.format(text=spoken.text, emotion=spoken.emotion, speaker=spoken.speaker)
        worth = {str(points): float(points) for points in self.answers}
        known = None if accepted is None else tuple(map(str, accepted))
        return Trial(item, spoken, (*beside, ("sample", sample)), question, worth, known)

    def checks(self, pool: Pool, spoken: Spoken) -> list[Trial]:
        low = [int(points) for points in self.answers if int(points) <= self.low]
        high = [int(points) for points in self.answers if int(points) >= self.high]
        found = [(clip, low) for anchor in self.anchors if (clip := anchor.clip(pool, spoken))]
        if path := pool.recording(spoken):
            found.append((Clip("recordings", path), high))
        return [self._asked(pool, spoken, f"check: {clip.system}", clip, points) for clip, points in found]

    def compared(self, item: str) -> dict[str, int]:
        return {item: 1}
