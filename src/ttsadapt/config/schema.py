"""What a composed config may hold: dataclasses for the top, the signature of its `_target_` for every node below.

Arguments without a default that the yaml leaves out are errors when a yaml could give them (int, str, list ...). Others (a
backbone, parameters; the identity of a run for its loggers) are handed over by the code that instantiates the node, as is everything that
a node with `_partial_: true` leaves out. Nothing is imported to check a config: `signatures` reads source text.
"""

import ast
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ttsadapt.config.nearest import hint
from ttsadapt.config.signatures import Parameter, Signature, constructor, is_dataclass, locate, module_file, read_module, resolve, signature
from ttsadapt.config.values import accepts, is_plain, spelt
from ttsadapt.errors import ConfigError

_HANDED_OVER = {"folder", "run_id", "study", "config"}
_RESERVED = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}

Positive = Annotated[int, "> 0"]
Node = dict[str, Any]


@dataclass
class Evaluation:
    sets: list[str]
    limit: Positive | None
    """utterances of a set; None: all"""
    seeds: list[int]
    """each sentence is spoken with all of them"""


@dataclass
class Only:
    """Of the target: what a run learns and is tested on. None: all."""

    speaker: list[str] | None
    emotion: list[str] | None
    language: list[str] | None


@dataclass
class Validation:
    metric: list[str]
    """names of metrics that listen to what the model says during training"""
    sentences: Positive
    """of each set"""
    sets: list[Literal["target", "source"]]
    every: Positive
    """validations"""
    seed: Annotated[int, ">= 0"]


@dataclass
class Choice:
    """Of the weights that a run is scored with."""

    monitor: str
    mode: Literal["auto", "min", "max"]
    score: Literal["last", "best"]
    patience: Positive | None
    """validations without a better value, until training stops"""


@dataclass
class Paths:
    outputs: str
    cache: str


@dataclass
class Trainer:
    max_steps: Positive | None
    """optimiser steps; None: as many as max_epochs has"""
    max_epochs: Positive | None
    val_every: Positive
    """optimiser steps"""
    checkpoint_every: Positive
    """optimiser steps"""
    log_every: Positive
    """optimiser steps"""
    gradient_clip: Annotated[float, "> 0"] | None
    accumulate: Positive
    accelerator: str
    devices: Positive | Literal["auto"] | list[int]
    strategy: str
    precision: Literal[16, 32, 64, "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true", "16", "32", "64"]
    compile: bool
    gradient_checkpointing: bool
    threads: Positive | None
    """of the CPU; None: all that the environment gives"""
    progress: bool


@dataclass
class TrainConfig:
    study: str
    seed: Annotated[int, ">= 0"]
    base: str | None
    train_on: Literal["target", "source"]
    only: Only
    remember: list[Literal["source", "stages"]]
    """what strategies see as the source: what must not be forgotten"""
    stages: list[Node]
    previous: Node | None
    """the whole config of the stage before, whose outcome is the base"""
    batch_frames: Positive
    """frames of an optimiser step, over all ranks and accumulated batches"""
    resume: bool
    report: bool
    evaluation: Evaluation
    validation: Validation
    checkpoint: Choice
    paths: Paths
    trainer: Trainer
    backbone: Node
    data: Node
    strategy: dict[str, Node]
    metric: dict[str, Node]
    optimizer: Node
    scheduler: Node
    logger: dict[str, Node]
    prefix: Node | None
    """keeps what frozen first blocks put out; None: nothing is kept"""


@dataclass
class EvaluateConfig(TrainConfig):
    run: str | None
    """a run folder, or <study>/<run id>; None: the run that `ttsadapt train` makes of the same config"""
    wavs: str | None
    """recordings to score without a run: a folder, or one file"""
    text: str | None
    """of one file"""
    speaker: str | None
    references: str | None
    emotion: str | None
    language: str
    scores_to: str | None


@dataclass
class CompareConfig:
    runs: list[str]
    """two: is the second better than the first?"""
    metrics: list[str]
    set: str
    draws: Positive
    to: str | None
    paths: Paths


@dataclass
class DecodeConfig(TrainConfig):
    run: str | None
    """a run folder, or <study>/<run id>; None: the run that `ttsadapt train` makes of the same config"""
    decoding: Node
    """numbers or lists of numbers by setting; None: as the run's backbone says"""
    sentences: str
    """<set>.<split>"""
    limit: Positive | None
    seeds: Positive


@dataclass
class AnalyzeConfig(TrainConfig):
    analysis: Node


@dataclass
class PrepareConfig:
    data: Node
    paths: Paths


@dataclass
class SynthesizeConfig:
    run: str
    text: str
    speaker: str | None
    emotion: str
    language: str
    seed: Annotated[int, ">= 0"]
    out: str
    paths: Paths
    accelerator: str
    threads: Positive | None
    decoding: Node
    """numbers by setting; None: as the run's backbone says"""


@dataclass
class ExportConfig:
    run: str
    to: str
    paths: Paths


@dataclass
class ReportConfig:
    study: str
    page: Node | None
    """a listening test; None: the report"""
    results: str | list[str] | None
    """files and folders of answers to it"""
    paths: Paths


@dataclass
class BenchConfig:
    bench: Node
    pairs: Positive
    memory: bool
    threads: Positive | None
    paths: Paths


SCHEMAS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "compare": CompareConfig,
    "decode": DecodeConfig,
    "analyze": AnalyzeConfig,
    "prepare": PrepareConfig,
    "synthesize": SynthesizeConfig,
    "export": ExportConfig,
    "report": ReportConfig,
    "bench": BenchConfig,
}


def check(cfg: DictConfig, command: str = "train") -> None:
    """Raise ConfigError, naming key, value and what is wanted, for the first thing that is wrong."""
    schema = signature(f"{__name__}.{SCHEMAS[command].__name__}")
    assert schema is not None
    _check_arguments({str(k): _plain(cfg, str(k)) for k in cfg if k != "hydra"}, schema, "")
    if cfg.get("stages"):
        from ttsadapt.config.stages import check_stages

        check_stages(cfg)


def _plain(cfg: DictConfig, key: str) -> Any:
    """The value under `key` as plain containers, interpolations resolved where they stand."""
    try:
        value = cfg[key]
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value
    except MissingMandatoryValue as error:
        name = error.full_key or key
        raise ConfigError(f"{name} has no value: add {name}=...") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or key}: {str(error).splitlines()[0]}") from error


def _check_arguments(node: Node, taken: Signature, where: str) -> None:
    arguments = {k: v for k, v in node.items() if k not in _RESERVED}
    for name, value in arguments.items():
        if name in taken.parameters:
            _check_value(value, taken.parameters[name], where + name)
        elif not taken.open:
            raise ConfigError(f"{where}{name} is not a key{_of(node)}{hint(name, taken.parameters)}")
        else:
            _check_nested(value, where + name)
    given = len(node.get("_args_", ()))
    for parameter in list(taken.parameters.values())[given:]:
        spared = parameter.name in _HANDED_OVER if "_target_" in node else False
        missing = parameter.required and parameter.name not in arguments and not spared and not node.get("_partial_")
        if missing and is_plain(parameter.annotation, parameter.module):
            raise ConfigError(f"{where}{parameter.name} is missing{_of(node)}: {where}{parameter.name}=<{_text(parameter)}>")


def _check_value(value: Any, parameter: Parameter, key: str) -> None:
    if not accepts(value, parameter.annotation, parameter.module):
        shown = "null" if value is None else repr(value)
        listed = f": write {key}=[{value}]" if value is not None and accepts([value], parameter.annotation, parameter.module) else ""
        raise ConfigError(f"{key}={shown} does not fit: {_text(parameter)} is wanted{listed}")
    nested = parameter.annotation and resolve(parameter.module, parameter.annotation)
    if isinstance(value, dict) and "_target_" not in value and nested and is_dataclass(nested.node):
        assert isinstance(nested.node, ast.ClassDef)
        _check_arguments(value, constructor(nested.module, nested.node), key + ".")
    else:
        _check_nested(value, key)


def _check_nested(value: Any, key: str) -> None:
    """Whatever has a `_target_`, however deep."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            _check_nested(item, f"{key}.{i}")
    elif isinstance(value, dict) and "_target_" in value:
        _check_target(value, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_nested(item, f"{key}.{name}")


def _check_target(node: Node, key: str) -> None:
    target = node["_target_"]
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(f"{key}._target_={target!r} does not fit: a dotted name such as package.module.Class is wanted")
    if module_file(target.split(".")[0]) is None:
        raise ConfigError(f"{key}._target_={target}: {target.split('.')[0]} is not installed or not a package")
    taken = signature(target)
    if taken is not None:
        _check_arguments(node, taken, key + ".")
    elif target.startswith("ttsadapt."):
        raise ConfigError(f"{key}._target_={target} does not exist{_nearby(target)}")
    else:
        _check_nested({k: v for k, v in node.items() if k not in _RESERVED}, key)


def _nearby(target: str) -> str:
    owner, _, name = target.rpartition(".")
    module, found = read_module(owner), locate(owner)
    if module is not None:
        return hint(name, module.definitions)
    if found is not None and isinstance(found.node, ast.ClassDef):
        return hint(name, [s.name for s in found.node.body if isinstance(s, ast.FunctionDef)])
    return f": there is no module {owner}"


def _of(node: Node) -> str:
    return f" of {node['_target_'].rpartition('.')[2]}" if "_target_" in node else ""


def _text(parameter: Parameter) -> str:
    """The annotation as a user may read it."""
    return spelt(parameter.annotation, parameter.module) if parameter.annotation is not None else "a value"
