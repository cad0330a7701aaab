"""Models from scratch, and released folders as their authors lay them out; what is said in them."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from backbones.qwen_tts import small_qwen
from backbones.qwen_tts.small_neutts import CONFIGS, SIZES, CountingCodec, buzz, tokenizer_of
from ttsadapt.backbones.decoding import Sampling
from ttsadapt.backbones.qwen_tts import QwenTTS
from ttsadapt.backbones.qwen_tts_neutts import NeuTTSFrontend
from ttsadapt.data.audio import save
from ttsadapt.data.utterance import Phone, Utterance


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """`released(kind="qwen2", tied=True, dtype=torch.float32, shards=1, first=None)` -> the folder, made once."""
    made: dict[tuple, Path] = {}

    def make(kind="qwen2", tied=True, dtype=torch.float32, shards=1, first=None) -> Path:
        key = (kind, tied, dtype, shards, first)
        if key not in made:
            folder = tmp_path_factory.mktemp("released")
            tokenizer = tokenizer_of(first=first)
            torch.manual_seed(1)
            config = CONFIGS[kind](vocab_size=len(tokenizer) + 7, tie_word_embeddings=tied, **SIZES)  # rows to spare, as released ones have
            model = AutoModelForCausalLM.from_config(config).to(dtype)
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(0.1 * torch.randn_like(p))
            size = sum(p.numel() * p.element_size() for p in model.parameters())
            model.save_pretrained(folder, max_shard_size=size if shards == 1 else size // shards)
            tokenizer.save_pretrained(folder)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def sentences(tmp_path_factory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("sentences")
    told = [
        ("Hello there.", "anna", "neutral", 1.1), ("How are you?", "anna", "happy", 1.4), ("You are there, hello!", "anna", "neutral", 1.7),
        ("Hello, you.", "bert", "sad", 1.2), ("There!", "cleo", "neutral", 0.4),
    ]  # fmt: skip
    for i, (_, _, _, seconds) in enumerate(told):
        save(folder / f"{i}.wav", buzz(seconds, 100 + 20 * i), 16000)
    return [Utterance(f"s{i}", folder / f"{i}.wav", t, speaker, e, duration=d) for i, (t, speaker, e, d) in enumerate(told)]


@pytest.fixture(scope="session")
def fitted(sentences):
    """`fitted(folder, ...)` -> a frontend that knows the pace and has the references of `sentences`."""

    def make(folder, **settings) -> NeuTTSFrontend:
        frontend = NeuTTSFrontend(CountingCodec(), str(folder), **({"max_tokens": 256} | settings))
        frontend.fit(sentences)
        frontend.enroll(sentences)
        return frontend

    return make


@pytest.fixture(scope="module")
def utterances(tmp_path_factory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("audio")
    made = []
    for i, (symbols, seconds) in enumerate([("_haɪ_", 0.4), ("_bˈoː_", 0.7), ("_kætsɪt_", 1.0), ("_bæt_", 0.5)] * 2):
        phones = ["_", "b", "ˈoː", "_"] if "ˈ" in symbols else list(symbols)
        step = seconds / len(phones)
        aligned = tuple(Phone(p, k * step, (k + 1) * step) for k, p in enumerate(phones))
        speaker, emotion = ("anna", "bert")[i % 2], ("neutral", "happy")[i // 4]
        save(folder / f"{i}.wav", small_qwen.buzz(seconds + 0.01 * i, 110 + 90 * (i % 2) + 5 * i), 16000)
        made.append(Utterance(f"u{i}", folder / f"{i}.wav", symbols, speaker, emotion, duration=seconds, phones=aligned))
    return made


@pytest.fixture(scope="module", params=[False, True], ids=["positions from left to right", "paced positions"])
def frontend(request, utterances):
    return small_qwen.frontend_of(utterances, paced_positions=request.param)


@pytest.fixture(scope="module")
def model(frontend):
    torch.manual_seed(0)
    model = QwenTTS(frontend, **small_qwen.SIZES, tie_word_embeddings=False, sampling=Sampling(temperature=0.0)).eval()
    with torch.no_grad():  # far from uniform, so that a wrong position or mask shows
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module")
def items(frontend, utterances):
    return [frontend(u) for u in utterances]
