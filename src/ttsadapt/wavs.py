"""Recordings from anywhere, scored without a run: `ttsadapt evaluate wavs=<folder or file>`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.config.base import composed
from ttsadapt.data.found import Rejected
from ttsadapt.data.recordings import AUDIO, TRANSCRIPT, Recordings
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.evaluation import listed, score_set, summarise
from ttsadapt.files import write_json
from ttsadapt.metrics import sidecar
from ttsadapt.metrics.available import assembled
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.rows import write_scores
from ttsadapt.scoring import judges

NEEDS_NOTHING = ("dnsmos", "wada_snr", "pauses", "energy_range", "f0_variation", "silence", "clipping")
"""what is scored when no metric is asked for: neither a text nor a reference nor a judge"""


def evaluate(cfg: DictConfig, asked: bool = True) -> None:
    """Score every recording of `cfg.wavs`, and those of `cfg.references`, which have the same names; leave scores and summary.

    Judges are those of `cfg.data`. Metrics for which something is missing are named once and left out. `asked`: whether the user chose
    the metrics; else they are NEEDS_NOTHING. The data are not looked at unless a metric does.
    """
    if cfg.text is not None and not Path(cfg.wavs).expanduser().is_file():
        raise ConfigError(f"text=... is what one file says, and wavs={cfg.wavs} is none: write <name>.txt beside each recording")
    nodes = cfg.metric if asked else composed(f"metric=[{','.join(NEEDS_NOTHING)}]").metric
    clips = _recordings(cfg, cfg.wavs)
    references = _paired(cfg, clips, _recordings(cfg, cfg.references) if cfg.references else {})
    utterances = [replace(u, audio=references[name].audio) if references else u for name, u in clips.items()]
    metrics = usable(assembled(nodes), utterances, bool(references), [u.audio for u in clips.values()], tuple(nodes))
    assembly = Assembly(cfg)
    if any(m.looks or m.needs(assembly.corpus.folder, assembly.cache) for m in metrics.values()):
        ensure(*assembly.corpora)
    sets = {"wavs": clips} | ({"recordings/wavs": references} if references else {})
    rows = []
    for name, spoken in sets.items():
        audio = {key: spoken[key].audio for key in clips}
        rows += score_set(metrics, name, audio, utterances, assembly.corpus.folder, assembly.cache)
    place = Path(cfg.wavs).expanduser()
    out = Path(cfg.scores_to).expanduser() if cfg.scores_to else place.parent if place.is_file() else place
    out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {"wavs": str(cfg.wavs), "sets": summarise(rows)["sets"], "judges": judges(metrics)}
    write_scores(out / "scores.csv", rows)
    write_json(out / "scores.json", summary)
    print("\n".join([*listed(summary["sets"]), f"written to {out}: scores.csv, scores.json"]))


def _recordings(cfg: DictConfig, path: str) -> dict[str, Utterance]:
    place = Path(path).expanduser()
    if place.is_file():
        one = _file(cfg, place)
        return {one.id: one}
    clips: dict[str, Utterance] = {}
    reader = Recordings(str(place), speaker=cfg.speaker, emotion=cfg.emotion, language=cfg.language)
    for found in reader.found("target", silent=True):
        if isinstance(found, Rejected):  # a score of a part would be taken for one of the whole
            raise DataError(found.told)
        if other := clips.get(found.utterance.id):
            raise DataError(f"{found.where}: the id {found.utterance.id!r} is also that of {other.audio}: make every id different")
        clips[found.utterance.id] = found.utterance
    return dict(sorted(clips.items()))


def _file(cfg: DictConfig, path: Path) -> Utterance:
    """One recording: its text is `cfg.text`, else what stands beside it."""
    if path.suffix.lower() not in AUDIO:
        raise DataError(f"{path} is no recording: give one of {', '.join(AUDIO)}, or a folder of them")
    beside = next((t for suffix in TRANSCRIPT if (t := path.with_suffix(suffix)).is_file()), None)
    try:
        text = cfg.text if cfg.text is not None else beside.read_text(encoding="utf-8") if beside else ""
    except UnicodeDecodeError as error:
        raise DataError(f"{beside} is not UTF-8 text: save it as UTF-8") from error
    about = {"speaker": cfg.speaker or path.resolve().parent.name, "emotion": cfg.emotion or "neutral", "language": cfg.language}
    return Utterance(id=re.sub(r"[^\w.-]+", "_", path.stem), audio=path, text=" ".join(text.split()), **about)


def _paired(cfg: DictConfig, clips: Mapping[str, Utterance], references: Mapping[str, Utterance]) -> Mapping[str, Utterance]:
    """The reference of each clip: of the same name; two single files belong together whatever they are called."""
    if len(clips) == len(references) == 1 and Path(cfg.references).expanduser().is_file():
        return {name: next(iter(references.values())) for name in clips}
    if lacking := [name for name in clips if references and name not in references]:
        raise DataError(f"references={cfg.references} has no recording {lacking[0]!r} ({len(lacking)} are missing): add it")
    return references


def usable(
    metrics: Mapping[str, UtteranceMetric], utterances: Sequence[Utterance], compared: bool, clips: Sequence[Path], asked: Sequence[str]
) -> dict[str, UtteranceMetric]:
    """The metrics that can be computed; says once which cannot, and why. ConfigError when none of those `asked` for can."""
    silent = sum(not u.text for u in utterances)
    noted = all(clip.stem in sidecar.facts(clip.parent) for clip in clips)
    alone = [name for name, m in metrics.items() if m.compares and not compared]
    unread = [name for name, m in metrics.items() if m.reads and silent and name not in alone]
    unseen = [name for name, m in metrics.items() if m.spoken_only and not noted]
    if alone:
        print(f"left out: {', '.join(alone)}, which compare with recordings: give references=<folder> with files of the same names")
    if unread:
        how = "write <name>.txt beside them" if len(utterances) > 1 else 'give text="..."'
        print(f"left out: {', '.join(unread)}, which need the text: {silent} recordings have none, {how}")
    if unseen:
        print(f"left out: {', '.join(unseen)}, which tell how a model spoke: only a run's own clips have a {sidecar.NAME} beside them")
    kept = {name: m for name, m in metrics.items() if name not in {*alone, *unread, *unseen}}
    if not kept:
        raise ConfigError(f"metric=[{','.join(asked)}]: none of them can be computed here; metric=[dnsmos,wada_snr,pauses] needs nothing")
    return kept
