"""Run folders as a study leaves them behind, with drawn numbers and short tones: the contract of ARCHITECTURE.md, file by file."""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
METRICS = {
    # name: (unit, better, base on target, recordings, how far full training gets, spread)
    "per": ("share", "lower", 0.31, 0.04, 0.12, 0.06),
    "mcd": ("dB", "lower", 8.4, 0.0, 5.1, 0.6),
    "f0_rmse": ("semitones", "lower", 5.2, 0.0, 2.4, 0.7),
    "duration_ratio": ("ratio", "near reference", 0.88, 1.0, 0.98, 0.05),
    "speaker_similarity": ("cosine", "higher", 0.41, 0.93, 0.84, 0.05),
    "emotion_similarity": ("cosine", "higher", 0.38, 0.9, 0.72, 0.08),
    "dnsmos_ovrl": ("MOS", "higher", 2.4, 3.2, 2.6, 0.15),
}
GAIN = {"full": 1.0, "lora": 0.85, "csp": 0.7, "partial": 0.5}
"""how much of the way each way of training goes"""
HOSTILE = " <script>document.title='owned'</script> & 100 % | `x` $\\alpha$"
"""text that must come out as text"""
EMOTIONS = ("neutral", "happy", "sad", "angry", "fearful", "surprised", "disgusted")
SENTENCES = (
    "The harbour was quiet before the first boats came in.",
    "Nobody had told them that the bridge would be closed today.",
    "A small lamp burned in the window all through the winter.",
    "She counted the steps twice and still lost her way.",
)
TESTS = {"target": 28, "source": 28}


def study(
    outputs: Path,
    name: str = "compare",
    strategies: Sequence[Sequence[str]] = (
        (), ("full",), ("lora",), ("csp",), ("partial",), ("ewc", "full", "kd", "rehearsal"), ("ewc", "kd", "lora", "rehearsal"),
    ),
    tests: dict[str, int] | None = None,
    seeds: Sequence[int] = (0,),
    text: str = "",
    wavs: bool = True,
) -> Path:  # fmt: skip
    """A study's folder. `text` is appended to every sentence, to see it escaped."""
    for chosen in strategies:
        for seed in seeds if chosen else seeds[:1]:
            run(outputs / name, tuple(chosen), seed, tests or TESTS, text, wavs)
    return outputs / name


def failed(study_folder: Path, error: str = "loss became NaN at step 40 in train/mel: lower optimizer.lr") -> Path:
    folder = study_folder / "failedfailed"
    folder.mkdir(parents=True)
    summary = {"status": "failed", "run_id": folder.name, "study": study_folder.name, "name": "full+kd", "error": error}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text("seed: 0\n")
    return folder


def run(study_folder: Path, strategies: tuple[str, ...], seed: int, tests: dict[str, int], text: str = "", wavs: bool = True) -> Path:
    name = "+".join(strategies) or "base"
    folder = study_folder / f"{hash_of(name, seed):012x}"
    folder.mkdir(parents=True)
    rows = list(scores(strategies, seed, tests, text))
    with open(folder / "scores.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        if wavs and row["metric"] == "per":
            sound(folder / "wavs" / row["set"] / f"{row['utterance']}.wav", row["utterance"], row["set"])
    (folder / "summary.json").write_text(json.dumps(summary_of(folder, study_folder.name, name, strategies, seed, rows)))
    config = {"seed": seed, "study": study_folder.name, "strategy": {name: {"_target_": f"own.{name}"} for name in strategies}}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "provenance.json").write_text(json.dumps(provenance(seed)))
    if strategies:
        curves(folder / "metrics.csv", strategies, seed)
    if "csp" in strategies:
        (folder / "layers.json").write_text(json.dumps(ranking()))
    return folder


def hash_of(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{name}{seed}".encode(), digest_size=6).digest(), "big")


def scores(strategies: tuple[str, ...], seed: int, tests: dict[str, int], text: str):
    kept = "ewc" in strategies
    how = next((s for s in strategies if s in GAIN), None)
    for set_, n in tests.items():
        for prefix in ("recordings/", "resynthesis/", *(("base/", "") if how else ("",))):
            system = prefix or (how or "base/")
            for metric, (unit, better, base, top, best, spread) in METRICS.items():
                noise = np.random.default_rng([len(set_), list(METRICS).index(metric)]).normal(0, spread, n)
                key = [seed, hash_of(f"{system}{kept}", 0) % 2**32, list(METRICS).index(metric)]
                own = np.random.default_rng(key).normal(0, spread / 3, n)
                moved = (best - base) * GAIN.get(system, 0)
                if set_ == "target":
                    level = base + moved * (0.9 if kept else 1)
                else:
                    level = (best + base) / 2 - moved * (0.15 if kept else 0.6)
                values = {"recordings/": top + 0 * noise, "resynthesis/": top + 0.1 * (base - top) + noise / 4}.get(prefix, level + noise)
                values = values + (own if how and not prefix else 0)
                for i, value in enumerate(values):
                    yield {
                        "set": prefix + set_, "utterance": f"{set_[0]}{i:03d}", "metric": metric, "value": f"{value:.6f}", "unit": unit,
                        "better": better, "model": f"{metric}-judge", "version": "1", "speaker": f"{set_}{i % 3}",
                        "emotion": EMOTIONS[i % 7], "text": f"{SENTENCES[i % 4]} {i}" + text, "weight": 1.0,
                    }  # fmt: skip


@cache
def tone(i: int, pitch: int) -> bytes:
    """A wav of 1.5 to 3 s: a gliding harmonic tone with syllables; its pitch tells systems apart."""
    time = np.arange(int(RATE * (1.5 + 0.25 * (i % 7)))) / RATE
    phase = np.cumsum(110 + 25 * pitch + 20 * np.sin(2 * np.pi * 0.7 * time)) / RATE
    voice = (2 * (phase % 1) - 1) * np.abs(np.sin(2 * np.pi * 2 * time))
    noise = np.random.default_rng(i).normal(0, 0.01, len(time))
    stream = io.BytesIO()
    soundfile.write(stream, (0.2 * voice + noise).astype(np.float32), RATE, format="WAV")
    return stream.getvalue()


def sound(path: Path, utterance: str, set_: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tone(int(utterance[1:]), hash_of(set_, 0) % 5))


def estimate(values: np.ndarray) -> dict:
    half = 1.96 * values.std(ddof=min(1, len(values) - 1)) / len(values) ** 0.5
    return {"mean": float(values.mean()), "low": float(values.mean() - half), "high": float(values.mean() + half), "n": len(values)}


def summary_of(folder: Path, study_name: str, name: str, strategies: tuple[str, ...], seed: int, rows: list[dict]) -> dict:
    by: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        by.setdefault((row["set"], row["metric"]), []).append(float(row["value"]))
    sets: dict[str, dict] = {}
    for (set_, metric), values in by.items():
        facts = {"unit": METRICS[metric][0], "better": METRICS[metric][1], "model": f"{metric}-judge", "version": "1"}
        sets.setdefault(set_, {})[metric] = estimate(np.array(values)) | facts
    changes: dict[str, dict] = {"gain": {}, "forgetting": {}}
    for metric, (_, better, *_) in METRICS.items():
        for kind, set_, sign in (("gain", "target", -1), ("forgetting", "source", 1)):
            if strategies:
                after, before, top = (np.array(by[p + set_, metric]) for p in ("", "base/", "recordings/"))
                if better == "near reference":
                    after, before = abs(after - top), abs(before - top)
                changes[kind][metric] = estimate(sign * (1 if better != "higher" else -1) * (after - before))
    share = {"full": 1.0, "lora": 0.021, "csp": 0.33, "partial": 0.33}.get(next((s for s in strategies if s in GAIN), ""), 0.0)
    return {
        "status": "finished", "run_id": folder.name, "study": study_name, "name": name, "strategies": list(strategies),
        "how": [s for s in strategies if s not in ("ewc", "kd", "rehearsal")],
        "backbone": "FastSpeech2", "seed": seed, "trainable_parameters": int(share * 1_834_112), "total_parameters": 1_834_112,
        "trainable_share": share, "steps": 400 if strategies else 0, "train_seconds": 41.3 + 30 * share if strategies else 0.0,
        "steps_per_second": 8.1 if strategies else 0.0, "sets": sets, **changes,
        "judges": {
            "recogniser": {"version": "1-abc", "phones": ["a", "b"], "unit": "%", "error": {"source.test": 4.31, "target.test": None}},
            "speaker-encoder": {"source.test": 2.13},
        },
        "kl": {"target": 0.8 * share + 0.1, "source": 0.4 * share} if strategies else {},
    }  # fmt: skip


def provenance(seed: int) -> dict:
    return {
        "git": "0123456789abcdef0123456789abcdef01234567", "packages": {"torch": "2.11.0", "peft": None}, "python": "3.11.2",
        "device": "cpu (x86_64)", "seed": seed, "base": "9f8e7d6c5b4a", "data": "embedded-1a2b3c", "train_seconds": 41.3 + seed,
        "peak_memory_gib": 1.234567 + seed,
    }  # fmt: skip


def curves(path: Path, strategies: tuple[str, ...], seed: int) -> None:
    rng = np.random.default_rng(hash_of("+".join(strategies), seed))
    pace = rng.uniform(60, 160)
    terms = ["mel", "duration", "pitch", "energy", *(s for s in strategies if s in ("ewc", "kd"))]
    names = [*(f"train/{t}" for t in terms), "valid/target/mel", "valid/source/mel", "lr", "frames_per_second"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "epoch", *names], restval="", lineterminator="\n")
        writer.writeheader()
        for step in range(0, 400, 5):
            row = {"step": step, "epoch": step // 50, "lr": 1e-3, "frames_per_second": 9000}
            row |= {f"train/{t}": f"{(i + 1) * (0.3 + np.exp(-step / pace)) + rng.normal(0, 0.03):.5f}" for i, t in enumerate(terms)}
            if step % 50 == 45:
                row |= {
                    "valid/target/mel": 0.4 + np.exp(-step / 110),
                    "valid/source/mel": 0.5 + step / 900 / len(strategies) + 0.1 * rng.random(),
                }
            writer.writerow(row)


def ranking() -> dict:
    blocks = [f"decoder.{i}" for i in range(4)]
    emotion, speaker = [0.41, 0.22, 0.2, 0.17], [0.35, 0.26, 0.23, 0.16]
    return {
        "group": "decoder", "blocks": blocks, "emotion": emotion, "speaker": speaker,
        "mean": [(a + b) / 2 for a, b in zip(emotion, speaker)], "chosen": [blocks[0], blocks[3]],
        "probe": {"emotion_accuracy": 0.62, "speaker_accuracy": 0.91, "emotion_chance": 0.143, "speaker_chance": 0.083},
    }  # fmt: skip
