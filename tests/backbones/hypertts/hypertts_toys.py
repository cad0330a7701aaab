"""A small corpus of tones, some of it without phone times, and models over it."""

import os
from pathlib import Path

import pytest
import soundfile
import torch

from ttsadapt.backbones.aligner import Schedule
from ttsadapt.backbones.hypertts import HyperTTSBackbone
from ttsadapt.backbones.hypertts_frontend import HyperTTSFrontend
from ttsadapt.backbones.parts import PostNet
from ttsadapt.backbones.pitch import CwtPitch, PhonePitch
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.text.arpabet import ArpabetTable

GOLDEN = Path(os.environ.get("TTSADAPT_GOLDEN", Path(__file__).parents[3] / "../shared/golden")) / "hypertts"
FORMANT = {"_": 0.0, "ˈaɪ": 700.0, "ɪ": 350.0, "l": 500.0, "s": 4000.0, "ˈɔːɹ": 900.0}
SIZES = {
    "width": 16, "encoder_blocks": 1, "decoder_blocks": 2, "hidden": 24, "kernel": 3, "dropout": 0.0, "predictor_hidden": 16,
    "predictor_dropout": 0.0, "positions": 400,
}  # fmt: skip


def spoken(symbols: list[str], hertz: float, seed: int, rate: int = 16000) -> tuple[torch.Tensor, tuple[Phone, ...]]:
    """Harmonics under one formant a phone, 60 to 120 ms each; pauses are quiet noise."""
    noise = torch.Generator().manual_seed(seed)
    ends = ((60 + 60 * torch.rand(len(symbols), generator=noise)).cumsum(0) / 1000 * rate).long().tolist()
    starts = [0, *ends[:-1]]
    frequencies = hertz * torch.arange(1, 30)
    harmonics = torch.sin(2 * torch.pi * frequencies[:, None] * torch.arange(ends[-1]) / rate)
    wave = 1e-3 * torch.randn(ends[-1], generator=noise)
    for symbol, start, end in zip(symbols, starts, ends):
        if FORMANT[symbol]:
            gains = torch.exp(-(((frequencies - FORMANT[symbol]) / 300) ** 2))
            wave[start:end] += 0.1 * (gains[:, None] * harmonics[:, start:end]).sum(0)
    return wave.clamp(-1, 1), tuple(Phone(s, a / rate, b / rate) for s, a, b in zip(symbols, starts, ends))


@pytest.fixture(scope="session")
def aligned(tmp_path_factory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("corpus")
    texts = [["_", "ˈaɪ", "l", "ɪ", "s", "_"], ["l", "ɪ", "ˈɔːɹ"], ["_", "s", "ˈaɪ", "s", "ɪ", "l", "ˈaɪ", "l", "_"]]
    made = []
    for i, (speaker, hertz) in enumerate({"ann": 210.0, "bob": 110.0}.items()):
        for k, symbols in enumerate(texts):
            wave, phones = spoken(symbols, hertz * (1 + 0.1 * k), 10 * i + k)
            path = folder / f"{speaker}{k}.wav"
            soundfile.write(path, wave.numpy(), 16000, subtype="FLOAT")
            made.append(Utterance(path.stem, path, "lie", speaker, ("neutral", "happy")[k % 2], duration=len(wave) / 16000, phones=phones))
    return made


@pytest.fixture(scope="session")
def frontend(aligned) -> HyperTTSFrontend:
    fitted = HyperTTSFrontend(emotions=True)
    fitted.fit(aligned)
    return fitted


@pytest.fixture(scope="session")
def given(aligned) -> HyperTTSFrontend:
    """Durations of the data, phones by the released table."""
    fitted = HyperTTSFrontend(learn_durations=False, table=ArpabetTable())
    fitted.fit(aligned)
    return fitted


def small(frontend: HyperTTSFrontend, phonewise: bool = False, **settings) -> HyperTTSBackbone:
    torch.manual_seed(0)
    pitch = PhonePitch(16, 16, dropout=0.0) if phonewise else CwtPitch(16, 16, 8, dropout=0.0)
    stages = Schedule(hard_from=2, binarize_from=2, binarize_over=2, variances_from=0)
    return HyperTTSBackbone(
        frontend, **SIZES | {"pitch": pitch, "postnet": PostNet(80, 8, layers=3, dropout=0.0), "schedule": stages} | settings
    )


@pytest.fixture(params=["learnt, wavelets", "learnt, phone by phone", "given, wavelets"])
def model(request, frontend, given) -> HyperTTSBackbone:
    if request.param.startswith("given"):
        return small(given)
    return small(frontend, "phone" in request.param, scaled_mel="phone" in request.param, phone_places="phone" in request.param)


@pytest.fixture
def items(model, aligned) -> list[dict[str, torch.Tensor]]:
    return [model.frontend(u) for u in aligned]
