"""A phone recogniser: a small convolutional network with CTC (Graves et al. 2006), greedy decoding, no language model.

It hears about half a second around each phone, so it cannot guess words from the corpus's sentences.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jiwer
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from ttsadapt.bars import Bar
from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.judges.clips import Clip
from ttsadapt.metrics.judges.judge import Judge
from ttsadapt.metrics.judges.training import Rooms, balanced, batches, blurred, fit, padded
from ttsadapt.metrics.signal import RATE, levelled, trimmed
from ttsadapt.reproducible import reproducible
from ttsadapt.text.phones import phonemize, split_stress

_HOP = RATE // 100
_STEP = 2 * _HOP
"""samples from one output to the next: 20 ms"""


class Network(nn.Module):
    """(B, samples) -> (B, T, 1 + phones) logits at 50 Hz; class 0 is the blank."""

    def __init__(self, phones: int, width: int = 112, blocks: int = 5, kernel: int = 5) -> None:
        super().__init__()
        self.mel = MelSpectrogram(RATE, n_fft=512, win_length=400, hop_length=_HOP, n_mels=80)
        self.stem = nn.Sequential(nn.Conv1d(80, width, 5, stride=2, padding=2), nn.BatchNorm1d(width), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width, width, kernel, padding=kernel // 2), nn.BatchNorm1d(width), nn.ReLU()) for _ in range(blocks)
        )
        self.out = nn.Sequential(nn.Dropout(0.1), nn.Linear(width, 1 + phones))

    def forward(self, audio: Tensor, samples: Tensor, spoil: Callable[[Tensor], Tensor] = lambda mel: mel) -> Tensor:
        """`samples`: (B,) how many of each row are audio."""
        hidden = self.stem(spoil(self._bands(audio, samples)))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.out(hidden.transpose(1, 2))

    def _bands(self, audio: Tensor, samples: Tensor) -> Tensor:
        """(B, 80, frames) log-mel minus each clip's mean in each band: voices and vocoders differ in tilt, words do not."""
        mel = self.mel(audio).clamp_min(1e-6).log() / 2.5
        inside = (torch.arange(mel.shape[-1]) <= (samples // _HOP)[:, None])[:, None].float()
        return (mel - (mel * inside).sum(-1, keepdim=True) / inside.sum(-1, keepdim=True)) * inside


def steps_of(samples: Tensor) -> Tensor:
    """Outputs for so many samples."""
    return (samples // _HOP) // 2 + 1


def phones_of(utterance: Utterance) -> tuple[str, ...]:
    """What is to be heard: no stress, no pauses. Without an alignment the text is phonemised (needs espeak-ng)."""
    symbols = [p.symbol for p in utterance.phones] or phonemize(utterance.text, utterance.language)
    return tuple(split_stress(s)[0] for s in symbols if s != PAUSE)


def errors(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Substitutions, deletions and insertions; `wanted` is not empty."""
    found = jiwer.process_words(" ".join(wanted), " ".join(heard))
    return found.substitutions + found.deletions + found.insertions


class Recogniser(Judge[Network]):
    """Trained on recordings and their vocoded copies; an alignment, where the corpus has one, only speeds the start up."""

    name: ClassVar[str] = "recogniser"
    revision: ClassVar[int] = 1

    def __init__(self, corpus: Path, cache: Path, steps: int = 1200, seconds: float = 12.0, lr: float = 3e-3) -> None:
        """`steps` of the optimiser, each on `seconds` of audio."""
        super().__init__(corpus, cache, steps=steps, seconds=seconds, lr=lr)
        self.steps, self.seconds, self.lr = steps, seconds, lr

    def network(self, card: dict[str, Any]) -> Network:
        return Network(len(card["phones"]))

    @property
    def languages(self) -> list[str]:
        """Heard in training: in others it has no say."""
        return self.card["languages"]

    @torch.inference_mode()
    def transcribe(self, audio: Tensor) -> tuple[str, ...]:
        """(samples,) at RATE -> phones; () for silence."""
        return _decode(self.model, trimmed(audio), self.card["phones"])

    @torch.inference_mode()
    def likelihoods(self, audio: Tensor) -> NDArray[np.float64] | None:
        """(samples,) at RATE, trimmed -> (T, 1 + phones) log probabilities at 50 Hz, the blank first; None for silence."""
        if len(audio) < RATE // 20 or not audio.any():
            return None
        return self.model(levelled(audio)[None], torch.tensor([len(audio)]))[0].double().log_softmax(-1).numpy()

    def build(self, folder: Path) -> None:
        clips = [c for c in self.clips.train() if phones_of(c.utterance)]
        phones = sorted({p for c in clips for p in phones_of(c.utterance)})
        with reproducible():
            model = Network(len(phones))
            loss = _Loss(model, phones)
            fit(model, loss, batches(balanced(clips), self.seconds), self.steps, self.lr, "phone recogniser")
            error = _examine(model, phones, self.clips.held_out())
        languages = sorted({c.utterance.language for c in clips})
        self.write(folder, model, {"phones": phones, "languages": languages, "steps": self.steps, "unit": "%", "error": error})


class _Loss:
    """CTC; where phones are aligned, a frame-wise cross-entropy that fades out over the first 70 % of the training."""

    def __init__(self, model: Network, phones: Sequence[str], aligned: float = 0.5) -> None:
        self.model, self.aligned, self.rooms = model, aligned, Rooms()
        self.index = {p: i + 1 for i, p in enumerate(phones)}

    def __call__(self, clips: list[Clip], progress: float) -> Tensor:
        audio, samples = padded([c.audio for c in clips])
        logits = self.model(self.rooms(audio, samples), samples, blurred)
        wanted = [torch.tensor([self.index[p] for p in phones_of(c.utterance)]) for c in clips]
        counts, likely = torch.tensor([len(w) for w in wanted]), logits.log_softmax(-1)
        loss = F.ctc_loss(likely.transpose(0, 1), torch.cat(wanted), steps_of(samples), counts, zero_infinity=True)
        fade = self.aligned * max(0.0, 1 - progress / 0.7)
        frames = torch.stack([self._frames(c, logits.shape[1]) for c in clips])
        if fade and bool((frames >= 0).any()):
            loss = loss + fade * F.cross_entropy(logits.flatten(0, 1), frames.flatten(), ignore_index=-100)
        return loss

    def _frames(self, clip: Clip, steps: int) -> Tensor:
        """(steps,) class at each output, -100 where none is known."""
        classes = torch.full((steps,), -100)
        for symbol, start, end in clip.utterance.phones:
            first, last = (max(round((t - clip.start) * RATE / _STEP), 0) for t in (start, end))
            classes[first : max(last, first + 1)] = self.index.get(split_stress(symbol)[0], 0)
        return classes


def _decode(model: nn.Module, audio: Tensor, phones: Sequence[str]) -> tuple[str, ...]:
    if len(audio) < RATE // 20 or not audio.any():
        return ()
    best = model(levelled(audio)[None], torch.tensor([len(audio)]))[0].argmax(-1).unique_consecutive()
    return tuple(phones[i - 1] for i in best.tolist() if i)


@torch.inference_mode()
def _examine(model: nn.Module, phones: Sequence[str], clips: Iterable[Clip]) -> dict[str, float]:
    """Phone error rate in % by set, micro-averaged; vocoded copies apart."""
    wrong: dict[str, int] = {}
    total: dict[str, int] = {}
    for clip in Bar(list(clips), "recogniser on held-out recordings", unit="clip", leave=False):
        name = f"{'vocoded' if clip.vocoded else 'recordings'}/{clip.group}"
        wanted = phones_of(clip.utterance)
        if not wanted:
            continue
        wrong[name] = wrong.get(name, 0) + errors(wanted, _decode(model, clip.audio, phones))
        total[name] = total.get(name, 0) + len(wanted)
    return {name: round(100 * wrong[name] / total[name], 3) for name in sorted(wrong)}
