"""From clips to rows, from rows to intervals: scores.csv, and what summary.json says of it."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from ttsadapt.artifacts import Artifact, ensure
from ttsadapt.bars import Bar
from ttsadapt.data import audio as recordings
from ttsadapt.data.pcm import resample
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError
from ttsadapt.files import digest
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.intervals import Interval, interval
from ttsadapt.metrics.rows import RECORDED, UNTUNED, Row, Table, change, group_of, other_judge, read_scores, tabled, write_scores
from ttsadapt.metrics.signal import RATE
from ttsadapt.metrics.subset import subset
from ttsadapt.reproducible import reproducible

Metrics = Mapping[str, UtteranceMetric]


def score_set(
    metrics: Metrics,
    name: str,
    audio: Mapping[str, Path],
    utterances: Sequence[Utterance],
    corpus_folder: Path,
    cache: Path,
    progress: bool = True,
    seed: int | None = None,
    suffix: str = "",
) -> list[Row]:
    """Score the clip of every utterance; `audio` is {utterance id: file}. Judges that do not exist yet are built.

    A metric with a limit scores its own fixed part of the set. `seed` is what the clips were spoken with (None: recordings), `suffix`
    what their names have after the utterance's id. One thread, so that sums come out the same on every machine with as many cores
    as it likes. Raises DataError for a clip that is missing or unreadable.
    """
    metrics = {key: metric for key, metric in metrics.items() if not (metric.spoken_only and name.startswith(RECORDED))}
    ensure(*(need for metric in metrics.values() for need in metric.needs(corpus_folder, cache)))
    chosen = {key: {u.id for u in subset(utterances, metric.limit)} for key, metric in metrics.items()}
    for metric in metrics.values():
        metric.reset()
        metric.open(corpus_folder, cache)
    rows: list[Row] = []
    with reproducible(), threadpool_limits(1):
        for utterance in Bar(utterances, f"scoring {name}", unit="utt", leave=False, disable=not progress):
            if utterance.id not in audio:
                raise DataError(f"{name}: no clip of {utterance.id!r}: synthesise the set again")
            clip = spoken(audio[utterance.id])
            for key, metric in metrics.items():
                if utterance.id in chosen[key]:
                    metric.beside(audio[utterance.id])
                    metric.update(clip, RATE, utterance)
                    rows.append(_row(name, key, metric, utterance) | {"seed": "" if seed is None else str(seed)})
                    rows[-1]["utterance"] += suffix
    return rows


def spoken(path: Path) -> Tensor:
    """(samples,) at RATE. Unlike a recording, what a model said may be silent: that is for the metrics to judge."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (samples, channels)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"cannot read {path} as audio ({str(error).splitlines()[0]}): delete it and synthesise the set again") from error
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds a value that is not finite: delete it and synthesise the set again")
    return torch.from_numpy(np.ascontiguousarray(resample(samples.mean(1), rate, RATE), np.float32))


def _row(name: str, key: str, metric: UtteranceMetric, utterance: Utterance) -> Row:
    about = {"model": metric.model, "version": metric.version, "unit": metric.unit, "better": metric.better, "why": metric.why}
    about["share"] = "1" if metric.share else ""
    whose = {"speaker": utterance.speaker, "emotion": utterance.emotion, "text": utterance.text}
    value, weight = float(metric.values[-1]), float(metric.weights[-1])
    return {"set": name, "utterance": utterance.id, "metric": key, "value": value, "weight": weight} | about | whose


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """`sets`, `gain`, `forgetting` and `unpaired` of summary.json; unknown numbers are None. Texts are what is drawn anew, seeds are
    averaged."""
    table = tabled(rows)
    sets = {name: {metric: _mean(scores) for metric, scores in metrics.items()} for name, metrics in table.items()}
    gain, without = changes(table, "target")
    lost, neither = changes(table, "source", sign=-1)
    return {"sets": sets, "gain": gain, "forgetting": lost, "unpaired": {"gain": without, "forgetting": neither}}


def changes(table: Table, name: str, sign: int = 1) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """{metric: paired change of a set against `base/`}, positive = better, with sign -1 positive = worse; {metric: why it has none}."""
    tuned, base = table.get(name, {}), table.get(f"{UNTUNED}{name}")
    if base is None:
        return {}, {}
    reasons = {
        metric: why
        for metric, scores in tuned.items()
        if (why := other_judge(scores.values(), base.get(metric, {}).values(), ("this run", "the untuned model")))
    }
    return {m: _plain(change(scores, base[m], sign)) for m, scores in tuned.items() if m not in reasons}, reasons


def told(summary: Mapping[str, Any], folder: Path) -> str:
    """What a finished run says at the end: where it is, and its figures."""
    lines = [f"{summary['name']}: finished in {folder}", *listed(summary.get("sets", {}), summary.get("compares", ()))]
    lines += [f"  no {kind} of {metric}: {why}" for kind, found in summary.get("unpaired", {}).items() for metric, why in found.items()]
    if summary.get("sets"):
        lines.append(f"beside its baseline, to look at and listen to: ttsadapt report study={summary['study']}")
    return "\n".join(lines)


def listed(sets: Mapping[str, Mapping[str, Mapping[str, Any]]], compares: Collection[str] = ()) -> list[str]:
    """A line for every set and metric of a summary: mean, its interval where there is one, unit, n. Not of recordings by metrics that
    compare with them (`compares`): nothing is away from itself."""

    def line(name: str, metric: str, s: Mapping[str, Any]) -> str:
        mean = "        –" if s["mean"] is None else f"{s['mean']:9.3f}"
        around = "" if s["low"] is None else f" [{s['low']:.3f}, {s['high']:.3f}]"
        unknown = "".join(f"; {count} left out: {why}" for why, count in s.get("unknown", {}).items())
        return f"  {name:20} {metric:16} {mean}{around} {s['unit']}, n = {s['n']}{unknown}"

    def trivial(name: str, metric: str) -> bool:
        return name.startswith(RECORDED[0]) and metric in compares

    return [line(name, metric, s) for name, scores in sets.items() for metric, s in scores.items() if not trivial(name, metric)]


def mean_of(scores: Mapping[str, Row]) -> dict[str, Any] | None:
    """Mean, interval, n, unit, better, model and version of rows by utterance; None without any."""
    return _mean(scores) if scores else None


def _mean(scores: Mapping[str, Row]) -> dict[str, Any]:
    listed = list(scores.values())
    values, weights = ([r[column] for r in listed] for column in ("value", "weight"))
    found = interval(values, weights=weights, groups=[group_of(r) for r in listed], share=any(r.get("share") for r in listed))
    shown = next((r for r in listed if math.isfinite(r["value"])), listed[0])
    about = {key: shown[key] for key in ("unit", "better", "model", "version")}
    return _plain(found) | about | _over_seeds(listed) | _unknown(listed)


def _over_seeds(rows: Sequence[Row]) -> dict[str, Any]:
    """`seeds`, and the root mean square of the deviations that utterances have over them: how unstable the voice is."""
    deviations = np.array([r.get("deviation", math.nan) for r in rows])
    known = deviations[np.isfinite(deviations)]
    most = max(r.get("seeds", 1) for r in rows)
    return {} if most == 1 else {"seeds": most, "seed_deviation": float(np.sqrt(np.square(known).mean())) if len(known) else None}


def _unknown(rows: Sequence[Row]) -> dict[str, Any]:
    """{reason: utterances without a value}"""
    found = Counter(r.get("why") or "not defined" for r in rows if not math.isfinite(r["value"]))
    return {"unknown": dict(found)} if found else {}


def _plain(found: Interval) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in found._asdict().items()}


class References(Artifact):
    """The ceiling: scores of the recordings, and of the recordings through a backbone's own codec or vocoder.

    `scores.csv` with the sets "recordings/<set>" and "resynthesis/<set>", and what was resynthesised below `wavs/<set>/`.
    """

    def __init__(
        self,
        sets: Mapping[str, Sequence[Utterance]],
        metrics: Metrics,
        corpus_folder: Path,
        cache: Path,
        resynthesize: Callable[[Tensor], Tensor],
        sample_rate: int,
        codec_key: str,
    ) -> None:
        """`codec_key` names what `resynthesize` ((samples,) at `sample_rate` -> the same) does."""
        self.sets, self.metrics, self.corpus_folder, self.cache = sets, metrics, Path(corpus_folder), Path(cache)
        self.resynthesize, self.sample_rate = resynthesize, sample_rate
        judged = {key: [m.limit, m.identity(self.corpus_folder, self.cache)] for key, m in metrics.items() if not m.spoken_only}
        said = {name: [u.id for u in utterances] for name, utterances in sets.items()}
        self.folder = Path(cache) / "references" / digest([self.corpus_folder.name, codec_key, sample_rate, said, judged])

    def needs(self) -> tuple[Artifact, ...]:
        return tuple(need for metric in self.metrics.values() for need in metric.needs(self.corpus_folder, self.cache))

    def rows(self) -> list[Row]:
        return read_scores(self.folder / "scores.csv")

    def wavs(self, name: str) -> dict[str, Path]:
        """{utterance id: resynthesised recording} of a set."""
        return {u.id: self.folder / "wavs" / name / f"{u.id}.wav" for u in self.sets[name]}

    def build(self, folder: Path) -> None:
        rows: list[Row] = []
        for name, utterances in self.sets.items():
            plain = {u.id: u.audio for u in utterances}
            coded = self._resynthesised(utterances, folder / "wavs" / name, name)
            for kind, audio in (("recordings", plain), ("resynthesis", coded)):
                rows += score_set(self.metrics, f"{kind}/{name}", audio, utterances, self.corpus_folder, self.cache)
        write_scores(folder / "scores.csv", rows)

    def _resynthesised(self, utterances: Sequence[Utterance], folder: Path, name: str) -> dict[str, Path]:
        audio: dict[str, Path] = {}
        for utterance in Bar(utterances, f"resynthesising {name}", unit="utt", leave=False):
            audio[utterance.id] = folder / f"{utterance.id}.wav"
            coded = self.resynthesize(recordings.load(utterance.audio, self.sample_rate))
            recordings.save(audio[utterance.id], coded, self.sample_rate)
        return audio
