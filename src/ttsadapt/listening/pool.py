"""Which sentences of a study are heard, by which systems."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ttsadapt.errors import UserError
from ttsadapt.reports.clips import across_emotions
from ttsadapt.reports.study import Spoken
from ttsadapt.reports.systems import System, Systems


class Pool:
    """`sentences` are rated; `spare` ones, of the same sets, serve for practice and checks."""

    def __init__(self, systems: Systems, chosen: Sequence[str] | None, sets: Sequence[str], sentences: int) -> None:
        """`chosen`: labels as in the study's tables; None: all. UserError when a label is unknown or nothing can be heard of a set."""
        self.everyone, self.sets = systems, sets
        known = {s.label: s for s in systems}
        for label in chosen or ():
            if label not in known:
                raise UserError(f"page.systems: the study has no {label!r}; it has {', '.join(known)}")
        self.systems = [known[label] for label in chosen] if chosen else list(systems)
        found = self._complete()
        self.sentences = found[:sentences]
        if len(self.sentences) < 2:
            raise UserError(
                f"page.sets=[{','.join(sets)}]: {len(found)} sentences were spoken by all of "
                f"{', '.join(s.label for s in self.systems)}, at least 2 are needed: finish these runs, or leave some out (page.systems)"
            )
        self.spare = found[sentences:] or self.sentences

    def _complete(self) -> list[Spoken]:
        """Sentences that every system has spoken, taken in turn from the sets, across emotions and speakers."""
        queues = []
        for set_ in self.sets:
            spoken = [s for (kind, _), s in sorted(self.everyone.study.spoken.items()) if kind == set_]
            queues.append(across_emotions([s for s in spoken if all(x.wav(set_, s.id) for x in self.systems)]))
        longest = max(map(len, queues), default=0)
        return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]

    @property
    def labels(self) -> list[str]:
        return [s.label for s in self.systems]

    @cached_property
    def ceiling(self) -> System | None:
        return next((s for s in self.everyone if s.kind == "ceiling"), None)

    @cached_property
    def floor(self) -> str | None:
        return next((s.label for s in self.systems if s.kind == "floor"), None)

    def wav(self, label: str, spoken: Spoken) -> Path:
        """Of the first seed that has it."""
        path = next(s for s in self.everyone if s.label == label).wav(spoken.set, spoken.id)
        if path is None:
            raise UserError(f"{label} has no wavs/{spoken.set}/{spoken.id}.wav: `ttsadapt evaluate` the run again")
        return path

    def recording(self, spoken: Spoken) -> Path | None:
        return self.ceiling.wav(spoken.set, spoken.id) if self.ceiling else None

    def recorded(self) -> list[tuple[Spoken, Path]]:
        """Every recording of the study, whatever its set."""
        return [(s, path) for _, s in sorted(self.everyone.study.spoken.items()) if (path := self.recording(s))]
