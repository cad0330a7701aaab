"""Utterances of a second, a small model that goes on from references, and its batches."""

import pytest
import torch

from backbones.valle_x.fakes import SIZES, model_of, plain_frontend
from ttsadapt.data.audio import save
from ttsadapt.data.utterance import Phone, Utterance


def buzz(seconds: float, pitch: float) -> torch.Tensor:
    time = torch.arange(int(16000 * seconds)) / 16000
    phase = 2 * torch.pi * torch.cumsum(pitch * (1 + 0.2 * torch.sin(6 * time)) / 16000, 0)
    return 0.2 * sum(torch.sin(k * phase) / k for k in range(1, 9)) * (0.6 + 0.4 * torch.cos(9 * time))


@pytest.fixture(scope="session")
def utterances(tmp_path_factory) -> list[Utterance]:
    """Eight: two speakers, the first four neutral, the others happy; "bert" is never happy in the last one's stead."""
    folder = tmp_path_factory.mktemp("audio")
    made = []
    for i, (symbols, seconds) in enumerate([("_haɪ_", 0.4), ("_bˈoː_", 0.7), ("_kætsɪt_", 1.0), ("_bæt_", 0.5)] * 2):
        phones = ["_", "b", "ˈoː", "_"] if "ˈ" in symbols else list(symbols)
        step = seconds / len(phones)
        aligned = tuple(Phone(p, k * step, (k + 1) * step) for k, p in enumerate(phones))
        speaker, emotion = ("anna", "bert")[i % 2], ("neutral", "happy")[i // 4]
        save(folder / f"{i}.wav", buzz(seconds + 0.01 * i, 110 + 90 * (i % 2) + 5 * i), 16000)
        made.append(Utterance(f"u{i}", folder / f"{i}.wav", symbols, speaker, emotion, duration=seconds, phones=aligned))
    return made


@pytest.fixture(scope="session", params=[True, False], ids=["goes on from a reference, paced", "begins in the utterance"])
def frontend(request, utterances):
    made = plain_frontend(SIZES["levels"], SIZES["codewords"], continuation=request.param, references=2, paced_positions=request.param)
    made.fit(utterances)
    made.enroll(utterances)
    return made


@pytest.fixture(scope="session")
def model(frontend):
    return model_of(frontend)


@pytest.fixture(scope="session")
def items(frontend, utterances):
    return [frontend(u) for u in utterances]
