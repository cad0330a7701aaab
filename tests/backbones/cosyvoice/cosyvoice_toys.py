"""Small models of all three versions over a few seconds of buzzing."""

from functools import partial

import torch

from ttsadapt.backbones.cosyvoice.backbone import CosyVoice
from ttsadapt.backbones.cosyvoice.flow import draw
from ttsadapt.backbones.cosyvoice.flows import CosyVoice1Flow, CosyVoice2Flow, CosyVoice3Flow
from ttsadapt.backbones.cosyvoice.frontend import CosyVoiceFrontend
from ttsadapt.backbones.cosyvoice.layout import Layout1, Layout2, Layout3
from ttsadapt.backbones.cosyvoice.llm import QwenLM
from ttsadapt.backbones.cosyvoice.llm1 import TransformerLM
from ttsadapt.backbones.cosyvoice.text import Phones
from ttsadapt.backbones.decoding import Sampling
from ttsadapt.backbones.speakers import SpeakerStatistics
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data.audio import save
from ttsadapt.data.utterance import Phone, Utterance

QWEN = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
FLOW1 = {
    "token_width": 32, "width": 32, "heads": 2, "hidden": 48, "blocks": 1, "channels": [32, 32], "middle": 1, "transformers": 1,
    "unet_heads": 2, "unet_head": 16,
}  # fmt: skip
VERSIONS = {
    1: (
        Layout1,
        partial(
            TransformerLM, text_width=24, encoder_width=32, encoder_heads=2, encoder_hidden=48, encoder_blocks=1, width=32, heads=2,
            hidden=48, blocks=2,
        ),
        partial(CosyVoice1Flow, token_rate=25.0, mel_rate=50.0, **FLOW1),
    ),
    2: (Layout2, partial(QwenLM, **QWEN), partial(CosyVoice2Flow, up_blocks=1, **(FLOW1 | {"channels": [32]}))),
    3: (
        Layout3,
        partial(QwenLM, decoder_bias=False, **QWEN),
        partial(CosyVoice3Flow, ahead_width=32, width=32, heads=2, head=16, hidden=48, blocks=2, conv_groups=2),
    ),
}  # fmt: skip


class LoudestBand:
    """A codec of 25 steps a second: which of 20 bands is loudest."""

    sample_rate, rate, tokens = 16000, 25.0, 20

    def __init__(self) -> None:
        self.mel = MelSpectrogram(hop=640, n_mels=self.tokens)

    def fit(self, recordings, phones=None) -> None:
        assert len(list(recordings)) == len(phones)

    def encode(self, audio):
        return self.mel(audio)[: len(audio) // 640].argmax(-1)

    def embedding(self):
        return torch.linspace(-1, 1, self.tokens)[:, None] * torch.tensor([1.0, 2.0])

    def state(self):
        return {}

    def restore(self, state) -> None:
        assert state == {}


def buzz(seconds: float, pitch: float) -> torch.Tensor:
    time = torch.arange(int(16000 * seconds)) / 16000
    phase = 2 * torch.pi * torch.cumsum(pitch * (1 + 0.2 * torch.sin(6 * time)) / 16000, 0)
    return 0.2 * sum(torch.sin(k * phase) / k for k in range(1, 9)) * (0.6 + 0.4 * torch.cos(9 * time))


def recorded(folder) -> list[Utterance]:
    made = []
    for i, (symbols, seconds) in enumerate([("_haɪ_", 0.7), ("_boː_", 1.1), ("_kætsɪt_", 1.6), ("_bæt_", 0.9)] * 2):
        step = seconds / len(symbols)
        aligned = tuple(Phone(p, k * step, (k + 1) * step) for k, p in enumerate(symbols))
        speaker, emotion = ("anna", "bert")[i % 2], ("neutral", "happy")[i // 4]
        save(folder / f"{i}.wav", buzz(seconds + 0.01 * i, 110 + 90 * (i % 2) + 5 * i), 16000)
        made.append(Utterance(f"u{i}", folder / f"{i}.wav", symbols, speaker, emotion, duration=seconds + 0.01 * i, phones=aligned))
    return made


def bare_frontend(version: int, **settings) -> CosyVoiceFrontend:
    more = {"frames_a_token": None} if version == 1 else {"ratio": (3, 4)}
    return CosyVoiceFrontend(
        Phones(),
        LoudestBand(),
        SpeakerStatistics(MelSpectrogram()),
        MelSpectrogram(hop=320),
        VERSIONS[version][0],
        draw,
        **(more | settings),
    )


def frontend_of(version: int, utterances, **settings) -> CosyVoiceFrontend:
    frontend = bare_frontend(version, **settings)
    frontend.fit(utterances)
    return frontend


def model_of(version: int, frontend, seed: int = 0, **settings) -> CosyVoice:
    """Far from uniform, so that a wrong position or mask shows."""
    _, llm, flow = VERSIONS[version]
    torch.manual_seed(seed)
    model = CosyVoice(frontend, llm, flow, **({"sampling": Sampling(temperature=0.0), "steps": 2} | settings)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model
