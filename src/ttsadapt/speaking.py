"""Speech of a model for the sentences of a set, on disk."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from ttsadapt.backbones.base import Backbone
from ttsadapt.data.audio import save
from ttsadapt.data.utterance import Utterance


def speak(backbone: Backbone, utterances: Sequence[Utterance], folder: Path, title: str, seed: int = 0) -> dict[str, Path]:
    """`folder/<utterance id>.wav` for every utterance; gives their paths by id."""
    from dataclasses import replace

    requests = [replace(backbone.frontend.request(u), seed=seed) for u in utterances]
    with tqdm(total=len(requests), desc=f"speaking {title}", unit="utt", leave=False) as bar:
        waves: list[Tensor] = backbone.synthesize(requests, bar.update)
    paths = {u.id: folder / f"{u.id}.wav" for u in utterances}
    for utterance, wave in zip(utterances, waves):
        save(paths[utterance.id], wave, backbone.sample_rate)
    return paths
