"""What a clip is held against: a recording that the listener hears beside it."""

from abc import ABC, abstractmethod

from ttsadapt.errors import UserError
from ttsadapt.listening.base import Clip
from ttsadapt.listening.pool import Pool
from ttsadapt.reports.study import Spoken


class Reference(ABC):
    """Chooses a recording for a sentence."""

    @abstractmethod
    def clip(self, pool: Pool, spoken: Spoken) -> Clip:
        """UserError when the study has no such recording."""


class SameSentence(Reference):
    """The sentence's own recording."""

    def clip(self, pool: Pool, spoken: Spoken) -> Clip:
        path = pool.recording(spoken)
        if path is None:
            raise UserError(f"{spoken.set}/{spoken.id} has no recording among the runs' wavs: leave out its set (page.sets)")
        return Clip("recordings", path)


class OtherSentence(Reference):
    """Another recording of the same speaker, with the same emotion where there is one: similarity must not be heard from the words."""

    def clip(self, pool: Pool, spoken: Spoken) -> Clip:
        own = [(s, path) for s, path in pool.recorded() if s.speaker == spoken.speaker and s.text != spoken.text]
        alike = [pair for pair in own if pair[0].emotion == spoken.emotion] or own
        if not alike:
            raise UserError(f"there is no second recording of {spoken.speaker!r} ({spoken.set}/{spoken.id}): use references.SameSentence")
        return Clip("recordings", alike[sum(map(ord, spoken.id)) % len(alike)][1])
