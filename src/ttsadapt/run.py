"""One run from its config to its summary: skip if done, train or resume, speak, score, write down what happened."""

import os
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save

from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly, Run, run_lock
from ttsadapt.callbacks.samples import Samples
from ttsadapt.choice import checkpoints_of, choose, direction, listen, listeners, refuse_best_of_none, refuse_unknown_monitor
from ttsadapt.config.base import untuned_config, write_config
from ttsadapt.config.identity import code_hash, run_folder, run_id, status
from ttsadapt.data.features import FeatureSet
from ttsadapt.data.module import AdaptationData
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.evaluation import told
from ttsadapt.files import digest, replacing, write_json
from ttsadapt.learner import Learner, adapt, idle
from ttsadapt.loggers.base import RunLogger, Used
from ttsadapt.metrics.available import assembled
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.provenance import Stopwatch, provenance
from ttsadapt.scoring import judge_needs, refuse_unknown_sets, score_run
from ttsadapt.stopping import last_words
from ttsadapt.strategies.base import Mix, Strategy, Study, generator
from ttsadapt.trainer import build_loggers, build_trainer, device_of, refuse_hardware
from ttsadapt.where.clash import refuse_certain_clashes

_LOOKED_AT = 100
"""utterances; what they have, the others mostly have too, and reading all phones of a large corpus takes its time"""


def is_main() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


def name_of(cfg: DictConfig) -> str:
    """How a table calls this run: the strategies it combines."""
    return "+".join(sorted(cfg.strategy)) or "base"


def train(cfg: DictConfig, locked: bool = False) -> float | None:
    """Run to the end, from wherever an earlier attempt stopped; a finished run returns at once.

    `locked`: the process that asked for this one holds the run's lock.
    """
    refuse_impossible(cfg)  # before there is a folder: what can never run leaves nothing behind
    direction(cfg, listeners(cfg))
    folder = run_folder(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    if not is_main():
        return _train(cfg, folder)
    with nullcontext() if locked else run_lock(folder):
        if status(folder) == "finished":
            print(f"{name_of(cfg)}: already finished in {folder}")
            return None
        try:
            return _train(cfg, folder)
        except BaseException as error:
            head = {"run_id": run_id(cfg), "study": cfg.study, "name": name_of(cfg)}
            write_json(folder / "summary.json", head | last_words(error))
            raise


def refuse_impossible(cfg: DictConfig) -> None:
    """ConfigError when this machine cannot train so, no strategy can train anything, or one is sure to train what another keeps."""
    if cfg.strategy:
        refuse_hardware(cfg)
    strategies = {name: instantiate(node) for name, node in sorted(cfg.strategy.items())}
    if strategies and not any(s.claims for s in strategies.values()):
        raise ConfigError(idle(strategies))
    refuse_certain_clashes(strategies)


def prepare_data(assembly: Assembly, metrics: Mapping[str, UtteranceMetric], ears: Mapping[str, UtteranceMetric]) -> None:
    """The corpora; and everything that can be told from them to go wrong hours later is refused now."""
    cfg = assembly.cfg
    ensure(assembly.corpus)
    if cfg.strategy:
        refuse_unusable(assembly)
    ensure(*assembly.corpora)
    if "source.test" in assembly.names() and "source.test" not in assembly.corpus.names() and is_main():
        print(f"source: {assembly.corpus.name} has none, so it is what the base was pretrained on ({assembly.before.name})", flush=True)
    if metrics:
        refuse_unknown_sets(assembly)
    if cfg.strategy:
        refuse_best_of_none(cfg, ears, valid_sets(assembly))


def refuse_unusable(assembly: Assembly) -> None:
    """DataError when the backbone cannot learn from these recordings: seen in the first of them, before a base or its data are made."""
    if (name := f"{assembly.learnt}.train") in assembly.corpus.names():
        assembly.frontend.refuse(assembly.corpus.utterances(name)[:_LOOKED_AT])


def _train(cfg: DictConfig, folder: Path) -> float | None:
    _prepare_process(cfg)
    write_config(cfg, folder)
    assembly = Assembly(cfg)
    metrics = assembled(cfg.metric)
    ears = listeners(cfg) if cfg.strategy else {}
    prepare_data(assembly, metrics, ears)
    ensure(*assembly.needs(), *judge_needs(assembly, metrics), *judge_needs(assembly, ears))
    learner, claims = build_learner(assembly)
    if claims and not assembly.pretrained and set(cfg.strategy) != {"full"} and is_main():
        print("base=null: the weights are drawn at random, so there is nothing to preserve and no floor to compare with", flush=True)
    stopwatch, trainer, chosen = Stopwatch(), None, {}
    if claims:
        data = build_data(assembly, learner)
        listening = listen(assembly, ears, valid_sets(assembly))
        refuse_unknown_monitor(assembly, learner.backbone, valid_sets(assembly), listening)
        checkpoints = checkpoints_of(cfg, folder, listening)
        loggers = build_loggers(cfg, folder, run_id(cfg), name_of(cfg), learner.base_hash)
        heard = Samples(assembly.utterances(f"{assembly.learnt}.valid")[:2])
        kept = [instantiate(cfg.prefix)] if cfg.get("prefix") else []
        trainer = build_trainer(cfg, folder, loggers, [stopwatch, heard, *kept, *([listening] if listening else [])], checkpoints)
        last = folder / "checkpoints" / "last.ckpt"
        try:
            trainer.fit(learner, data, ckpt_path=str(last) if cfg.resume and last.is_file() else None, weights_only=True)
        except BaseException:
            getattr(trainer.strategy.launcher, "kill", lambda number: None)(signal.SIGKILL)  # the other ranks
            for logger in loggers:
                logger.finish(failed=True)
            raise
        stopwatch.steps = trainer.global_step  # not in a hook: a run that was killed after its last step trains nothing more
        if not is_main():
            return None
        chosen = choose(cfg, learner, checkpoints)
        _keep(learner, assembly, folder)
    # The training graph is gone: what follows looks at the tuned model only.
    wanted = cfg.trainer
    learner.eval().to(device_of(wanted.accelerator, wanted.devices) if trainer is None else trainer.strategy.root_device)
    untuned = Run(untuned_config(cfg), first=assembly.needs()) if claims and assembly.pretrained and metrics else None
    scored = score_run(assembly, learner, metrics, folder, untuned)
    summary = summarise(cfg, learner, stopwatch) | chosen | scored
    write_json(folder / "provenance.json", provenance(cfg, learner.base_hash, assembly.corpus.folder.name, stopwatch))
    if trainer is not None:
        uses = [Used(f"base-{learner.base_hash}", "base", learner.base_hash)] if learner.base_hash else []
        _tell(trainer, folder, summary, [*uses, Used(assembly.corpus.folder.name, "corpus", assembly.corpus.folder.name)])
    write_json(folder / "summary.json", summary)
    print(told(summary, folder))
    return None


def _prepare_process(cfg: DictConfig) -> None:
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    L.seed_everything(cfg.seed, workers=True, verbose=False)


def build_learner(assembly: Assembly) -> tuple[Learner, list[Any]]:
    """The adapted, still untrained model; no claims when the run asks for no strategy (the untuned model)."""
    cfg, base = assembly.cfg, assembly.base
    strategies: dict[str, Strategy] = {name: instantiate(node) for name, node in sorted(cfg.strategy.items())}
    claims: list[Any] = []
    if strategies:
        claims = adapt(base.backbone, strategies, lambda name: look(assembly, name))
    return learner_of(cfg, assembly, strategies, claims), claims


def learner_of(cfg: DictConfig, assembly: Assembly, strategies: dict[str, Strategy], claims: list[Any]) -> Learner:
    base, valid = assembly.base, tuple(valid_sets(assembly))
    return Learner(base.backbone, strategies, claims, instantiate(cfg.optimizer), instantiate(cfg.scheduler), base.hash, valid)


def look(assembly: Assembly, name: str) -> Study:
    """What the strategy `name` may see, with a generator of its own."""
    cfg = assembly.cfg
    (learnt,) = assembly.features(f"{assembly.learnt}.train")
    source = source_of(assembly)
    past = assembly.remembered
    seen = assembly.chosen("target", past) + ("" if past in ("", "source.train") else f"-{past}")
    cache = assembly.cache / "studies" / f"{assembly.base.hash or _drawn(cfg)}-{assembly.corpus.folder.name}{seen}"
    cache.mkdir(parents=True, exist_ok=True)
    voices = [u for s in assembly.names() if s.endswith(".train") for u in assembly.utterances(s)]
    corpora = tuple(dict.fromkeys((assembly.judged, assembly.corpus.folder, assembly.before.folder)))
    return Study(assembly.base.backbone, source, learnt, cache, cfg.seed, generator(cfg.seed, name), voices, corpora, assembly.cache)


def _drawn(cfg: DictConfig) -> str:
    """Stands for the hash of a base whose weights are drawn at random: they follow from its config and the seed."""
    return f"scratch-{digest([OmegaConf.to_container(cfg.backbone, resolve=True), cfg.seed])}"


def source_of(assembly: Assembly) -> FeatureSet:
    """What must not be forgotten; without any, the first strategy that asks for it is told so."""
    if not assembly.remembered:
        return NoSource()  # type: ignore[return-value]
    return assembly.features(assembly.remembered)[0]


class NoSource:
    """Stands for source data that do not exist: whatever is asked of it is an error of one line."""

    def __getattr__(self, name: str) -> Any:
        raise DataError(
            "a strategy looks at source utterances (csp, ewc and rehearsal do) and the data have none: give data.source, or leave it out "
            "(generative_rehearsal needs none: the base speaks what is rehearsed)"
        )

    def __len__(self) -> int:
        return 0


def valid_sets(assembly: Assembly) -> list[str]:
    return [s for s in ("target", "source") if f"{s}.valid" in assembly.names() and (s == "source" or assembly.learnt == "target")]


def build_data(assembly: Assembly, learner: Learner) -> AdaptationData:
    cfg = assembly.cfg
    (learnt,) = assembly.features(f"{assembly.learnt}.train")
    source = source_of(assembly)
    mixes = [s.mix(learnt, source, generator(cfg.seed, f"mix {n}")) for n, s in learner.strategies.items()]  # type: ignore[operator]
    mix: Mix | None = next((m for m in mixes if m is not None), None)
    sets = valid_sets(assembly)
    valid = dict(zip(sets, assembly.features(*(f"{s}.valid" for s in sets))))
    rehearsed = None if mix is None else mix.source or source
    return AdaptationData(learnt, rehearsed, valid, mix, cfg.batch_frames, cfg.seed, cfg.trainer.accumulate)


def _keep(learner: Learner, assembly: Assembly, folder: Path) -> None:
    """Beyond the checkpoints: adapters and rankings of the strategies; whole weights when this run is a base for others."""
    for strategy in learner.strategies.values():
        strategy.save(learner.backbone, folder)  # type: ignore[operator]
    if not assembly.pretrained:
        place = folder / "checkpoints"
        with replacing(place / "model.safetensors") as temporary:
            temporary.write_bytes(save({n: t.detach().cpu().contiguous().clone() for n, t in learner.backbone.state_dict().items()}))
        with replacing(place / "frontend.pt") as temporary:
            torch.save(assembly.base.frontend.state(), temporary)


def summarise(cfg: DictConfig, learner: Learner, stopwatch: Stopwatch) -> dict[str, Any]:
    """What is known of the run itself. Its name says first what trains, then what is kept: "lora+ewc+kd"."""
    how = [n for n, s in learner.strategies.items() if any(True for _ in (*s.trainable(learner.backbone), *s.parameters()))]  # type: ignore[operator]
    names = how + [n for n in learner.strategies if n not in how]
    trained = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    total = sum(p.numel() for p in learner.backbone.parameters())
    return {
        "status": "finished", "run_id": run_id(cfg), "study": cfg.study,
        "name": "+".join(names) or "base", "strategies": names, "how": how,
        "backbone": cfg.backbone._target_.rpartition(".")[2], "seed": cfg.seed, "code": code_hash(),
        "trainable_parameters": trained, "total_parameters": total, "trainable_share": trained / total,
        "steps": stopwatch.steps, "train_seconds": stopwatch.seconds, "steps_per_second": stopwatch.steps / max(stopwatch.seconds, 1e-9),
    }  # fmt: skip


def _tell(trainer: L.Trainer, folder: Path, summary: dict[str, Any], uses: list[Used]) -> None:
    """The loggers that can show it get the final table, some speech and the run's files."""
    from ttsadapt.showing import show

    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            show(logger, folder, summary, uses)
            logger.finish()
