"""From a composed config to objects: corpus, frontend, backbone, features, strategies, learner."""

import hashlib
import inspect
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from ttsadapt.artifacts import Artifact, ensure
from ttsadapt.backbones.base import SOURCE, TARGET, Backbone, Frontend
from ttsadapt.config.app import LAUNCHER
from ttsadapt.config.base import base_config, lineage, write_config
from ttsadapt.config.identity import run_folder, status
from ttsadapt.data import manifest
from ttsadapt.data.features import Features, FeatureSet
from ttsadapt.data.joined import Joined
from ttsadapt.data.ondemand import MANY, OnDemand
from ttsadapt.data.prepare import PreparedCorpus
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError, ConfigError, DataError, UserError
from ttsadapt.files import content_hash, digest
from ttsadapt.stopping import STOPPED, call


class Run(Artifact):
    """A run as something that others need: made by a process of its own when it is not there."""

    def __init__(self, cfg: DictConfig, first: tuple[Artifact, ...] = (), says: str = "") -> None:
        """`says`: what is printed when it starts."""
        self.cfg, self.folder, self.first, self.says = cfg, run_folder(cfg), first, says

    @property
    def done(self) -> bool:
        return status(self.folder) == "finished"

    def needs(self) -> tuple[Artifact, ...]:
        return self.first

    @property
    def lock(self) -> FileLock:
        """The run's own: one that is under way in another process is waited for, not started beside it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return run_lock(self.folder)

    def produce(self) -> None:
        steps = (
            f"pretraining the model in {self.cfg.trainer.max_steps} steps (its codec, if it has one, is fitted before)"
            if self.cfg.strategy
            else "scoring the untuned model"
        )
        print(self.says or f"first, and only once: {steps}, in {self.folder}", flush=True)
        write_config(self.cfg, self.folder)
        alone = os.environ | {LAUNCHER: str(os.getpid())}  # and its own group: however this process is killed, the other one ends
        if code := call([sys.executable, "-m", "ttsadapt.job", str(self.folder)], alone):
            why = "was stopped: the same command goes on from here" if code in STOPPED else "has failed: its message is above"
            raise UserError(f"the run {self.folder} that this one needs {why}")

    def build(self, folder: Path) -> None:
        raise AssertionError("a run fills its own folder")


class Outcome(Artifact):
    """What a finished run leaves to those that go on from it: whole weights, adapters merged in, and the frontend with its voices."""

    def __init__(self, cfg: DictConfig, first: tuple[Artifact, ...] = ()) -> None:
        self.run = Run(cfg, first)
        self.folder = self.run.folder / "outcome"

    def needs(self) -> tuple[Artifact, ...]:
        return (self.run,)

    def build(self, folder: Path) -> None:
        from ttsadapt.finished import leave

        leave(self.run.folder, folder)


def run_lock(folder: Path) -> FileLock:
    """Held by the process that makes the run in `folder`, or by the one that waits for it to be made."""
    return FileLock(folder / ".lock")


class FittedFrontend(Artifact):
    """What a frontend learns from the pretraining data: tables, statistics, codebooks."""

    def __init__(self, cfg: DictConfig, corpus: PreparedCorpus, cache: Path) -> None:
        self.cfg, self.corpus = cfg, corpus
        node = OmegaConf.to_container(cfg.backbone.frontend, resolve=True)
        code = _sources(instantiate(cfg.backbone.frontend))
        self.folder = cache / "frontends" / digest([node, corpus.folder.name, code, cfg.train_on])

    def needs(self) -> tuple[Artifact, ...]:
        return (self.corpus,)

    def build(self, folder: Path) -> None:
        frontend = instantiate(self.cfg.backbone.frontend)
        learnt, names = f"{self.cfg.train_on}.train", self.corpus.names()
        frontend.heard = [u for name in names if name.endswith(".train") and name != learnt for u in self.corpus.utterances(name)]
        frontend.fit(self.corpus.utterances(learnt))
        torch.save(frontend.state(), folder / "frontend.pt")


def _sources(frontend: Frontend) -> str:
    """Hash of the code that makes features: the frontend's, its parts' (codec, text, voices) and what they take from elsewhere."""
    kinds = {kind for part in (frontend, *vars(frontend).values()) for kind in type(part).__mro__}
    names = {n for n in (kind.__module__ for kind in kinds) if n.startswith("ttsadapt.")}
    names |= {found for name in names for found in _imports(name)}
    while more := {found for name in names if name.startswith("ttsadapt.codecs.") for found in _imports(name)} - names:
        names |= more  # a codec is made of others, down to the quantiser
    return digest([inspect.getsource(sys.modules[name]) for name in sorted(names)])


def _imports(name: str) -> set[str]:
    """Names of the ttsadapt modules that a module takes classes and functions from."""
    kinds = (value for value in vars(sys.modules[name]).values() if inspect.isclass(value) or inspect.isfunction(value))
    return {kind.__module__ for kind in kinds if kind.__module__.startswith("ttsadapt.")}


def restore(path: Path) -> dict[str, Any]:
    """A file of plain containers and tensors."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the run was not finished or its folder was moved") from error
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError ... for foreign bytes
        raise CheckpointError(f"{path} is corrupt or was not written by ttsadapt: delete the folder and run again") from error


@dataclass
class Base:
    """A pretrained model and where it comes from."""

    frontend: Frontend
    backbone: Backbone
    hash: str
    """of its weights, or of the released file they came from; empty when training starts from scratch"""


class Assembly:
    """Everything one run is made of, each part built when it is first asked for."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg, self.cache = cfg, Path(cfg.paths.cache)
        self.corpus = PreparedCorpus(instantiate(cfg.data), self.cache, cfg.get("only"))
        self.base_cfg = base_config(cfg)
        runs = list(lineage(cfg))
        # Where the run's own data have no source, what must not be forgotten is what the first base was trained on.
        self.before = self._corpus(runs[-1][0]).part(None) if runs and runs[-1][0].data != cfg.data else self.corpus
        self.earlier = [self._corpus(run) for run, stage in reversed(runs) if stage and run.train_on == "target"]
        """what the stages before have learnt, the first one first"""

    def _corpus(self, cfg: DictConfig) -> PreparedCorpus:
        if cfg.data == self.cfg.data:
            return self.corpus.part(cfg.get("only"))
        return PreparedCorpus(instantiate(cfg.data), self.cache, cfg.get("only"))

    @property
    def corpora(self) -> tuple[PreparedCorpus, ...]:
        """Its own, that of the first base, those of the stages before."""
        return (self.corpus, self.before, *self.earlier)

    @cached_property
    def judged(self) -> Path:
        """The folder that judges learn from: its own recordings, and those of the first base where a set is spoken that only that has.

        A recogniser of one voice's few minutes would have no say on the sentences that must not be forgotten. Prepares the corpora.
        """
        ensure(self.corpus, self.before)
        known = set(self.names())
        parts = {name: corpus.folder for corpus in (self.before, self.corpus) for name in manifest.names(corpus.folder) if name in known}
        if set(parts.values()) == {self.corpus.folder}:
            return self.corpus.folder
        joined = Joined(parts, self.cache)
        ensure(joined)
        return joined.folder

    def needs(self) -> tuple[Artifact, ...]:
        """What must exist before training can start."""
        if self.base_cfg is None:
            return (self.corpus, FittedFrontend(self.cfg, self.corpus, self.cache))
        kind = Run if self.cfg.get("previous") is None else Outcome
        return (*self.corpora, kind(self.base_cfg, first=self.corpora[1:]))

    @property
    def released(self) -> str | None:
        """The checkpoint that the backbone is loaded from by its own config; then it needs no run that pretrains it."""
        return self.cfg.backbone.get("path")

    @property
    def pretrained(self) -> bool:
        return self.base_cfg is not None or self.released is not None

    @cached_property
    def frontend(self) -> Frontend:
        """As it is configured; what it has learnt is restored with the base."""
        made: Frontend = instantiate(self.cfg.backbone.frontend)
        return made

    @cached_property
    def base(self) -> Base:
        place, frontend = self._place(), self.frontend
        frontend.restore(restore(place / "frontend.pt"))
        frontend.enroll([u for name in self.names() if name.endswith(".train") for u in self.utterances(name)])
        torch.manual_seed(self.cfg.seed)
        node = {k: v for k, v in self.cfg.backbone.items() if k != "frontend"}
        backbone: Backbone = instantiate(node, frontend=frontend)
        if self.base_cfg is None:
            return Base(frontend, backbone, content_hash(Path(self.released).expanduser()) if self.released else "")
        weights = place / "model.safetensors"
        try:
            backbone.load_state_dict(load_file(weights))
        except (RuntimeError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{weights} does not fit {type(backbone).__name__} as configured ({str(error).splitlines()[-1].strip()})"
            ) from error
        return Base(frontend, backbone, content_hash(weights))

    def _place(self) -> Path:
        """The folder of the base's weights and frontend."""
        if self.base_cfg is None:
            return FittedFrontend(self.cfg, self.corpus, self.cache).folder
        return Outcome(self.base_cfg).folder if self.cfg.get("previous") is not None else run_folder(self.base_cfg) / "checkpoints"

    def names(self) -> list[str]:
        """Every "<set>.<split>" there is; "stages" are the targets of the stages before."""
        stages = [n.replace("target.", "stages.", 1) for c in self.earlier for n in c.names() if n.startswith("target.")]
        return list(dict.fromkeys([*self.corpus.names(), *(n for n in self.before.names() if not n.startswith("target.")), *stages]))

    def utterances(self, name: str) -> list[Utterance]:
        """Of a set and split such as "target.test", or of several ("source.train+stages.train"); DataError when the data has none."""
        if "+" in name:
            return distinct([self.utterances(part) for part in name.split("+")])
        if name.startswith("stages.") and name in self.names():
            target = name.replace("stages.", "target.", 1)
            return distinct([corpus.utterances(target) for corpus in self.earlier if target in corpus.names()])
        for corpus in (self.corpus, self.before):
            if name in corpus.names() and name in self.names():
                return corpus.utterances(name)
        raise DataError(f"data={self.cfg.data._target_.rpartition('.')[2]} has no {name}: it has {', '.join(self.names())}")

    def features(self, *names: str) -> list[FeatureSet]:
        """Features of sets and splits, computed where they are not cached; those of large sets when they are asked for."""
        frontend = self.base.frontend
        state = digest([_state_key(frontend.state()), self.corpus.folder.name, self.before.folder.name, _sources(frontend)])
        sets = {name: self.utterances(name) for name in names}
        places = {name: self.cache / "features" / f"{state}-{name}{self.chosen(name)}" for name in names}
        ensure(*(Features(places[name], frontend, some, name) for name, some in sets.items() if len(some) <= MANY))
        kinds = {name: FeatureSet if len(some) <= MANY else OnDemand for name, some in sets.items()}
        origins = {name: SOURCE if name.startswith(("source", "stages")) else TARGET for name in names}
        return [kinds[name](places[name], frontend, sets[name], origins[name]) for name in names]

    def chosen(self, *names: str) -> str:
        """What tells the parts of one corpus apart in the names of folders; empty where it is all of it."""
        sets = {part.partition(".")[0] for name in names for part in name.split("+")}
        kept: list[Any] = [self.corpus.only] if self.corpus.only and "target" in sets else []
        if "stages" in sets:
            kept.append([[corpus.folder.name, corpus.only] for corpus in self.earlier])
        return f"-{digest(kept)}" if kept else ""

    @property
    def remembered(self) -> str:
        """The training data that strategies see as the source, for `utterances` and `features`; empty when there are none."""
        names = [f"{kind}.train" for kind in self.cfg.get("remember") or ("source",)]
        return "+".join(n for n in names if n in self.names())

    @property
    def learnt(self) -> str:
        """The set that this run learns."""
        if self.cfg.train_on not in ("target", "source"):
            raise ConfigError(f"train_on={self.cfg.train_on}: target (adaptation) or source (pretraining)")
        return self.cfg.train_on


def distinct(parts: Sequence[Sequence[Utterance]]) -> list[Utterance]:
    """All utterances under ids of their own: one whose name is taken gets the number of its part before it."""
    known: dict[str, Utterance] = {}
    for number, part in enumerate(parts, 1):
        for utterance in part:
            if known.get(utterance.id) == utterance:
                continue  # two stages learn from the same recording
            name = utterance.id if utterance.id not in known else f"{number}-{utterance.id}"
            if name in known:
                raise DataError(f"{utterance.audio}: the id {name!r} is that of {known[name].audio} too: make every id different")
            known[name] = replace(utterance, id=name)
    return list(known.values())


def _state_key(value: Any) -> Any:
    """A frontend's state as something `digest` can take."""
    if isinstance(value, torch.Tensor):
        return hashlib.blake2b(value.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {str(k): _state_key(v) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_state_key(v) for v in value]
    return value
