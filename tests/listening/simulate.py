"""A study with short clips, its listening test, and listeners who answer as they are told."""

import json
from pathlib import Path

import numpy as np
import soundfile
from hydra.utils import instantiate
from omegaconf import OmegaConf

from reports.fabricate import study
from ttsadapt.config.base import composed
from ttsadapt.config.schema import check
from ttsadapt.listening.checksum import checksum, sheet_of
from ttsadapt.listening.key import Key, KeyTrial, read_keys

LABELS = ["recordings", "resynthesis", "base", "full", "lora"]
SECONDS = 0.45
RATE = 16000


def short_study(outputs: Path, name: str = "heard") -> Path:
    """Runs as in the report's tests; every clip another tone of `SECONDS`, of another level."""
    folder = study(outputs, name, [(), ("full",), ("lora",)], {"target": 14, "source": 3}, wavs=True)
    time = np.arange(int(SECONDS * RATE)) / RATE
    for i, path in enumerate(sorted(folder.rglob("*.wav"))):
        tone = np.sin(2 * np.pi * (180 + 3 * i) * time) * np.sin(np.pi * time / SECONDS)
        soundfile.write(path, (0.05 + 0.5 * (i % 7) / 7) * tone, RATE)
    return folder


def session(key: Key, listener: str, answer, milliseconds: int = 60_000) -> dict:
    """What the page would hand in; `answer(code, trial) -> str`."""
    sheet = sheet_of(listener, len(key.sheets))
    codes = [*key.training, *key.sheets[sheet]]
    trials = [{"trial": c, "answer": answer(c, key.trials[c]), "plays": [1], "ms": milliseconds} for c in codes]
    body = {
        "page": key.page, "listener": listener, "sheet": sheet, "started": "2026-01-05T10:00:00.000Z",
        "finished": "2026-01-05T10:20:00.000Z", "questions": {"q:age": "18–29", "q:native": "yes"}, "trials": trials,
    }  # fmt: skip
    return {"body": body, "checksum": checksum(body)}


def rater(key: Key, listener: str, means: dict[str, float], noise: float = 0.6):
    """Answers near `means` of the item, with a severity of the listener's own; checks and repeats as someone who listens."""
    rng = np.random.default_rng(sum(map(ord, listener)) + 7)
    severity = rng.normal(0, 0.3)
    given: dict[str, str] = {}

    def answer(code, trial):
        if trial.accepted is not None:
            return trial.accepted[0]
        if trial.repeats is not None:
            return given.setdefault(trial.repeats, draw(key.trials[trial.repeats]))
        return given.setdefault(code, draw(trial))

    def draw(trial):
        wanted = means[trial.item] + severity + rng.normal(0, noise)
        return min(trial.worth, key=lambda a: abs(trial.worth[a] - wanted))

    return answer


def always(value: str):
    """Somebody who presses one button throughout."""
    return lambda code, trial: value


def made(page: str, *overrides: str):
    """The listening test of conf/page/`page`.yaml; its config is composed once and changed here, which is much faster."""
    cfg = OmegaConf.merge(composed("study=a", f"page={page}", name="report"), OmegaConf.from_dotlist(list(overrides)))
    check(cfg, "report")
    return instantiate(cfg.page, _convert_="all")


def rated_in(key: Key) -> list[KeyTrial]:
    """The trials of a page whose answers count."""
    return [key.trials[c] for c in dict.fromkeys(c for sheet in key.sheets for c in sheet) if key.trials[c].counts]


def hand_in(folder: Path, sessions: dict[str, dict]) -> Path:
    results = folder / "results"
    results.mkdir(exist_ok=True)
    for name, content in sessions.items():
        (results / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return results


def key_of(study_folder: Path, name: str) -> Key:
    return read_keys(study_folder / "listening" / name)[0]
