"""Where the phones of a text lie in audio that somebody spoke: forced alignment by the corpus's own recogniser."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torchaudio.functional as A
from torch import Tensor

from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Phone
from ttsadapt.metrics.judges.recogniser import Recogniser
from ttsadapt.metrics.signal import RATE, levelled, speech
from ttsadapt.text.phones import split_stress


@torch.inference_mode()
def placed(judge: Recogniser, audio: Tensor, symbols: Sequence[str]) -> tuple[Phone, ...] | None:
    """(samples,) at RATE and the symbols said -> the same symbols with times that tile the audio.

    CTC says where a phone is, not how long: neighbours meet halfway between their middles, and a pause takes the middle third of
    the gap it stands in. None when the recogniser knows a phone not, or there are fewer outputs than phones.
    """
    index = {p: i + 1 for i, p in enumerate(judge.card["phones"])}
    said = [split_stress(s)[0] for s in symbols if s != PAUSE]
    first, end = speech(audio)
    if not said or end - first < RATE // 20 or any(p not in index for p in said):
        return None
    clip, wanted = levelled(audio[first:end])[None], torch.tensor([[index[p] for p in said]], dtype=torch.int32)
    likely = judge.model(clip, torch.tensor([clip.shape[1]])).log_softmax(-1)
    repeats = int((wanted[0, 1:] == wanted[0, :-1]).sum())
    if likely.shape[1] < len(said) + repeats:
        return None
    path, _ = A.forced_align(likely, wanted, blank=0)
    step = (end - first) / RATE / likely.shape[1]
    spans = [(first / RATE + a * step, first / RATE + b * step) for a, b in _runs(path[0])]
    return _tiled(symbols, spans, len(audio) / RATE)


def _runs(path: Tensor) -> list[tuple[int, int]]:
    """(T,) classes, 0 a blank -> where each run of one class begins and ends."""
    cuts = [0, *((path[1:] != path[:-1]).nonzero()[:, 0] + 1).tolist(), len(path)]
    return [(a, b) for a, b in pairwise(cuts) if int(path[a])]


def _tiled(symbols: Sequence[str], spans: Sequence[tuple[float, float]], duration: float) -> tuple[Phone, ...]:
    """The symbols, pauses included, one after another from 0 to `duration`; a span for each that is no pause."""
    left = iter([*spans, (duration, duration)])
    before, (start, stop) = 0.0, next(left)
    ends: list[float] = []
    for this, following in zip(symbols, [*symbols[1:], None]):
        if this == PAUSE:
            ends.append(start if not ends or before == 0.0 else start - (start - before) / 3)
            continue
        before, (start, stop) = stop, next(left)
        gap = start - before
        ends.append(duration if following is None else before + gap / 3 if following == PAUSE else before + gap / 2)
    if symbols[-1] == PAUSE:
        ends[-1] = duration
    return tuple(Phone(s, a, b) for s, (a, b) in zip(symbols, pairwise([0.0, *ends])))
