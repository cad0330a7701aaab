"""Recordings from anywhere, scored without a run: `ttsadapt evaluate wavs=<folder>`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.data.found import Rejected
from ttsadapt.data.recordings import Recordings
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.evaluation import listed, score_set, summarise, write_scores
from ttsadapt.files import write_json
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.scoring import judges


def evaluate(cfg: DictConfig) -> None:
    """Score every recording below `cfg.wavs`, and those below `cfg.references`, which have the same names; leave scores and summary.

    Judges are those of `cfg.data`. Metrics for which something is missing are named once and left out.
    """
    clips, references = _recordings(cfg, cfg.wavs), _recordings(cfg, cfg.references) if cfg.references else {}
    if lacking := [name for name in clips if references and name not in references]:
        raise DataError(f"references={cfg.references} has no recording {lacking[0]!r} ({len(lacking)} are missing): add it")
    utterances = [replace(u, audio=references[name].audio) if references else u for name, u in clips.items()]
    metrics = usable({name: instantiate(node) for name, node in cfg.metric.items()}, utterances, bool(references))
    assembly = Assembly(cfg)
    ensure(*assembly.corpora)
    sets = {"wavs": clips} | ({"recordings/wavs": references} if references else {})
    rows = []
    for name, spoken in sets.items():
        audio = {key: spoken[key].audio for key in clips}
        rows += score_set(metrics, name, audio, utterances, assembly.corpus.folder, assembly.cache)
    out = Path(cfg.scores_to or cfg.wavs).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    apart = [row | {"text": row["text"] or row["utterance"]} for row in rows]  # intervals draw texts anew
    summary: dict[str, Any] = {"wavs": str(cfg.wavs), "sets": summarise(apart)["sets"], "judges": judges(metrics)}
    write_scores(out / "scores.csv", rows)
    write_json(out / "scores.json", summary)
    print("\n".join([*listed(summary["sets"]), f"written to {out}: scores.csv, scores.json"]))


def _recordings(cfg: DictConfig, path: str) -> dict[str, Utterance]:
    folder = Path(path).expanduser()
    if folder.is_file():
        raise ConfigError(f"{path} is a file: give the folder that it lies in")
    clips: dict[str, Utterance] = {}
    for one in Recordings(str(folder), emotion=cfg.emotion, language=cfg.language).found("target", silent=True):
        if isinstance(one, Rejected):  # a score of a part would be taken for one of the whole
            raise DataError(one.told)
        if other := clips.get(one.utterance.id):
            raise DataError(f"{one.where}: the id {one.utterance.id!r} is also that of {other.audio}: make every id different")
        clips[one.utterance.id] = one.utterance
    return dict(sorted(clips.items()))


def usable(metrics: Mapping[str, UtteranceMetric], utterances: Sequence[Utterance], compared: bool) -> dict[str, UtteranceMetric]:
    """The metrics that can be computed; says once which cannot, and why. ConfigError when none can."""
    silent = sum(not u.text for u in utterances)
    alone = [name for name, m in metrics.items() if m.compares and not compared]
    unread = [name for name, m in metrics.items() if m.reads and silent]
    if alone:
        print(f"left out: {', '.join(alone)}, which compare with recordings: give references=<folder> with files of the same names")
    if unread:
        print(f"left out: {', '.join(unread)}, which need the text: {silent} recordings have none, write <name>.txt beside them")
    kept = {name: m for name, m in metrics.items() if name not in {*alone, *unread}}
    if not kept:
        raise ConfigError(f"metric=[{','.join(metrics)}]: none of them can be computed here; metric=[dnsmos,wada_snr,pauses] needs nothing")
    return kept
