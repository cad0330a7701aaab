"""Which weights of a run are scored: what is monitored during validation, which way is better, the last weights or the best."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from ttsadapt.assembly import Assembly, restore
from ttsadapt.backbones.base import Backbone
from ttsadapt.backbones.parts import evaluating
from ttsadapt.callbacks.checkpoint import Checkpoints
from ttsadapt.callbacks.listening import Listening
from ttsadapt.callbacks.state import untouched
from ttsadapt.config.base import composed
from ttsadapt.config.nearest import hint
from ttsadapt.errors import ConfigError
from ttsadapt.learner import Learner
from ttsadapt.metrics.available import assembled
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.subset import subset

SIGN: dict[str, Literal["min", "max"]] = {"lower": "min", "higher": "max"}


def listeners(cfg: DictConfig) -> dict[str, UtteranceMetric]:
    """The metrics that `validation.metric` names, with the run's own settings where it has them.

    ConfigError for a name of none, and for one that looks at more than the sound.
    """
    nodes: dict[str, Any] = {}
    for name in (cfg.get("validation") or {}).get("metric") or ():
        nodes |= {name: cfg.metric[name]} if name in cfg.metric else _composed(name)
    metrics = assembled(nodes)
    if unheard := next((name for name, metric in metrics.items() if metric.spoken_only), None):
        raise ConfigError(
            f"validation.metric=[{unheard}] is not heard: it reads what is noted of finished clips; leave it to metric=[{unheard}]"
        )
    return metrics


def _composed(name: str) -> dict[Any, Any]:
    try:
        return dict(composed(f"metric=[{name}]").metric)
    except ConfigError as error:
        raise ConfigError(f"validation.metric=[{name}]: {error}") from error


def direction(cfg: DictConfig, metrics: Mapping[str, UtteranceMetric]) -> Literal["min", "max"]:
    """Which way the monitored value is better. ConfigError when nothing says so."""
    if cfg.checkpoint.mode != "auto":
        return cfg.checkpoint.mode
    metric = metrics.get(cfg.checkpoint.monitor.rpartition("/")[2])
    if metric is None:
        return "min"
    if metric.better not in SIGN:
        raise ConfigError(
            f"checkpoint.monitor={cfg.checkpoint.monitor} is best where it is {metric.better}, neither low nor high: "
            "set checkpoint.mode=min or max, or monitor another"
        )
    return SIGN[metric.better]


def listen(assembly: Assembly, metrics: Mapping[str, UtteranceMetric], sets: Sequence[str]) -> Listening | None:
    """What listens to sentences of the validated `sets`; None when no metric is to."""
    wanted = assembly.cfg.validation
    if not metrics:
        return None
    sentences = {s: subset(assembly.utterances(f"{s}.valid"), wanted.sentences) for s in sets if s in wanted.sets}
    return Listening(sentences, metrics, assembly.judged, assembly.cache, wanted.every, wanted.seed)


def checkpoints_of(cfg: DictConfig, folder: Path, listening: Listening | None) -> Checkpoints:
    wanted, metrics = cfg.checkpoint, listening.metrics if listening else {}
    mode = direction(cfg, metrics)
    return Checkpoints(folder / "checkpoints", cfg.trainer.checkpoint_every, wanted.monitor, mode, wanted.patience, listening)


def refuse_unknown_monitor(assembly: Assembly, backbone: Backbone, sets: Sequence[str], listening: Listening | None) -> None:
    """ConfigError, before anything trains, for a `valid/...` that no validation of this run will log."""
    monitor = assembly.cfg.checkpoint.monitor
    known = [*(f"valid/{s}/loss" for s in sets), *(listening.names if listening else ())]
    if monitor in known or not monitor.startswith("valid/") or not sets:
        return
    (features,) = assembly.features(f"{sets[0]}.valid")
    with untouched(), evaluating(backbone):
        heads = backbone(features.collate(features.ids[:1]))
    known += [f"valid/{s}/{name}" for s in sets for name in heads]
    if monitor not in known:
        name = monitor.rpartition("/")[2]
        scores = f", and what validation.metric=[{name}] would add if it is a metric" if name not in heads else ""
        near = hint(monitor, known)
        raise ConfigError(f"checkpoint.monitor={monitor} is not logged{near}: there are {', '.join(sorted(known))}{scores}")


def refuse_best_of_none(cfg: DictConfig, metrics: Mapping[str, UtteranceMetric], sets: Sequence[str]) -> None:
    """ConfigError for `checkpoint.score=best` when no validation of the run will give the monitored value.

    `metrics` are listened to, `sets` are validated.
    """
    if cfg.checkpoint.score != "best":
        return
    monitor, steps = cfg.checkpoint.monitor, cfg.trainer.max_steps
    if not sets:
        raise ConfigError("checkpoint.score=best: the data have nothing to validate on (no valid split): set checkpoint.score=last")
    heard = cfg.validation.every if monitor.rpartition("/")[2] in metrics else 1
    if steps and cfg.trainer.val_every * heard > steps:
        every = "trainer.val_every * validation.every" if heard > 1 else "trainer.val_every"
        raise ConfigError(
            f"checkpoint.score=best: {monitor} is known every {cfg.trainer.val_every * heard} steps ({every}) "
            f"and trainer.max_steps={steps}: validate more often or set checkpoint.score=last"
        )


def scored_weights(cfg: DictConfig, folder: Path) -> Path:
    """The checkpoint in a run's folder that stands for the run."""
    return folder / "checkpoints" / f"{(cfg.get('checkpoint') or {}).get('score', 'last')}.ckpt"


def choose(cfg: DictConfig, learner: Learner, checkpoints: Checkpoints) -> dict[str, Any]:
    """Put the weights that are to be scored into the `learner`; gives `checkpoint` and `validation` of summary.json."""
    if cfg.checkpoint.score == "best":
        if checkpoints.best is None:
            raise ConfigError(
                f"checkpoint.score=best: no validation has given a finite {checkpoints.monitor}: "
                "validate more often (trainer.val_every, validation.every) or set checkpoint.score=last"
            )
        learner.load_state_dict(learner.completed(restore(checkpoints.best_path), str(checkpoints.best_path)))
    heard = {"validation": checkpoints.listening.summary()} if checkpoints.listening else {}
    if checkpoints.best is not None and (heard or cfg.checkpoint.score == "best"):
        print(f"{checkpoints.told()}; scored are the {cfg.checkpoint.score} weights", flush=True)
    return {"checkpoint": checkpoints.summary() | {"scored": cfg.checkpoint.score}} | heard
