"""From a manifest of many utterances on disk to the first batch: `python -m ttsadapt.bench.opening <folder> <utterances>`.

CPU seconds of reading it and of all that follows up to the batch, beside those of the imports before, and the peak memory of the whole
process, as one line of JSON.
"""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

RATE, DIFFERENT = 16000, 40
"""Hz; audio files that all utterances share, a speaker each"""


def lay_out(folder: Path, utterances: int) -> None:
    """`folder/target.train.jsonl.gz`, as a prepared corpus of so many utterances with phones has it, on a few audio files."""
    from dataclasses import replace

    from ttsadapt.data import manifest
    from ttsadapt.data.pcm import write_wav
    from ttsadapt.data.utterance import Phone, Utterance

    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    each = []
    for i in range(DIFFERENT):
        seconds, path = 1 + i / 8, folder / "wavs" / f"{i}.wav"
        tone = np.sin(2 * np.pi * (100 + 5 * i) * np.arange(int(seconds * RATE)) / RATE)
        write_wav(path, (0.1 * tone + 0.01 * rng.standard_normal(len(tone))).astype(np.float32), RATE)
        ends = np.linspace(0, seconds, int(12 * seconds) + 1).round(8).tolist()
        phones = tuple(Phone("abdefgiklmnoprstuvz"[k % 19], a, b) for k, (a, b) in enumerate(pairwise(ends)))
        each.append(Utterance("", path, "", "", "neutral", "en-us", seconds, phones))
    manifest.write(
        (
            replace(each[k % DIFFERENT], id=f"utterance-{k:06d}", text=f"This is sentence number {k}.", speaker=f"s{k % DIFFERENT}")
            for k in range(utterances)
        ),
        folder,
        "target.train",
    )


def opened(folder: Path) -> dict[str, Any]:
    """What it costs to read the manifest, group all utterances, and put the first batch together."""
    from ttsadapt.backbones.base import TARGET
    from ttsadapt.backbones.fastspeech2_frontend import FastSpeech2Frontend
    from ttsadapt.callbacks.throughput import peak_memory
    from ttsadapt.data import manifest
    from ttsadapt.data.module import AdaptationData
    from ttsadapt.data.ondemand import OnDemand

    imports = begun = time.process_time()
    utterances = manifest.read(folder, "target.train")
    reading = time.process_time() - begun
    frontend = FastSpeech2Frontend(RATE)
    frontend.fit(utterances[:40])  # not counted: a run has it from its base
    begun = time.process_time()
    frontend.enroll(utterances[:40])
    data = AdaptationData(OnDemand(folder / "features", frontend, utterances, TARGET), None, {}, None, 6000, 0)
    batch = next(iter(data.train_dataloader()))
    batching = time.process_time() - begun
    figures = {"cpu": reading + batching, "imports": imports, "reading": reading, "batching": batching}
    return figures | {"utterances": len(utterances), "first_batch": len(batch["ids"]), **peak_memory()}


def main() -> None:
    folder, utterances = Path(sys.argv[1]), int(sys.argv[2])
    if not (folder / "target.train.jsonl.gz").is_file():
        from ttsadapt.processes import workers

        with workers(1) as pool:  # its memory is not counted
            pool.submit(lay_out, folder, utterances).result()
    print(json.dumps(opened(folder)))


if __name__ == "__main__":
    main()
