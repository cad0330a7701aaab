"""FastSpeech 2 (Ren et al. 2021): parallel acoustic model with predicted durations, pitch and energy.

Several voices and emotions as in HyperTTS (Li et al. 2024): their embeddings join the encoder's output. Beyond the paper, the
decoder is told where in its phone each frame lies, which lets narrow kernels learn what else takes wide ones.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import ClassVar

import torch
from torch import Tensor, nn

from ttsadapt.backbones.base import Batch, Request
from ttsadapt.backbones.fastspeech2_frontend import PAD, FastSpeech2Frontend
from ttsadapt.backbones.parallel import ParallelBackbone, frames_of
from ttsadapt.backbones.parts import FFTStack, VariancePredictor, regulate, sequence_mask
from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.heads import Continuous, Heads

SIGMA = {"mel": 0.5, "postnet": 0.5, "duration": 0.11, "pitch": 0.21, "energy": 0.11}
"""Scales of the likelihoods behind the losses, near the residuals of a trained model on held-out recordings: nats of mel
(Laplace), log frames of duration, and pretraining deviations of pitch and energy (Gaussian)."""


class VarianceAdaptor(nn.Module):
    """Predicts duration, pitch and energy of every phone; adds the embedded pitch and energy to the hidden states."""

    def __init__(self, width: int, hidden: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.duration = VariancePredictor(width, hidden, kernel, dropout)
        self.pitch = VariancePredictor(width, hidden, kernel, dropout)
        self.energy = VariancePredictor(width, hidden, kernel, dropout)
        self.pitch_embedding = nn.Conv1d(1, width, kernel, padding=kernel // 2)
        self.energy_embedding = nn.Conv1d(1, width, kernel, padding=kernel // 2)

    def predict(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """(B, P, C) -> {"duration": log(frames + 1), "pitch", "energy": z-scores}, each (B, P)."""
        return {"duration": self.duration(x, mask), "pitch": self.pitch(x, mask), "energy": self.energy(x, mask)}

    def embed(self, x: Tensor, mask: Tensor, pitch: Tensor, energy: Tensor) -> Tensor:
        pitch, energy = (pitch * mask)[:, None], (energy * mask)[:, None]  # (B, 1, P)
        return x + self.pitch_embedding(pitch).mT + self.energy_embedding(energy).mT


class FastSpeech2(ParallelBackbone):
    """Phones -> encoder -> variance adaptor -> length regulation -> decoder -> mel. The frontend is fitted before."""

    adaptable: ClassVar[tuple[str, ...]] = (
        "*coder.blocks.*.attention.query",
        "*coder.blocks.*.attention.key",
        "*coder.blocks.*.attention.value",
        "*coder.blocks.*.attention.out",
        "*coder.blocks.*.ffn.expand",
        "*coder.blocks.*.ffn.contract",
        "variance_adaptor.*.convs.*",
    )
    components: ClassVar[dict[str, tuple[str, ...]]] = {
        "embeddings": ("phone_embedding.*", "stress_embedding.*", "speaker_projection.*", "emotion_embedding.*"),
        "encoder": ("encoder.*",),
        "variance_adaptor": ("variance_adaptor.*", "share_projection.*"),
        "decoder": ("decoder.*",),
        "output": ("mel_linear.*", "postnet.*"),
    }
    mel_mean: Tensor
    mel_std: Tensor

    def __init__(
        self,
        frontend: FastSpeech2Frontend,
        width: int = 256,
        heads: int = 2,
        encoder_blocks: int = 4,
        decoder_blocks: int = 6,
        hidden: int = 1024,
        kernel: int = 9,
        dropout: float = 0.2,
        attention_bias: bool = True,
        predictor_hidden: int = 256,
        predictor_kernel: int = 3,
        predictor_dropout: float = 0.5,
        postnet: nn.Module | None = None,
        vocoder: Callable[[Tensor], Tensor] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """`postnet(mel, mask)` refines the mel; `vocoder`: (T, n_mels) -> (samples,), None for Griffin-Lim;
        `weights`: of heads in the task loss, 1 where not given."""
        super().__init__()
        self.frontend, self.sample_rate = frontend, frontend.sample_rate
        n_mels = frontend.mel.n_mels
        self.phone_embedding = nn.Embedding(len(frontend.symbols) + 1, width, padding_idx=PAD)
        self.stress_embedding = nn.Embedding(3, width)
        self.speaker_projection = nn.Linear(frontend.statistics.size, width)
        self.emotion_embedding = nn.Embedding(len(frontend.emotions), width)
        for table in (self.phone_embedding, self.stress_embedding, self.emotion_embedding):
            nn.init.normal_(table.weight, std=width**-0.5)
        self.encoder = FFTStack(encoder_blocks, width, heads, hidden, kernel, dropout, attention_bias)
        self.variance_adaptor = VarianceAdaptor(width, predictor_hidden, predictor_kernel, predictor_dropout)
        self.share_projection = nn.Linear(2, width)
        self.decoder = FFTStack(decoder_blocks, width, heads, hidden, kernel, dropout, attention_bias)
        self.mel_linear = nn.Linear(width, n_mels)
        self.postnet = postnet
        self.vocoder = vocoder or GriffinLim(deepcopy(frontend.mel))  # its own: the frontend stays on the CPU
        self.weights = dict(weights or {})
        mean, std = frontend.scales["mel"]
        self.register_buffer("mel_mean", mean.clone())  # the decoder works in deviations, the mel is in nats
        self.register_buffer("mel_std", std.clone())

    @property
    def duration_predictor(self) -> tuple[str, VariancePredictor]:
        return "variance_adaptor.duration", self.variance_adaptor.duration

    # Parts of a pass ---------------------------------------------------------------------------------------------------

    def encode(self, phones: Tensor, stress: Tensor, speaker: Tensor, emotion: Tensor, mask: Tensor) -> Tensor:
        """(B, P), (B, P), (B, E), (B,) -> (B, P, C), voice and emotion included."""
        x = self.encoder(self.phone_embedding(phones) + self.stress_embedding(stress), mask)
        return x + (self.speaker_projection(speaker) + self.emotion_embedding(emotion))[:, None]

    def decode(self, x: Tensor, durations: Tensor, mask: Tensor) -> Tensor:
        """(B, P, C), (B, P), (B, T) -> (B, T, C)."""
        x, share = regulate(x, durations, mask.shape[1])
        return self.decoder(x + self.share_projection(torch.stack([share, 1 - share], -1)), mask)

    def to_mel(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., n_mels) nats."""
        return self.mel_linear(x) * self.mel_std + self.mel_mean

    # Training ----------------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Heads:
        phone_mask, frame_mask = self.block_mask(batch, "encoder"), self.block_mask(batch, "decoder")
        x = self.encode(batch["phones"], batch["stress"], batch["speaker"], batch["emotion"], phone_mask)
        predicted = self.variance_adaptor.predict(x, phone_mask)
        x = self.variance_adaptor.embed(x, phone_mask, batch["pitch"], batch["energy"])
        hidden = self.decode(x, batch["durations"], frame_mask)
        return self._mel_heads(hidden, batch, frame_mask) | self._phone_heads(predicted, batch)

    def _mel_heads(self, hidden: Tensor, batch: Batch, mask: Tensor) -> Heads:
        at = row, _ = batch["frame_row"], batch["frame_place"]
        wanted = batch["mel"][at]
        if self.postnet is None:
            return {"mel": self._frames("mel", self.to_mel(hidden[at]), wanted, row)}
        mel = self.to_mel(hidden)
        values = {"mel": mel, "postnet": self.postnet(mel, mask)}
        return {name: self._frames(name, value[at], wanted, row) for name, value in values.items()}

    def _frames(self, name: str, value: Tensor, target: Tensor, row: Tensor) -> Continuous:
        return self._head(name, value, target, row, "frames", 1, SIGMA[name])

    def _phone_heads(self, predicted: dict[str, Tensor], batch: Batch) -> Heads:
        at = row, _ = batch["phone_row"], batch["phone_place"]
        wanted = {"duration": batch["durations"].float().log1p(), "pitch": batch["pitch"], "energy": batch["energy"]}
        return {
            name: self._head(name, value[at][:, None], wanted[name][at][:, None], row, "phones", 2, SIGMA[name])
            for name, value in predicted.items()
        }

    # Synthesis ---------------------------------------------------------------------------------------------------------

    def predict_mel(self, requests: Sequence[Request]) -> list[Tensor]:
        asked = self._asked(requests)
        mask = asked["mask"]
        emotion = torch.tensor([self.frontend.emotion(r.emotion) for r in requests], device=mask.device)
        x = self.encode(asked["phones"], asked["stress"], asked["speaker"], emotion, mask)
        predicted = self.variance_adaptor.predict(x, mask)
        durations = frames_of(predicted["duration"], mask)
        x = self.variance_adaptor.embed(x, mask, predicted["pitch"], predicted["energy"])
        frames = durations.sum(1)
        frame_mask = sequence_mask(frames, int(frames.max()))
        mel = self.to_mel(self.decode(x, durations, frame_mask))
        if self.postnet is not None:
            mel = self.postnet(mel, frame_mask)
        return [one[:n] for one, n in zip(mel, frames.tolist())]
