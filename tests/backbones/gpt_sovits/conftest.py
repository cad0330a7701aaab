"""Recordings and a frontend fitted on them."""

import pytest
from gpt_sovits_helpers import buzz, frontend_of

from ttsadapt.data.audio import save
from ttsadapt.data.utterance import Phone, Utterance


@pytest.fixture(scope="session")
def utterances(tmp_path_factory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("audio")
    made = []
    for i, (symbols, seconds) in enumerate([("_haɪ_", 0.6), ("_bˈoː_", 0.8), ("_kætsɪt_", 1.1), ("_bæt_", 0.7)] * 4):
        phones = ["_", "b", "ˈoː", "_"] if "ˈ" in symbols else list(symbols)
        step = seconds / len(phones)
        aligned = tuple(Phone(p, k * step, (k + 1) * step) for k, p in enumerate(phones))
        speaker, emotion = ("anna", "bert")[i % 2], ("neutral", "happy")[i // 8]
        save(folder / f"{i}.wav", buzz(seconds + 0.01 * i, 110 + 90 * (i % 2) + 5 * i), 16000)
        made.append(Utterance(f"u{i}", folder / f"{i}.wav", symbols, speaker, emotion, duration=seconds, phones=aligned))
    return made


@pytest.fixture(scope="session")
def frontend(utterances):
    return frontend_of(utterances)
