"""What can be done with a finished run: score it again, let it speak; and what can be asked of a base or of its data."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from safetensors.torch import save_file

from ttsadapt.adapters import merged
from ttsadapt.analysis.layers import shared
from ttsadapt.analysis.ranking import Settings
from ttsadapt.analysis.told import picture, table
from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly, Run, restore
from ttsadapt.backbones.base import Request
from ttsadapt.backbones.knobs import decoding
from ttsadapt.choice import scored_weights
from ttsadapt.config.base import read_config, untuned_config
from ttsadapt.config.identity import run_folder
from ttsadapt.config.overrides import put_onto
from ttsadapt.data.audio import save
from ttsadapt.errors import ConfigError, UserError
from ttsadapt.evaluation import told
from ttsadapt.files import read_json, write_json
from ttsadapt.learner import Learner
from ttsadapt.metrics.available import assembled
from ttsadapt.metrics.rows import read_scores
from ttsadapt.run import build_learner, look
from ttsadapt.scoring import judge_needs, score_run
from ttsadapt.trainer import device_of


def restored(folder: Path, device: torch.device | str = "cpu") -> tuple[Assembly, Learner]:
    """A run's tuned model, from its folder alone, on the `device`."""
    assembly = Assembly(read_config(folder))
    ensure(*assembly.corpora)
    ensure(*assembly.needs())
    return assembly, _tuned(assembly, folder).to(device)


def _tuned(assembly: Assembly, folder: Path) -> Learner:
    learner, claims = build_learner(assembly)
    if claims:
        chosen = scored_weights(assembly.cfg, folder)
        learner.load_state_dict(learner.completed(restore(chosen), str(chosen)))
    return learner.eval()


def leave(run: Path, place: Path) -> None:
    """What others go on from, into `place`: model.safetensors, adapters merged in, and frontend.pt with every voice enrolled so far."""
    assembly = Assembly(read_config(run))
    ensure(*assembly.corpora)
    ensure(*assembly.needs())
    before = set(assembly.base.backbone.state_dict())
    learner = _tuned(assembly, run)
    refuse_unmerged(learner, before)
    save_file({n: t.cpu().contiguous().clone() for n, t in merged(learner.backbone).items()}, place / "model.safetensors")
    torch.save(assembly.base.frontend.state(), place / "frontend.pt")


def refuse_unmerged(learner: Learner, before: Collection[str]) -> None:
    """ConfigError when the tuned model is more than new values of the weights called `before`: another stage cannot go on from it.

    That is a strategy with weights of its own, or one whose modules `adapters.merged` cannot take back into the layers.
    """
    names = list(learner.strategies)
    own = [n for n, strategy in learner.strategies.items() if any(True for _ in strategy.parameters())]
    try:
        added = sorted(set(merged(learner.backbone)) ^ set(before))
    except UserError as error:
        raise ConfigError(f"strategy=[{','.join(names)}] cannot be merged ({error}): only the last stage may use it") from error
    if own or added:
        what = f"{own[0]} has weights of its own" if own else f"{added[0]} is no weight of the base"
        raise ConfigError(f"strategy=[{','.join(names)}] cannot be merged ({what}): only the last stage may use it, or take full or lora")


def evaluate(cfg: DictConfig, folder: Path, asked: Sequence[str]) -> None:
    """Speak and score a run's test sentences again: with its own metrics and sets, or with those that were `asked` for.

    Scores of sets and by metrics that are not scored again stay.
    """
    before = [] if not (folder / "scores.csv").is_file() else read_scores(folder / "scores.csv")
    assembly, learner = restored(folder, device_of(cfg.trainer.accelerator, cfg.trainer.devices))
    for group in ("evaluation", "metric"):
        put_onto(assembly.cfg, cfg, asked, group)
    metrics = assembled(assembly.cfg.metric)
    if not metrics:
        raise ConfigError(f"metric=[{','.join(assembly.cfg.metric)}]: none of them can be computed on this machine")
    ensure(*judge_needs(assembly, metrics))
    tuned = any(p.requires_grad for p in learner.parameters()) and assembly.pretrained
    untuned = Run(untuned_config(assembly.cfg), first=assembly.needs()) if tuned else None
    summary = read_json(folder / "summary.json")
    scored = score_run(assembly, learner, metrics, folder, untuned, before)
    kept = {"judges": summary.get("judges", {}) | scored["judges"], "compares": sorted({*summary.get("compares", ()), *scored["compares"]})}
    summary |= scored | kept
    write_json(folder / "summary.json", summary)
    print(told(summary, folder))


def synthesize(cfg: DictConfig, folder: Path) -> None:
    """Speak `text` with the voice and emotion asked for."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    assembly, learner = restored(folder, device_of(cfg.accelerator))
    learned = assembly.utterances(f"{assembly.learnt}.train")
    voice = next((u for u in learned if cfg.speaker in (None, u.speaker)), None)
    voices = {u.speaker: u for name in assembly.names() for u in assembly.utterances(name)}
    voice = voice or voices.get(cfg.speaker)
    if voice is None:
        raise UserError(f"speaker={cfg.speaker}: the run's data has {', '.join(sorted(voices))}")
    asked = replace(voice, id="spoken", text=cfg.text, emotion=cfg.emotion, language=cfg.language, phones=(), context=())
    request: Request = replace(learner.backbone.frontend.request(asked), seed=cfg.seed)
    with decoding(learner.backbone, {name: value for name, value in cfg.decoding.items() if value is not None}):
        (wave,) = learner.backbone.synthesize([request])
    save(Path(cfg.out), wave, learner.backbone.sample_rate)
    print(f"{cfg.out}: {len(wave) / learner.backbone.sample_rate:.2f} s in the voice {voice.speaker}, {cfg.emotion}")


def export(cfg: DictConfig, folder: Path) -> None:
    """Write the tuned model as its authors' code reads it."""
    _, learner = restored(folder)
    learner.backbone.save_official(Path(cfg.to).expanduser())
    print(f"{cfg.to}: {type(learner.backbone).__name__} of {folder}, adapters merged in")


def rank_blocks(cfg: DictConfig, settings: Settings) -> None:
    """Rank the base's blocks by what they know of emotion and speaker: the analysis that strategies choose from, for every group.

    Leaves layers.json and layers.png. UserError when no group can be ranked.
    """
    assembly = Assembly(cfg)
    ensure(*assembly.needs())
    seen, backbone = look(assembly, "analyze"), assembly.base.backbone
    groups = list(backbone.blocks) if settings.group is None else [settings.group]
    rankings = [shared(backbone, seen.source, replace(settings, group=group), seen.cache, cfg.seed) for group in groups]
    folder = run_folder(cfg)
    for ranking in rankings:
        if ranking.refusal() is None:
            ranking.chosen = list(dict.fromkeys([ranking.order()[0], ranking.order()[-1]]))
        print(f"{table(ranking)}\n")
    entries = [ranking.to_dict() for ranking in rankings]
    write_json(folder / "layers.json", entries if len(entries) > 1 else entries[0])
    picture(rankings, folder / "layers.png")
    print(f"* the highest and the lowest; written to {folder / 'layers.json'} and layers.png")
    if all(ranking.refusal() for ranking in rankings):
        raise UserError(str(rankings[-1].refusal()))
