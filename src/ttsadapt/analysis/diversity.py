"""How diverse are the recordings that are to be learnt, and is fine-tuning on them likely to help?

arXiv 2603.10904 (abstract) finds that LoRA improves quality, similarity and signal-to-noise ratio together where recordings vary much in
energy and in perceptual quality, and that uniform recordings make a model clone their noise. It does not define these variabilities;
here they are the standard deviation of the levels of frames in dB, and of DNS-MOS OVRL over clips.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from ttsadapt.analysis.base import Analysis
from ttsadapt.analysis.recorded import Array, Clip, clip, phones, quality, quality_is_known, rate
from ttsadapt.analysis.verdict import Gates, verdict
from ttsadapt.bars import Bar
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError, UserError
from ttsadapt.files import replacing, write_json
from ttsadapt.machine import cores
from ttsadapt.metrics.subset import subset

if TYPE_CHECKING:
    from ttsadapt.data.prepare import PreparedCorpus

ALL, _ALL_OF_THEM = "all", "all of them"
"""what all speakers together are called; the second where a speaker is called as the first"""
_REFERENCE = 27.5
"""Hz that semitones are counted from, as in eGeMAPS"""
_RESAMPLES = 1000
_SPEECH = 40.0
"""dB below the 95th percentile of a clip's levels, at which speech ends"""

Figures = dict[str, float | int | None]
"""None: not known"""


@dataclass(frozen=True)
class Measured:
    """All clips of a speaker."""

    utterances: list[Utterance]
    clips: list[Clip]
    quality: list[float]
    """DNS-MOS of some of them"""


class Diversity(Analysis):
    """Leaves diversity.json, .csv and .png, and says whether fine-tuning is likely to help. It warns and refuses nothing."""

    def __init__(
        self,
        part: str = "target.train",
        clips: int = 12,
        speech_only: bool = False,
        floor: float = 60.0,
        energy: Sequence[float] = (13.0, 15.0),
        quality: float | None = None,
        snr: float | None = 15.0,
        hours: float | None = None,
    ) -> None:
        """`part`: set and split to look at. `clips` of each speaker, evenly spaced, are judged by DNS-MOS; 0: none.

        Energy varies over all frames of what is said, its pauses too, or with `speech_only` over those of speech; a frame counts as at
        most `floor` dB below the loud ones of its clip, or digital silence would be all there is to see. `energy`: dB below which
        fine-tuning is unlikely to improve quality, and from which it is likely to. `quality`, `snr`, `hours`: what less than that is warned
        of (a deviation in MOS, a mean in dB, hours of a speaker); None: never.
        """
        if clips < 0:
            raise ConfigError(f"analysis.clips={clips}: give 0 or more")
        if not floor > _SPEECH:
            raise ConfigError(f"analysis.floor={floor}: give more than {_SPEECH:g} dB, where speech ends")
        self.part, self.clips, self.speech_only, self.floor = part, clips, speech_only, float(floor)
        if len(energy) != 2 or energy[0] > energy[1]:
            raise ConfigError(f"analysis.energy={list(energy)}: give two levels in dB, the lower one first")
        self.gates = Gates((float(energy[0]), float(energy[1])), quality, snr, hours)

    def analyze(self, cfg: DictConfig) -> None:
        from ttsadapt.analysis.diversity_told import picture, table
        from ttsadapt.config.identity import run_folder

        found, inventory, corpus, source = self._look(cfg)
        figures = {name: self.figures(measured, inventory) for name, measured in found.items()}
        everyone = list(found)[-1]
        said = {name: verdict(name, figures[name], self.gates) for name in figures}
        folder = run_folder(cfg)
        about = {"part": self.part, "corpus": corpus, "source": source, "settings": vars(self) | {"gates": asdict(self.gates)}}
        speakers = {name: {"figures": figures[name], "verdict": said[name]} for name in figures}
        write_json(folder / "diversity.json", about | {ALL: speakers.pop(everyone), "speakers": speakers})
        _write_csv(folder / "diversity.csv", figures)
        picture({name: [self.heard(c) for c in m.clips] for name, m in found.items()}, figures, folder / "diversity.png")
        shown = figures if len(figures) > 2 else {name: figures[name] for name in figures if name != everyone}  # one speaker is all of them
        of = [f"of source's: the share of the phones in source.train of {source} that are said"] if source else []
        print("\n".join([*table(shown), *of, "", *(said[name]["said"] for name in shown)]))
        print(f"written to {folder}: diversity.json, diversity.csv, diversity.png")

    def _look(self, cfg: DictConfig) -> tuple[dict[str, Measured], dict[str, set[str]], str, str | None]:
        """Measurements by speaker, all together last; the phones of each language in the source; names of the corpus and the source's."""
        from hydra.utils import instantiate

        from ttsadapt.artifacts import ensure
        from ttsadapt.data.prepare import PreparedCorpus

        cache = Path(cfg.paths.cache)
        corpus = PreparedCorpus(instantiate(cfg.data), cache, cfg.get("only"))
        ensure(corpus)
        if self.part not in corpus.names():
            raise DataError(f"analysis.part={self.part}: the data have {', '.join(corpus.names())}")
        found = self.measured(corpus.utterances(self.part), cache)
        source = corpus if "source.train" in corpus.names() else _of_the_base(cfg)
        known = _inventory(source.utterances("source.train") if source else [])
        return found, known, corpus.folder.name, source.folder.name if source else None

    def measured(self, utterances: Sequence[Utterance], cache: Path) -> dict[str, Measured]:
        """By speaker, and last of all of them together; what is kept in `cache` is not measured again."""
        clips = {u.id: clip(u, cache) for u in Bar(utterances, "measuring", unit="utt", leave=False)}
        by_speaker: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in utterances:
            by_speaker[utterance.speaker].append(utterance)
        if self.clips and not quality_is_known():
            print("DNS-MOS is left out: pip install speechmos onnxruntime librosa")
        judged = {s: subset(of, self.clips) if self.clips and quality_is_known() else [] for s, of in sorted(by_speaker.items())}
        some = [utterance for of in judged.values() for utterance in of]
        with ThreadPoolExecutor(cores()) as pool:  # the network leaves Python's lock
            heard = iter(list(Bar(pool.map(partial(quality, cache=cache), some), "DNS-MOS", len(some), unit="clip", leave=False)))
        made = {s: Measured(by_speaker[s], [clips[u.id] for u in by_speaker[s]], list(islice(heard, len(judged[s])))) for s in judged}
        every = Measured(list(utterances), list(clips.values()), [q for of in made.values() for q in of.quality])
        return made | {ALL if ALL not in made else _ALL_OF_THEM: every}

    def heard(self, one: Clip) -> tuple[Array, Array]:
        """Levels that count, in dB, and F0 in semitones."""
        top = np.percentile(one.level, 95) if len(one.level) else 0.0
        level = np.maximum(one.level, top - self.floor)
        return (level[level > top - _SPEECH] if self.speech_only else level), 12 * np.log2(one.f0 / _REFERENCE)

    def figures(self, measured: Measured, inventory: Mapping[str, set[str]]) -> Figures:
        """Means and deviations; those of frames over all clips together."""
        level, pitch = (np.concatenate(parts) if parts else np.zeros(0) for parts in zip(*map(self.heard, measured.clips)))
        said = [phones(u) for u in measured.utterances]
        inside = [s for u, of in zip(measured.utterances, said) for s in of if s in inventory.get(u.language, ())]
        whole = set().union(*(inventory.get(language, set()) for language in {u.language for u in measured.utterances}))
        rates = [rate(u, c.seconds) for u, c in zip(measured.utterances, measured.clips)]
        low, high = np.percentile(pitch, [5, 95]) if len(pitch) else (np.nan, np.nan)
        least, most = _interval([self.heard(c)[0] for c in measured.clips])
        found: dict[str, float | None] = {
            "clips": len(measured.clips),
            "hours": sum(c.seconds for c in measured.clips) / 3600,
            "energy_sd": _deviation(level),
            "energy_low": least,
            "energy_high": most,
            "f0_range": float(high - low),
            "f0_sd": _deviation(pitch),
            "dnsmos": _mean(measured.quality),
            "dnsmos_sd": _deviation(measured.quality, 1),
            "dnsmos_clips": len(measured.quality),
            "snr": _mean([c.snr for c in measured.clips]),
            "snr_sd": _deviation([c.snr for c in measured.clips], 1),
            "phones": len({s for of in said for s in of}),
            "diphones": len({pair for of in said for pair in pairwise(of)}),
            "inventory_share": len(set(inside)) / len(whole) if whole else None,
            "rate": _mean(rates),
            "rate_sd": _deviation(rates, 1),
        }
        return {name: None if value is None or not np.isfinite(value) else value for name, value in found.items()}


def _of_the_base(cfg: DictConfig) -> "PreparedCorpus | None":
    """What the base was trained on, where that lies there already: it is not made for the sake of a look at other data."""
    from ttsadapt.assembly import Assembly

    try:
        before = Assembly(cfg).before
    except UserError:  # its engine is not installed
        return None
    return before if before.done and "source.train" in before.names() else None


def _inventory(source: Sequence[Utterance]) -> dict[str, set[str]]:
    """Phones of the source by language."""
    known: dict[str, set[str]] = defaultdict(set)
    for utterance in source:
        known[utterance.language].update(phones(utterance))
    return known


def _mean(values: Sequence[float] | Array) -> float:
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")


def _deviation(values: Sequence[float] | Array, lost: int = 0) -> float:
    """Standard deviation; `lost` 1: of a sample."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(known.std(ddof=lost)) if len(known) > 1 else float("nan")


def _interval(parts: Sequence[Array]) -> tuple[float, float]:
    """95 % interval of the standard deviation of all values together: a bootstrap over the parts, whose values are no independent draws."""
    sums = np.array([[len(p), p.sum(), np.square(p).sum()] for p in parts if len(p)])
    if len(sums) < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(0)
    drawn = np.array([generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums))) @ sums for _ in range(_RESAMPLES)])
    variance = drawn[:, 2] / drawn[:, 0] - np.square(drawn[:, 1] / drawn[:, 0])
    low, high = np.percentile(np.sqrt(np.maximum(variance, 0)), [2.5, 97.5])
    return float(low), float(high)


def _write_csv(path: Path, figures: Mapping[str, Figures]) -> None:
    rows: list[dict[str, Any]] = [{"speaker": name} | of for name, of in figures.items()]
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
