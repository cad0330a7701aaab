"""What strategies that look at the voice share: a vector of it for every row of every batch, and of every request."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ttsadapt.adapters import Follower
from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.backbones.speakers import SpeakerStatistics
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError
from ttsadapt.files import digest, replacing
from ttsadapt.strategies.base import Strategy, Study


class Voiced(Strategy):
    """The voice's vector is the backbone's own, where it is conditioned on one, else statistics of the speaker's recordings.

    A backbone that clones by going on from a recording has no vector: then those of all speakers with training recordings are made in
    `study`, and those of further ones in `enroll`.
    """

    voice_size: int
    """of the vectors, known after `study`"""

    def __init__(self) -> None:
        super().__init__()
        self._backbone: tuple[Backbone, ...] = ()  # a tuple: not this module's child, not saved with it
        self._statistics: SpeakerStatistics | None = None
        self._table: dict[str, Tensor] = {}
        self._followers: list[Follower] = []
        self._seed = 0

    def study(self, study: Study) -> None:
        self._seed = int(torch.randint(2**31, (1,), generator=study.generator))
        self._backbone = (study.backbone,)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # what a batch leaves to chance is nobody else's business
            speaker = study.target.collate(study.target.ids[:1])["speaker"]
            self.voice_size = study.backbone.voice_vector(speaker.to(_device(study.backbone))).shape[1]
        if self.voice_size == 0:
            self._measure(study)

    def _measure(self, study: Study) -> None:
        """Vectors of all speakers, and the scales that make them comparable, from a file where there is one."""
        if not study.voices:
            raise DataError("a strategy needs a vector of each voice, the backbone has none and there are no training recordings to hear")
        self._statistics = SpeakerStatistics(MelSpectrogram())
        self.voice_size = self._statistics.size
        heard = sorted(f"{u.speaker} {u.id}" for u in study.voices)
        path = study.cache / f"voices-{digest(heard)}.safetensors"
        if not path.is_file():
            _store(path, self._statistics.fit(study.voices), self._statistics)
        table = load_file(path)
        self._statistics.restore({name: table.pop(f"/{name}") for name in ("mean", "std")})
        self._table = table

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        if self._statistics is not None:
            self._table |= self._statistics.vectors([u for u in utterances if u.speaker not in self._table])

    def stand(self, follower: Follower, module: nn.Module) -> None:
        """Hang a follower that is told about voices behind `module`."""
        follower.hang(module)
        self._followers.append(follower)

    def condition(self, batch: Batch) -> None:
        if not any(not follower.off for follower in self._followers):
            return
        speaker: Tensor = batch["speaker"]
        first, index = batch.get("voice_first", list(range(len(speaker)))), batch.get("voice_index")
        vectors = self._vectors(batch, first, speaker)
        self.tell(vectors, None if len(first) == len(speaker) else index, batch)

    def _vectors(self, batch: Batch, first: Sequence[int], speaker: Tensor) -> Tensor:
        """(S, E) of the distinct voices."""
        if self._statistics is None:
            return self._backbone[0].voice_vector(speaker if len(first) == len(speaker) else speaker[first])
        names = [batch["voices"][i] for i in first] if "voices" in batch else []
        unknown = [name for name in names if name not in self._table]
        if unknown or not names:
            known = ", ".join(sorted(self._table))
            raise DataError(f"speaker {unknown[0] if unknown else ''!r} is unknown, there are {known}: enroll it from recordings")
        return torch.stack([self._table[name] for name in names]).to(speaker.device)

    @abstractmethod
    def tell(self, voices: Tensor, index: Tensor | None, batch: Batch) -> None:
        """Make ready for a pass: (S, E) distinct voices, (B,) the voice of each row; None: S is B, row s is in voice s."""

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        return self.parameters()


def _device(backbone: Backbone) -> torch.device:
    return next(backbone.parameters()).device


def _store(path: Path, vectors: dict[str, Tensor], statistics: SpeakerStatistics) -> None:
    """One file: the speakers, and the scales under names that no speaker has."""
    state = {name: value.contiguous() for name, value in vectors.items()}
    scales = {f"/{name}": value.contiguous() for name, value in statistics.state().items()}
    with replacing(path) as temporary:
        save_file(state | scales, temporary)
