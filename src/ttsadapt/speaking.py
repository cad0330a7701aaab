"""Speech of a model for the sentences of a set, on disk, with what is known of how it was spoken."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ttsadapt.backbones.base import Backbone, Request
from ttsadapt.backbones.ending import watched
from ttsadapt.bars import Bar
from ttsadapt.data.audio import save
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError
from ttsadapt.metrics.sidecar import note


def speak(
    backbone: Backbone, utterances: Sequence[Utterance], folder: Path, title: str, seed: int = 0, suffix: str = ""
) -> dict[str, Path]:
    """`folder/<utterance id><suffix>.wav` for every utterance; gives their paths by id. What was cut at the longest
    that the model may say is noted beside them."""
    requests = [replace(backbone.frontend.request(u), seed=seed) for u in utterances]
    with Bar(total=len(requests), desc=f"speaking {title}", unit="utt", leave=False) as bar, watched() as cut:
        waves: list[Tensor] = backbone.synthesize(requests, bar.update)
    paths = {u.id: folder / f"{u.id}{suffix}.wav" for u in utterances}
    for utterance, wave in zip(utterances, waves):
        save(paths[utterance.id], wave, backbone.sample_rate)
    note(folder, {paths[r.id].stem: {"capped": str(int(r.id in cut))} for r in requests})
    return paths


def refuse_seeds(seeds: Sequence[int]) -> None:
    """ConfigError when sentences cannot be spoken with each of them."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"evaluation.seeds={list(seeds)}: give at least one seed, each once")


def clock(backbone: Backbone, utterances: Sequence[Utterance], folder: Path, seed: int = 0) -> None:
    """Speak each utterance alone and note how long it took, after one that is not counted: seconds to the first and to the last sample.

    Pieces are those of `Backbone.stream`; of a model that has none of its own the first sample is there when the last one is. Times
    are noted beside the clips of `folder`, which stay as they are.
    """
    requests = [replace(backbone.frontend.request(u), seed=seed) for u in utterances]
    streams = type(backbone).stream is not Backbone.stream
    device = next(backbone.parameters()).device
    for request in requests[:1]:
        _timed(backbone, request, device)
    found = {}
    for request in Bar(requests, "speaking against the clock", unit="utt", leave=False):
        first, last, samples = _timed(backbone, request, device)
        times = {"seconds": f"{last:.6f}", "first_audio": f"{first if streams else last:.6f}", "streamed": str(int(streams))}
        found[request.id] = times | {"duration": f"{samples / backbone.sample_rate:.6f}", "device": _named(device)}
    note(folder, found)


def _timed(backbone: Backbone, request: Request, device: torch.device) -> tuple[float, float, int]:
    """Seconds to the first sample and to the last, and how many there are."""
    _wait(device)
    start, first, samples = time.perf_counter(), None, 0
    for piece in backbone.stream(request):
        _wait(device)
        first = first or time.perf_counter() - start
        samples += len(piece)
    whole = time.perf_counter() - start
    return first or whole, whole, samples


def _wait(device: torch.device) -> None:
    """An accelerator works on after the call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {torch.get_num_threads()} threads"
