"""Speak the test sentences, score them beside the ceiling and the floor, measure the drift: a run's scores.csv and summary."""

import copy
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from ttsadapt.artifacts import Artifact, ensure
from ttsadapt.assembly import Assembly, Run
from ttsadapt.backbones.base import Backbone, to_device
from ttsadapt.config.nearest import hint
from ttsadapt.data.features import FeatureSet
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError
from ttsadapt.evaluation import References, score_set, summarise
from ttsadapt.files import digest, read_json, write_json
from ttsadapt.learner import Learner
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.rows import RECORDED, UNTUNED, Row, judges_of, plain, read_scores, write_scores
from ttsadapt.metrics.subset import subset
from ttsadapt.speaking import clock, refuse_seeds, speak


def score_run(
    assembly: Assembly,
    learner: Learner,
    metrics: Mapping[str, UtteranceMetric],
    folder: Path,
    untuned: Run | None,
    before: Sequence[Row] = (),
) -> dict[str, Any]:
    """Writes wavs/ and scores.csv; gives `sets`, `gain`, `forgetting`, `unpaired`, `compares`, `judges` and `kl` of summary.json.

    `before`: rows that stay where their set is not scored again by their metric.
    """
    if not metrics:
        return {}
    rows: list[Row] = []
    for name in assembly.cfg.evaluation.sets:
        seeds = list(assembly.cfg.evaluation.seeds)
        rows += spoken_scores(learner.backbone, sentences(assembly, name), folder / "wavs" / name, name, metrics, seeds, assembly)
    references = ceiling(assembly, learner.backbone, metrics)
    ensure(references, *([untuned] if untuned else []))
    rows += references.rows()
    _keep_recordings(assembly, references, folder / "wavs")
    if untuned:
        rows += [r | {"set": f"{UNTUNED}{r['set']}"} for r in floor(assembly, untuned, metrics, rows)]
    rows = replaced(before, rows)
    write_scores(folder / "scores.csv", rows)
    return summarise(rows) | {"compares": comparing(metrics), "judges": judges(metrics), "kl": drift(assembly, learner)}


def spoken_scores(
    backbone: Backbone,
    utterances: Sequence[Utterance],
    folder: Path,
    name: str,
    metrics: Mapping[str, UtteranceMetric],
    seeds: Sequence[int],
    assembly: Assembly,
    title: str | None = None,
) -> list[Row]:
    """Speak a set with every seed into `folder` and score what was said: `<id>.wav` with the first, `<id>--s<seed>.wav` with the others.

    Where a metric asks for it the first seed is also spoken sentence by sentence, against the clock.
    """
    refuse_seeds(seeds)
    rows: list[Row] = []
    for seed, suffix in suffixes(seeds).items():
        audio = speak(backbone, utterances, folder, title or name, seed, suffix)
        if not suffix:
            timed = {u.id: u for m in metrics.values() if m.timed for u in subset(utterances, m.limit)}
            if timed:
                clock(backbone, list(timed.values()), folder, seed)
        asked = {key: m for key, m in metrics.items() if not (suffix and m.timed)}
        rows += score_set(asked, name, audio, utterances, assembly.judged, assembly.cache, seed=seed, suffix=suffix)
    return rows


def suffixes(seeds: Sequence[int]) -> dict[int, str]:
    """{seed: what the names of its clips have after the utterance's id}"""
    return {seed: "" if seed == seeds[0] else f"--s{seed}" for seed in seeds}


def replaced(before: Iterable[Row], rows: Sequence[Row]) -> list[Row]:
    """The `rows`, behind those of other sets and metrics."""
    again = {(r["set"], r["metric"]) for r in rows}
    return [*(r for r in before if (r["set"], r["metric"]) not in again), *rows]


def floor(assembly: Assembly, untuned: Run, metrics: Mapping[str, UtteranceMetric], rows: Sequence[Row]) -> list[Row]:
    """Scores of the untuned model by the judges that gave the tuned one's `rows`.

    A judge may have come to the machine since the untuned model was scored, or have gone: then its clips, which lie in its run's
    folder, are scored again, and its run keeps that, with the ceiling's `rows` by the same judge.
    """
    path = untuned.folder / "scores.csv"
    with untuned.lock:
        known, fresh = read_scores(path), list[Row]()
        for name in assembly.cfg.evaluation.sets:
            stale = {m: metric for m, metric in metrics.items() if not metric.spoken_only and _judged_otherwise(name, m, rows, known)}
            fresh += _again(assembly, name, untuned.folder / "wavs" / name, stale)
        if fresh:
            scored = {(r["set"], r["metric"]) for r in fresh}
            ideals = [r for r in rows if r["set"].startswith(RECORDED) and (plain(r["set"]), r["metric"]) in scored]
            known = replaced(known, [*fresh, *ideals])
            summary = read_json(untuned.folder / "summary.json")
            judged = {"judges": summary.get("judges", {}) | judges(metrics)}
            write_json(untuned.folder / "summary.json", summary | summarise(known) | judged)  # before the rows, which say that it is done
            write_scores(path, known)
    return [r for r in known if "/" not in r["set"]]


def _judged_otherwise(name: str, metric: str, rows: Sequence[Row], known: Sequence[Row]) -> bool:
    ours, theirs = ([r for r in some if (r["set"], r["metric"]) == (name, metric)] for some in (rows, known))
    return judges_of(ours) != judges_of(theirs)


def _again(assembly: Assembly, name: str, folder: Path, metrics: Mapping[str, UtteranceMetric]) -> list[Row]:
    """Score a set's clips in `folder` without speaking; [] when they are not all there."""
    utterances, rows = sentences(assembly, name), list[Row]()
    for seed, suffix in suffixes(list(assembly.cfg.evaluation.seeds)).items():
        audio = {u.id: folder / f"{u.id}{suffix}.wav" for u in utterances}
        if not metrics or not all(path.is_file() for path in audio.values()):
            return []
        rows += score_set(metrics, name, audio, utterances, assembly.judged, assembly.cache, seed=seed, suffix=suffix)
    return rows


def sentences(assembly: Assembly, name: str) -> list[Utterance]:
    """The test utterances of a set that are spoken and scored: all, or `evaluation.limit` of them (`subset`)."""
    return list(subset(assembly.utterances(f"{name}.test"), assembly.cfg.evaluation.limit))


def refuse_unknown_sets(assembly: Assembly) -> None:
    """ConfigError for one of `evaluation.sets` of which the data have no test: before anything trains."""
    asked, there = list(assembly.cfg.evaluation.sets), [n.removesuffix(".test") for n in assembly.names() if n.endswith(".test")]
    if unknown := [name for name in asked if name not in there]:
        known = ",".join(name for name in asked if name in there) or ",".join(there[:2])
        missing = f"the data have no {unknown[0]}.test{hint(unknown[0], there)}"
        raise ConfigError(f"evaluation.sets=[{','.join(asked)}]: {missing} (say evaluation.sets=[{known}])")


def _keep_recordings(assembly: Assembly, references: References, place: Path) -> None:
    """The ceiling's clips beside the run's own: links where the disk allows it."""
    for name in assembly.cfg.evaluation.sets:
        plain = {u.id: u.audio for u in references.sets[name]}
        for kind, clips in (("recordings", plain), ("resynthesis", references.wavs(name))):
            for utterance, source in clips.items():
                link(source, place / kind / name / f"{utterance}.wav")


def link(source: Path, path: Path) -> None:
    """`path` becomes another name of the file `source`, or a copy where the disk has no links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        path.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, path)


def judge_needs(assembly: Assembly, metrics: Mapping[str, UtteranceMetric]) -> list[Artifact]:
    """Recognisers and encoders that the metrics ask for."""
    return [need for metric in metrics.values() for need in metric.needs(assembly.judged, assembly.cache)]


def ceiling(assembly: Assembly, backbone: Backbone, metrics: Mapping[str, UtteranceMetric]) -> References:
    """Scores of the recordings, and of the recordings through the backbone's own codec or vocoder."""
    sets = {name: sentences(assembly, name) for name in assembly.cfg.evaluation.sets}
    codec = digest([OmegaConf.to_container(assembly.cfg.backbone, resolve=True), assembly.base.hash])
    return References(sets, metrics, assembly.judged, assembly.cache, backbone.resynthesize, backbone.sample_rate, codec)


def comparing(metrics: Mapping[str, UtteranceMetric]) -> list[str]:
    """Names of those that compare with the recordings: of the recordings themselves they say nothing."""
    return sorted(name for name, metric in metrics.items() if metric.compares)


def judges(metrics: Mapping[str, UtteranceMetric]) -> dict[str, Any]:
    """Every recogniser's and encoder's own error on held-out recordings."""
    cards: dict[str, Any] = {}
    for metric in metrics.values():
        cards |= metric.own_errors()
    return cards


@torch.no_grad()
def drift(assembly: Assembly, learner: Learner, frames: int = 8000) -> dict[str, float]:
    """KL(untuned || tuned) in nats per supervised position of the validation sets, summed over heads; {} when nothing was tuned.

    A small penalty does not prove that little was forgotten; this is measured on the outputs themselves.
    """
    if not any(p.requires_grad for p in learner.parameters()):
        return {}
    untuned = Assembly(assembly.cfg).base.backbone.eval()
    tuned = copy.copy(learner).eval()
    names = [n for n in ("target", "source") if f"{n}.valid" in assembly.names()]
    sets = dict(zip(names, assembly.features(*(f"{n}.valid" for n in names))))
    return {name: _divergence(tuned, untuned, features, frames) for name, features in sets.items()}


def _divergence(tuned: Learner, untuned: Backbone, features: FeatureSet, frames: int) -> float:
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for batch in features.batches(frames):
        batch = to_device(batch, tuned.device)
        ours, theirs = tuned.backbone(batch), untuned.to(tuned.device)(batch)
        for name, head in ours.items():
            sums[name] = sums.get(name, 0.0) + float(head.kl_per_position(theirs[name]).sum())
            counts[name] = counts.get(name, 0) + head.count
    return sum(total / max(counts[name], 1) for name, total in sums.items())
