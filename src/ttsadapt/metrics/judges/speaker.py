"""Who speaks: trained on voices across emotions, so that a voice stays itself when it is happy."""

from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchmetrics.functional.classification import binary_roc

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.judges.clips import Clip
from ttsadapt.metrics.judges.encoder import Encoder, Network, by_set, embedded


class SpeakerEncoder(Encoder):
    """Beside its weights it keeps `voices.safetensors`: the mean vector of each voice's clips of the valid splits.

    A voice without such clips has the mean of its train clips.
    """

    name: ClassVar[str] = "speaker-encoder"
    metric: ClassVar[str] = "speaker"
    what: ClassVar[str] = "speaker"

    def __init__(
        self, corpus: Path, cache: Path, steps: int = 180, count: int = 24, crop: float = 1.2, margin: float = 0.1, scale: float = 20.0
    ) -> None:
        super().__init__(corpus, cache, steps, count, crop, margin, scale)

    def label(self, utterance: Utterance) -> str:
        return utterance.speaker

    def voice(self, speaker: str) -> Tensor | None:
        """(size,) of length 1; None for a voice that is in no train or valid split."""
        if not hasattr(self, "_voices"):
            self._voices = load_file(self._there / "voices.safetensors")
        return self._voices.get(speaker)

    def keep(self, folder: Path, model: Network) -> None:
        voices = _centres(embedded(model, self.clips.references(), "voices"))
        rest = [c for c in self.clips.train() if c.utterance.speaker not in voices and not c.vocoded]
        save_file(_centres(embedded(model, rest, "voices")) | voices, folder / "voices.safetensors")

    def examine(self, model: Network, classes: Any, vectors: list[tuple[Clip, Tensor]]) -> dict[str, float]:
        """Equal error rate over all pairs of held-out clips of which at least one is of the set, in %."""
        everyone = by_set(vectors)
        found = {}
        for name, part in everyone.items():
            kind = name.partition("/")[0]
            others = [pair for other, pairs in everyone.items() if other.startswith(kind) for pair in pairs]
            rate = _equal_error(part, others)
            if rate is not None:
                found[name] = round(rate, 3)
        return found


def _centres(vectors: list[tuple[Clip, Tensor]]) -> dict[str, Tensor]:
    voices: dict[str, list[Tensor]] = {}
    for clip, vector in vectors:
        voices.setdefault(clip.utterance.speaker, []).append(vector)
    return {speaker: F.normalize(torch.stack(v).mean(0), dim=0) for speaker, v in voices.items()}


def _equal_error(part: list[tuple[Clip, Tensor]], others: list[tuple[Clip, Tensor]]) -> float | None:
    """% where false acceptances equal false rejections; None without pairs of both kinds."""
    scores, same = [], []
    for clip, vector in part:
        rivals = [(c, v) for c, v in others if c.utterance.id != clip.utterance.id]
        if rivals:
            scores.append(torch.stack([v for _, v in rivals]) @ vector)
            same += [c.utterance.speaker == clip.utterance.speaker for c, _ in rivals]
    if not any(same) or all(same):
        return None
    accepted, found, _ = binary_roc((torch.cat(scores) + 1) / 2, torch.tensor(same).long())
    at = int((accepted - (1 - found)).abs().argmin())
    return 100 * float(accepted[at] + 1 - found[at]) / 2
