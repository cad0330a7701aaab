"""A run's results for the loggers that can show them: audio, mel pictures, the final table, files with their lineage."""

from pathlib import Path
from typing import Any

from ttsadapt.data.audio import load
from ttsadapt.loggers.base import RunLogger, Used

HEARD = 3
"""utterances of each set"""


def show(logger: RunLogger, folder: Path, summary: dict[str, Any], uses: list[Used]) -> None:
    from ttsadapt.codecs.mel import MelSpectrogram

    mel = MelSpectrogram()
    for place in sorted((folder / "wavs").glob("*/")):
        for path in sorted(place.glob("*.wav"))[:HEARD]:
            audio = load(path, mel.sample_rate)
            logger.log_audio(f"{place.name}/{path.stem}", audio, mel.sample_rate, summary["steps"], path.stem)
            logger.log_mel(f"{place.name}/{path.stem}/mel", mel(audio), summary["steps"])
    rows = [
        [name, metric, v["mean"], v["low"], v["high"], v["n"], v["unit"]]
        for name, metrics in summary.get("sets", {}).items()
        for metric, v in metrics.items()
    ]
    logger.log_table("scores", ["set", "metric", "mean", "low", "high", "n", "unit"], rows)
    logger.log_artifact(f"run-{summary['run_id']}", "run", folder / "checkpoints" / "last.ckpt", uses)
    if (folder / "adapter").is_dir():
        own = [Used(f"run-{summary['run_id']}", "run", summary["run_id"])]
        logger.log_artifact(f"adapter-{summary['run_id']}", "adapter", folder / "adapter", own)
