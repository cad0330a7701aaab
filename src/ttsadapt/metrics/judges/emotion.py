"""How it is spoken: trained on emotions across voices."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.judges.clips import Clip
from ttsadapt.metrics.judges.encoder import Encoder, Network, by_set


class EmotionEncoder(Encoder):
    name: ClassVar[str] = "emotion-encoder"
    metric: ClassVar[str] = "emotion"
    what: ClassVar[str] = "emotion"

    def __init__(
        self, corpus: Path, cache: Path, steps: int = 300, count: int = 12, crop: float = 1.6, margin: float = 0.0, scale: float = 15.0
    ) -> None:
        super().__init__(corpus, cache, steps, count, crop, margin, scale)

    def label(self, utterance: Utterance) -> str:
        return utterance.emotion

    @torch.inference_mode()
    def probabilities(self, audio: Tensor) -> dict[str, float] | None:
        """(samples,) at RATE -> {emotion: probability}; None where there is no speech."""
        vector = self.embed(audio)
        if vector is None:
            return None
        return dict(zip(self.classes, (self.scale * _cosines(self.model, vector)).softmax(-1).tolist(), strict=True))

    def examine(self, model: Network, classes: Sequence[str], vectors: list[tuple[Clip, Tensor]]) -> dict[str, float]:
        """Share of held-out clips taken for another emotion, in %."""
        found = {}
        for name, part in by_set(vectors).items():
            known = [(c, v) for c, v in part if c.utterance.emotion in classes]
            missed = [classes[int(_cosines(model, v).argmax())] != c.utterance.emotion for c, v in known]
            if missed:
                found[name] = round(100 * sum(missed) / len(missed), 3)
        return found


@torch.inference_mode()
def _cosines(model: Network, vector: Tensor) -> Tensor:
    """(size,) -> (classes,)"""
    return model.classifier(vector[None, None])[0, 0]
