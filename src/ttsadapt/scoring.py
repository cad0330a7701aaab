"""Speak the test sentences, score them beside the ceiling and the floor, measure the drift: a run's scores.csv and summary."""

import copy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from ttsadapt.artifacts import Artifact, ensure
from ttsadapt.assembly import Assembly, Run
from ttsadapt.backbones.base import Backbone, to_device
from ttsadapt.data.features import FeatureSet
from ttsadapt.data.utterance import Utterance
from ttsadapt.evaluation import References, Row, read_scores, score_set, summarise, write_scores
from ttsadapt.files import digest
from ttsadapt.learner import Learner
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.subset import subset
from ttsadapt.speaking import clock, refuse_seeds, speak


def score_run(
    assembly: Assembly, learner: Learner, metrics: Mapping[str, UtteranceMetric], folder: Path, untuned: Run | None
) -> dict[str, Any]:
    """Writes wavs/ and scores.csv; gives `sets`, `gain`, `forgetting`, `judges` and `kl` of summary.json."""
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
        floor = [r for r in read_scores(untuned.folder / "scores.csv") if "/" not in r["set"]]
        rows += [r | {"set": f"base/{r['set']}"} for r in floor]
    write_scores(folder / "scores.csv", rows)
    return summarise(rows) | {"judges": judges(metrics), "kl": drift(assembly, learner)}


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
    for seed in seeds:
        suffix = "" if seed == seeds[0] else f"--s{seed}"
        audio = speak(backbone, utterances, folder, title or name, seed, suffix)
        if not suffix:
            timed = {u.id: u for m in metrics.values() if m.timed for u in subset(utterances, m.limit)}
            if timed:
                clock(backbone, list(timed.values()), folder, seed)
        asked = {key: m for key, m in metrics.items() if not (suffix and m.timed)}
        rows += score_set(asked, name, audio, utterances, assembly.corpus.folder, assembly.cache, seed=seed, suffix=suffix)
    return rows


def sentences(assembly: Assembly, name: str) -> list[Utterance]:
    """The test utterances of a set that are spoken and scored: all, or `evaluation.limit` spread evenly over them."""
    return list(subset(assembly.utterances(f"{name}.test"), assembly.cfg.evaluation.limit))


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
    return [need for metric in metrics.values() for need in metric.needs(assembly.corpus.folder, assembly.cache)]


def ceiling(assembly: Assembly, backbone: Backbone, metrics: Mapping[str, UtteranceMetric]) -> References:
    """Scores of the recordings, and of the recordings through the backbone's own codec or vocoder."""
    sets = {name: sentences(assembly, name) for name in assembly.cfg.evaluation.sets}
    codec = digest([OmegaConf.to_container(assembly.cfg.backbone, resolve=True), assembly.base.hash])
    return References(sets, metrics, assembly.corpus.folder, assembly.cache, backbone.resynthesize, backbone.sample_rate, codec)


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
