"""How every judge is trained: batches of similar lengths, rooms and noise, one cosine cycle; the same numbers every time."""

from collections.abc import Callable, Iterator, Sequence

import torch
from speechbrain.augment.time_domain import AddNoise
from speechbrain.processing.signal_processing import reverberate
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.bars import Bar
from ttsadapt.metrics.judges.clips import Clip
from ttsadapt.metrics.signal import RATE


def batches(clips: Sequence[Clip], seconds: float) -> Iterator[list[Clip]]:
    """Clips of similar length, at most `seconds` of padded audio (never fewer than two clips where there are two), for ever."""
    groups: list[list[Clip]] = [[]]
    for clip in sorted(clips, key=lambda c: len(c.audio)):
        if len(groups[-1]) > 1 and (len(groups[-1]) + 1) * len(clip.audio) > seconds * RATE:
            groups.append([])
        groups[-1].append(clip)
    if len(groups) > 1 and len(groups[-1]) == 1:  # batch normalisation needs two
        groups[-2] += groups.pop()
    while True:
        for i in torch.randperm(len(groups)).tolist():
            yield groups[i]


def shuffled(clips: Sequence[Clip], count: int) -> Iterator[list[Clip]]:
    """`count` clips at a time in random order, for ever; slow emotions are long clips, so batches of one length would hold one class."""
    count = min(count, len(clips))
    while True:
        order = torch.randperm(len(clips)).tolist()
        for i in range(0, len(order) - count + 1, count):
            yield [clips[k] for k in order[i : i + count]]


def balanced(clips: Sequence[Clip], most: int = 3) -> list[Clip]:
    """Clips of sets that are small beside the largest one are there up to `most` times: a new voice is not drowned by the old ones."""
    seconds: dict[str, int] = {}
    for clip in clips:
        seconds[clip.group] = seconds.get(clip.group, 0) + len(clip.audio)
    largest = max(seconds.values())
    return [clip for clip in clips for _ in range(min(most, max(1, largest // seconds[clip.group])))]


def padded(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Waveforms (samples,) -> (B, S) zero-padded, (B,) lengths in samples."""
    return pad_sequence(list(clips), batch_first=True), torch.tensor([len(c) for c in clips])


class Rooms(nn.Module):
    """White noise (speechbrain's AddNoise) and made-up rooms: noise that decays by 60 dB in 50 to 250 ms (Polack 1988)."""

    def __init__(self, noisy: float = 0.15, reverberant: float = 0.1) -> None:
        super().__init__()
        self.noisy, self.reverberant = noisy, reverberant
        self.noise = AddNoise(snr_low=15, snr_high=40)

    def forward(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """(B, S), (B,) samples -> (B, S)"""
        if torch.rand(()) < self.noisy:
            audio = self.noise(audio, lengths / audio.shape[1])
        if torch.rand(()) < self.reverberant:
            audio = reverberate(audio, self._response())
        return audio

    def _response(self) -> Tensor:
        time = torch.arange(RATE // 5) / RATE
        decay = 0.05 + 0.2 * torch.rand(())
        response = 0.3 * torch.randn(len(time)) * 10 ** (-3 * time / decay)
        response[0] = 1.0
        return response


def blurred(mel: Tensor, share: float = 0.15) -> Tensor:
    """(B, bands, T), now and then averaged over neighbours: what regression models say is such a mean."""
    if torch.rand(()) >= share:
        return mel
    tall, wide = (int(torch.randint(3, ())) for _ in range(2))  # half widths in bands and frames
    size, padding = (2 * tall + 1, 2 * wide + 1), (tall, wide)
    return nn.functional.avg_pool2d(mel[:, None], size, 1, padding, count_include_pad=False)[:, 0]


Loss = Callable[[list[Clip], float], Tensor]


def fit(model: nn.Module, loss: Loss, batch: Iterator[list[Clip]], steps: int, lr: float, title: str) -> None:
    """AdamW under a one-cycle schedule. `loss(clips, progress)` with progress from 0 to 1; `model` is left in eval mode."""
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(steps, 4), pct_start=0.2)
    model.train()
    for step in Bar(range(steps), title, unit="step", leave=False):
        optimizer.zero_grad()
        loss(next(batch), step / steps).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
