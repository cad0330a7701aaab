"""A codec that knows pitch and little else."""

import torch

from ttsadapt.backbones.gpt_sovits.frontend import GptSovitsFrontend

SIZES = {"width": 32, "layers": 3, "heads": 4, "bert_size": 6}


class Whistle:
    """Semantic tokens from the zero crossings of 40 ms steps; decodes to sines at the voice's loudness."""

    sample_rate, rate, voice_size = 16000, 25.0, 2

    def __init__(self, tokens: int = 24) -> None:
        self.tokens = tokens

    def fit(self, recordings, phones=None) -> None:
        assert sum(1 for _ in recordings) == len(phones) > 0

    def encode(self, audio):
        steps = audio[: len(audio) // 640 * 640].view(-1, 640)
        return (steps[:, 1:].sign() != steps[:, :-1].sign()).sum(1).remainder(self.tokens)

    def voice(self, audio):
        return torch.stack([audio.square().mean().sqrt(), audio.abs().max()])

    def decode(self, tokens, voice):
        time = torch.arange(len(tokens) * 640) / 16000
        return voice[0].clamp(0, 1) * torch.sin(2 * torch.pi * 50 * (1 + tokens.repeat_interleave(640)) * time)

    def embedding(self):
        return torch.stack([torch.arange(self.tokens).float(), torch.arange(self.tokens).remainder(5).float(), torch.ones(self.tokens)], 1)

    def state(self):
        return {"tokens": self.tokens}

    def restore(self, state) -> None:
        self.tokens = state["tokens"]


def buzz(seconds: float, pitch: float) -> torch.Tensor:
    time = torch.arange(int(16000 * seconds)) / 16000
    phase = 2 * torch.pi * torch.cumsum(pitch * (1 + 0.4 * torch.sin(6 * time)) / 16000, 0)
    return 0.2 * sum(torch.sin(k * phase) / k for k in range(1, 9)) * (0.6 + 0.4 * torch.cos(9 * time))


def frontend_of(utterances, **settings) -> GptSovitsFrontend:
    frontend = GptSovitsFrontend(Whistle(), **({"reference_seconds": 0.8, "references": 3} | settings))
    frontend.fit(utterances)
    return frontend
