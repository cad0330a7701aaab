"""What parallel acoustic models share: a mel for every request of a batch at once, made audible by a vocoder."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.backbones.base import Backbone, Batch, Request, Slot
from ttsadapt.backbones.fastspeech2_frontend import FastSpeech2Frontend
from ttsadapt.backbones.parts import FFTStack, VariancePredictor, evaluating, sequence_mask
from ttsadapt.errors import DataError
from ttsadapt.heads import Continuous

LONGEST = 250
"""frames (4 s) that one phone may last in synthesis: an untrained predictor must not ask for hours"""


class ParallelBackbone(Backbone):
    """Phones -> encoder -> length regulation -> decoder -> mel -> vocoder."""

    frontend: FastSpeech2Frontend
    encoder: FFTStack
    decoder: FFTStack
    mel_linear: nn.Linear
    speaker_projection: nn.Linear
    vocoder: Callable[[Tensor], Tensor]
    """(T, n_mels) nats -> (samples,)"""
    weights: Mapping[str, float]
    """of heads in the task loss, 1 where not given"""
    together = 16
    """requests synthesised at once"""

    @property
    def blocks(self) -> dict[str, dict[str, nn.Module]]:
        stacks = {"encoder": self.encoder, "decoder": self.decoder}
        return {group: dict(stack.blocks.named_children()) for group, stack in stacks.items()}

    @property
    @abstractmethod
    def duration_predictor(self) -> tuple[str, VariancePredictor]:
        """Its name and itself."""

    @property
    def slots(self) -> dict[str, Slot]:
        """As in HyperTTS: after each FFT block's feed-forward, and in the duration predictor after each ReLU, before its norm."""
        (name, predictor), width = self.duration_predictor, self.mel_linear.in_features
        return {
            "encoder": Slot(width, ("encoder.blocks.*.ffn_dropout",)),
            "duration": Slot(predictor.out.in_features, (f"{name}.activations.*",)),
            "decoder": Slot(width, ("decoder.blocks.*.ffn_dropout",)),
        }

    def voice_vector(self, speaker: Tensor) -> Tensor:
        """(B, E) -> (B, C), what joins the encoder's output."""
        return self.speaker_projection(speaker)

    def block_mask(self, batch: Batch, group: str) -> Tensor:
        if group == "encoder":
            return sequence_mask(batch["phone_lengths"], batch["phones"].shape[1])
        return sequence_mask(batch["frame_lengths"], batch["mel"].shape[1])

    @abstractmethod
    def predict_mel(self, requests: Sequence[Request]) -> list[Tensor]:
        """(T, n_mels) of each request, on the model's device."""

    def synthesize(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Tensor]:
        waves: dict[int, Tensor] = {}
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].phones))
        with evaluating(self):
            for start in range(0, len(order), self.together):
                group = order[start : start + self.together]
                self.announce([requests[i] for i in group])
                for i, mel in zip(group, self.predict_mel([requests[i] for i in group])):
                    waves[i] = self.vocoder(mel).cpu()
                    if progress:
                        progress(1)
        return [waves[i] for i in range(len(requests))]

    def resynthesize(self, audio: Tensor) -> Tensor:
        with evaluating(self):
            mel = self.frontend.mel(audio.cpu()).to(self.mel_linear.weight.device)
            wave = self.vocoder(mel)[: len(audio)].cpu()
        return F.pad(wave, (0, len(audio) - len(wave)))

    def _asked(self, requests: Sequence[Request]) -> Batch:
        """Encoded phones (B, P) with their mask, and voices (B, E), on the model's device."""
        device = self.mel_linear.weight.device
        encoded = [self._encoded(r) for r in requests]
        lengths = torch.tensor([len(item["phones"]) for item in encoded], device=device)
        padded = {name: pad_sequence([item[name] for item in encoded], batch_first=True).to(device) for name in encoded[0]}
        speaker = torch.stack([r.speaker for r in requests]).to(device)
        return padded | {"speaker": speaker, "mask": sequence_mask(lengths, padded["phones"].shape[1])}

    def _encoded(self, request: Request) -> dict[str, Tensor]:
        """{"phones": (P,) indices, ...} by the frontend's tables."""
        if not request.phones:
            raise DataError(f"request {request.id} has no phones: its text was phonemised to nothing; give it words")
        return self.frontend.tokens(request.phones)

    def _head(self, name: str, value: Tensor, target: Tensor, row: Tensor, unit: str, norm: int, sigma: float) -> Continuous:
        weight = self.weights.get(name, 1.0)
        return Continuous(target=target, row=row, unit=unit, weight=weight, value=value, norm=norm, sigma=sigma)


def frames_of(log_durations: Tensor, mask: Tensor) -> Tensor:
    """(B, P) log(frames + 1) -> (B, P) long, at least one frame for every phone, none for padding."""
    return log_durations.expm1().round().nan_to_num(1.0).clamp(1, LONGEST).long() * mask
