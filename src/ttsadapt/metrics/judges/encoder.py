"""Encoders: a small ECAPA-TDNN (Desplanques et al. 2020, speechbrain's) under a cosine classifier with an additive margin."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from ttsadapt.bars import Bar
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import UserError
from ttsadapt.metrics.judges.clips import Clip
from ttsadapt.metrics.judges.judge import Judge
from ttsadapt.metrics.judges.training import Rooms, balanced, blurred, fit, padded, shuffled
from ttsadapt.metrics.signal import RATE, levelled, trimmed
from ttsadapt.reproducible import reproducible

_HOP = RATE * 16 // 1000


class Network(nn.Module):
    """(B, samples) -> (B, size) vectors, and (B, classes) cosines from those."""

    def __init__(self, classes: int, channels: int = 128, size: int = 96) -> None:
        super().__init__()
        # A long window: at 16 Hz between bins harmonics are resolved, and with them pitch.
        self.mel = MelSpectrogram(RATE, n_fft=1024, win_length=1024, hop_length=_HOP, n_mels=80)
        wide = [channels] * 4 + [3 * channels]
        self.encoder = ECAPA_TDNN(80, channels=wide, lin_neurons=size, attention_channels=64, se_channels=64)
        self.classifier = Classifier(size, out_neurons=classes)

    def forward(self, audio: Tensor, lengths: Tensor | None = None, spoil: Callable[[Tensor], Tensor] = lambda mel: mel) -> Tensor:
        """`lengths`: share of each row that is audio, (B,)."""
        mel = spoil((self.mel(audio).clamp_min(1e-6).log() + 4) / 3)
        return self.encoder(mel.transpose(1, 2), lengths)[:, 0]


class Encoder(Judge[Network]):
    """Learns to tell the classes of one property of the recordings apart."""

    metric: ClassVar[str]
    """what a user drops when this judge is not available"""
    what: ClassVar[str]
    revision: ClassVar[int] = 1

    def __init__(self, corpus: Path, cache: Path, steps: int, count: int, crop: float, margin: float, scale: float) -> None:
        """`steps` of the optimiser, each on `count` clips cut to at most `crop` seconds; angular `margin` and `scale` of the loss."""
        super().__init__(corpus, cache, steps=steps, count=count, crop=crop, margin=margin, scale=scale)
        self.steps, self.count, self.crop, self.margin, self.scale = steps, count, crop, margin, scale

    @abstractmethod
    def label(self, utterance: Utterance) -> str: ...

    @abstractmethod
    def examine(self, model: Network, classes: Sequence[str], vectors: list[tuple[Clip, Tensor]]) -> dict[str, float]:
        """The judge's own error on held-out clips, in %, by set."""

    def network(self, card: dict[str, Any]) -> Network:
        return Network(len(card["classes"]))

    @property
    def classes(self) -> list[str]:
        return self.card["classes"]

    @torch.inference_mode()
    def embed(self, audio: Tensor) -> Tensor | None:
        """(samples,) at RATE -> (size,) of length 1; None where there is no speech."""
        return embed(self.model, trimmed(audio))

    def build(self, folder: Path) -> None:
        clips = self.clips.train()
        classes = sorted({self.label(c.utterance) for c in clips})
        if len(classes) < 2:
            raise UserError(
                f"{self.corpus.name}: one {self.what} only ({', '.join(classes)}), so no judge can learn to tell {self.what}s apart: "
                f"drop {self.metric} from metric=[...]"
            )
        with reproducible():
            model = Network(len(classes))
            order = shuffled(balanced(clips), self.count)
            fit(model, self._loss(model, classes), order, self.steps, 3e-3, f"{self.what} encoder")
            held = embedded(model, self.clips.held_out(), f"{self.what} encoder on held-out recordings")
            self.keep(folder, model)
        self.write(folder, model, {"classes": classes, "steps": self.steps, "unit": "%", "error": self.examine(model, classes, held)})

    def keep(self, folder: Path, model: Network) -> None:
        """Leave more than weights and card."""

    def _loss(self, model: Network, classes: Sequence[str]) -> Callable[[list[Clip], float], Tensor]:
        index, rooms = {c: i for i, c in enumerate(classes)}, Rooms()
        criterion = LogSoftmaxWrapper(AdditiveAngularMargin(margin=self.margin, scale=self.scale))

        def loss(clips: list[Clip], progress: float) -> Tensor:
            audio, samples = padded([_cropped(c.audio, self.crop) for c in clips])
            wanted = torch.tensor([index[self.label(c.utterance)] for c in clips])
            vectors = model(rooms(audio, samples), samples / audio.shape[1], blurred)
            return criterion(model.classifier(vectors[:, None]), wanted[:, None])

        return loss


def _cropped(audio: Tensor, seconds: float) -> Tensor:
    """At most `seconds` from a random place."""
    size = int(seconds * RATE)
    if len(audio) <= size:
        return audio
    start = int(torch.randint(len(audio) - size, ()))
    return audio[start : start + size]


@torch.inference_mode()
def embed(model: nn.Module, audio: Tensor) -> Tensor | None:
    if len(audio) < RATE // 10 or not audio.any():
        return None
    return F.normalize(model(levelled(audio)[None])[0], dim=0)


def embedded(model: nn.Module, clips: Sequence[Clip], title: str) -> list[tuple[Clip, Tensor]]:
    found = [(clip, embed(model, clip.audio)) for clip in Bar(clips, title, unit="clip", leave=False)]
    return [(clip, vector) for clip, vector in found if vector is not None]


def by_set(pairs: Sequence[tuple[Clip, Tensor]]) -> dict[str, list[tuple[Clip, Tensor]]]:
    """{"recordings/target": ..., "vocoded/target": ...}"""
    groups: dict[str, list[tuple[Clip, Tensor]]] = {}
    for clip, vector in pairs:
        groups.setdefault(f"{'vocoded' if clip.vocoded else 'recordings'}/{clip.group}", []).append((clip, vector))
    return dict(sorted(groups.items()))
