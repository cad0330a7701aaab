"""Recordings from anywhere, scored without a run: `ttsadapt evaluate wavs=<folder or file>`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.data.found import Rejected
from ttsadapt.data.hashes import Hashes
from ttsadapt.data.recordings import AUDIO, TRANSCRIPT, Recordings
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.evaluation import listed, score_set, summarise
from ttsadapt.files import digest, read_json, write_json
from ttsadapt.metrics.anywhere import standard, usable
from ttsadapt.metrics.available import available
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.rows import Row, read_scores, write_scores
from ttsadapt.scoring import comparing, judges, replaced


def evaluate(cfg: DictConfig, asked: bool = True, known: bool = True) -> None:
    """Score every recording of `cfg.wavs`, and those of `cfg.references`, which have the same names; leave scores and summary.

    Judges are those of `cfg.data`; not `known`: nobody said that the recordings are of it, and they are asked for nothing. Metrics for
    which something is missing are named once and left out. `asked`: whether the user chose the metrics; else they are those of
    `anywhere.standard`. The data are not looked at unless a metric does.
    """
    if cfg.text is not None and not Path(cfg.wavs).expanduser().is_file():
        raise ConfigError(f"text=... is what one file says, and wavs={cfg.wavs} is none: write <name>.txt beside each recording")
    clips = _recordings(cfg, cfg.wavs)
    references = _paired(cfg, clips, _recordings(cfg, cfg.references) if cfg.references else {})
    utterances = [replace(u, audio=references[name].audio) if references else u for name, u in clips.items()]
    assembly = Assembly(cfg)
    corpus, cache = assembly.corpus.folder, assembly.cache
    nodes = cfg.metric if asked else standard(bool(references), all(u.text for u in utterances), corpus, cache)
    given = {str(name): instantiate(node) for name, node in nodes.items()}
    learnt = [] if known else [name for name, m in given.items() if m.needs(corpus, cache)]
    metrics = available(usable(given, utterances, bool(references), [u.audio for u in clips.values()], learnt))
    if not metrics:
        raise ConfigError(
            f"metric=[{','.join(given)}]: none of them can be computed here, see above; metric=[dnsmos,wada_snr,pauses] needs nothing"
        )
    if any(m.looks or m.needs(corpus, cache) for m in metrics.values()):
        ensure(*assembly.corpora)
    sets = {"wavs": clips} | ({"recordings/wavs": references} if references else {})
    rows = []
    for name, spoken in sets.items():
        audio = {key: spoken[key].audio for key in clips}
        rows += score_set(metrics, name, audio, utterances, corpus, cache)
    said = listed(summarise(rows)["sets"], comparing(metrics))
    print("\n".join([*said, _kept(cfg, rows, metrics, _identity(sets, cache))]))


def _identity(sets: Mapping[str, Mapping[str, Utterance]], cache: Path) -> str:
    """Of the recordings, and of what is known of them: figures of one stand together."""
    about = [[u.id, u.text, u.speaker, u.emotion, u.language] for clips in sets.values() for u in clips.values()]
    return digest([Hashes(cache).of([u.audio for clips in sets.values() for u in clips.values()]), about], 8)


def _kept(cfg: DictConfig, rows: Sequence[Row], metrics: Mapping[str, UtteranceMetric], identity: str) -> str:
    """Writes scores.csv and scores.json, beside the figures that other metrics gave of the same; says where."""
    place = Path(cfg.wavs).expanduser().absolute()
    default = Path(cfg.paths.outputs).absolute() / "evaluate" / f"{place.stem if place.is_file() else place.name}-{identity}"
    out = Path(cfg.scores_to).expanduser() if cfg.scores_to else default
    before = read_json(out / "scores.json") if (out / "scores.json").is_file() and (out / "scores.csv").is_file() else {}
    same = before.get("of") == identity
    every = replaced(read_scores(out / "scores.csv") if same else [], rows)
    summary: dict[str, Any] = {"wavs": str(cfg.wavs), "references": cfg.references, "of": identity, "sets": summarise(every)["sets"]}
    out.mkdir(parents=True, exist_ok=True)
    write_scores(out / "scores.csv", every)
    write_json(out / "scores.json", summary | {"judges": (before.get("judges", {}) if same else {}) | judges(metrics)})
    others = sorted({r["metric"] for r in every} - set(metrics))
    beside = (
        f", beside what is there of {', '.join(others)}"
        if others
        else ", in place of figures of other recordings"
        if before and not same
        else ""
    )
    return f"written to {out}: scores.csv, scores.json{beside}"


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
