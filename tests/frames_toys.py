"""Small things to test models over frames of codes with: recordings, a codec of random projections, a Mimi of one layer."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MimiConfig, MimiModel

from ttsadapt.data.audio import save
from ttsadapt.data.utterance import Phone, Utterance

RATE = 16000


def buzz(seconds: float, pitch: float) -> Tensor:
    time = torch.arange(int(RATE * seconds)) / RATE
    phase = 2 * torch.pi * torch.cumsum(pitch * (1 + 0.2 * torch.sin(6 * time)) / RATE, 0)
    return 0.2 * sum(torch.sin(k * phase) / k for k in range(1, 9)) * (0.6 + 0.4 * torch.cos(9 * time))


def recorded(folder: Path) -> list[Utterance]:
    """Eight utterances: two voices, two emotions, 0.4 to 1 s."""
    made = []
    for i, (symbols, seconds) in enumerate([("_haɪ_", 0.4), ("_bo_", 0.7), ("_kætsɪt_", 1.0), ("_bæt_", 0.5)] * 2):
        step = seconds / len(symbols)
        phones = tuple(Phone(p, k * step, (k + 1) * step) for k, p in enumerate(symbols))
        speaker, emotion = ("anna", "bert")[i % 2], ("neutral", "happy")[i // 4]
        save(folder / f"{i}.wav", buzz(seconds + 0.01 * i, 110 + 90 * (i % 2) + 5 * i), RATE)
        made.append(Utterance(f"u{i}", folder / f"{i}.wav", f"say {symbols}", speaker, emotion, duration=seconds, phones=phones))
    return made


class Buckets:
    """Frames of 800 samples; level l's code is the bucket that a random projection of the spectrum falls into."""

    sample_rate = RATE

    def __init__(self, levels: int = 4, codewords: int = 16) -> None:
        self.levels, self.codewords = levels, codewords
        self.rate = RATE / 800 * levels
        self.mix = torch.randn(401, levels, generator=torch.Generator().manual_seed(0))

    def fit(self, recordings: Iterable[Tensor], phones: object = None) -> None:
        for _ in recordings:
            pass

    def codes(self, audio: Tensor) -> Tensor:
        frames = audio[: len(audio) // 800 * 800].view(-1, 800)
        mixed = torch.log1p(torch.fft.rfft(frames).abs()) @ self.mix
        return ((mixed.tanh() + 1) / 2 * (self.codewords - 2)).long() + 1

    def decode_codes(self, codes: Tensor) -> Tensor:
        assert int(codes.min()) >= 0 and int(codes.max()) < self.codewords
        return (codes.float().mean(1, keepdim=True) / self.codewords * 0.5).expand(-1, 800).flatten()

    def embedding(self) -> Tensor:
        return torch.randn(self.levels * self.codewords, 12, generator=torch.Generator().manual_seed(1))

    def state(self) -> dict[str, Any]:
        return {"levels": self.levels}

    def restore(self, state: dict[str, Any]) -> None:
        assert state == self.state()


MIMI: dict[str, Any] = {
    "num_filters": 4, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "sliding_window": 64, "upsample_groups": 32, "codebook_size": 16, "codebook_dim": 16,
    "vector_quantization_hidden_dimension": 16, "num_quantizers": 4, "num_semantic_quantizers": 1,
}  # fmt: skip


def mimi(filled: bool = True) -> MimiModel:
    """A random Mimi at 24 kHz, 12.5 frames a second; a fresh one has codebooks of zeros."""
    torch.manual_seed(0)
    model = MimiModel(MimiConfig(**MIMI)).eval()
    if filled:
        latent = model.encoder(torch.randn(1, 1, 48000) * 0.1).latents  # (1, D, frames)
        for stack in (model.quantizer.semantic_residual_vector_quantizer, model.quantizer.acoustic_residual_vector_quantizer):
            rest = (latent if stack.input_proj is None else stack.input_proj(latent))[0].T.detach()
            for level in stack.layers:
                level.codebook.embed_sum.copy_(rest[torch.randperm(len(rest))[:16]] + 0.3 * rest.std() * torch.randn(16, rest.shape[1]))
                level.codebook.cluster_usage.fill_(1)
                level.codebook._embed = None  # kept from before the codebook was filled
    return model
