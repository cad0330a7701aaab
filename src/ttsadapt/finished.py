"""What can be done with a finished run: score it again, let it speak; and what can be asked of a base: how its blocks rank."""

from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly, Run, restore
from ttsadapt.backbones.base import Request
from ttsadapt.config.base import untuned_config
from ttsadapt.config.identity import run_folder
from ttsadapt.data.audio import save
from ttsadapt.errors import CheckpointError, UserError
from ttsadapt.files import read_json, write_json
from ttsadapt.learner import Learner
from ttsadapt.run import build_learner, look
from ttsadapt.scoring import judge_needs, score_run
from ttsadapt.text.phones import phonemize


def restored(folder: Path) -> tuple[Assembly, Learner]:
    """A run's tuned model, from its folder alone."""
    if not (folder / "config.yaml").is_file():
        raise CheckpointError(f"{folder} holds no run: give a folder that has a config.yaml, as in outputs/<study>/<run id>")
    cfg = OmegaConf.load(folder / "config.yaml")
    assembly = Assembly(cfg)  # type: ignore[arg-type]
    ensure(*assembly.needs())
    learner, claims = build_learner(assembly)
    if claims:
        last = folder / "checkpoints" / "last.ckpt"
        learner.load_state_dict(learner.completed(restore(last), str(last)))
    return assembly, learner.eval()


def find(cfg: DictConfig) -> Path:
    """The folder that `run=` names: a path, or <study>/<run id> below the outputs."""
    if cfg.run is None:
        return run_folder(cfg)
    for folder in (Path(cfg.run).expanduser(), Path(cfg.paths.outputs) / cfg.run):
        if (folder / "config.yaml").is_file():
            return folder
    runs = sorted(f"{p.parent.parent.name}/{p.parent.name}" for p in Path(cfg.paths.outputs).glob("*/*/summary.json"))
    raise UserError(f"run={cfg.run}: no such run; there are {', '.join(runs[:6]) or 'none'}{' ...' if len(runs) > 6 else ''}")


def evaluate(cfg: DictConfig) -> None:
    """Speak and score the test sentences again, with the metrics and sets of this config."""
    folder = find(cfg)
    assembly, learner = restored(folder)
    assembly.cfg.evaluation, assembly.cfg.metric = cfg.evaluation, cfg.metric
    metrics = {name: instantiate(node) for name, node in cfg.metric.items()}
    ensure(*judge_needs(assembly, metrics))
    tuned = any(p.requires_grad for p in learner.parameters()) and assembly.base_cfg is not None
    untuned = Run(untuned_config(assembly.cfg), first=assembly.needs()) if tuned else None
    summary = read_json(folder / "summary.json") | score_run(assembly, learner, metrics, folder, untuned)
    write_json(folder / "summary.json", summary)
    for name, scores in summary["sets"].items():
        for metric, s in scores.items():
            print(f"{name:24} {metric:20} {s['mean']:8.3f} [{s['low']:.3f}, {s['high']:.3f}] {s['unit']} n={s['n']}")


def synthesize(cfg: DictConfig) -> None:
    """Speak `text` with the voice and emotion asked for."""
    folder = find(cfg)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    assembly, learner = restored(folder)
    learned = assembly.utterances(f"{assembly.learnt}.train")
    voice = next((u for u in learned if cfg.speaker in (None, u.speaker)), None)
    voices = {u.speaker: u for name in assembly.names() for u in assembly.utterances(name)}
    voice = voice or voices.get(cfg.speaker)
    if voice is None:
        raise UserError(f"speaker={cfg.speaker}: the run's data has {', '.join(sorted(voices))}")
    from dataclasses import replace

    phones = phonemize(cfg.text, cfg.language)
    asked = replace(voice, id="spoken", text=cfg.text, emotion=cfg.emotion, language=cfg.language, phones=())
    request: Request = replace(learner.backbone.frontend.request(asked), phones=phones, seed=cfg.seed)
    (wave,) = learner.backbone.synthesize([request])
    save(Path(cfg.out), wave, learner.backbone.sample_rate)
    print(f"{cfg.out}: {len(wave) / learner.backbone.sample_rate:.2f} s in the voice {voice.speaker}, {cfg.emotion}")


def analyze(cfg: DictConfig) -> None:
    """Rank the base's blocks by what they know of emotion and speaker; the analysis that csp would choose from."""
    assembly = Assembly(cfg)
    ensure(*assembly.needs())
    node = cfg.strategy.get("csp")
    strategy = instantiate(node) if node is not None else instantiate({"_target_": "ttsadapt.strategies.csp.CSP"})
    strategy.study(look(assembly, "csp"))
    folder = run_folder(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    strategy.save(assembly.base.backbone, folder)
    ranking = read_json(folder / "layers.json")
    for name, emotion, speaker, mean in zip(ranking["blocks"], ranking["emotion"], ranking["speaker"], ranking["mean"]):
        mark = "*" if name in ranking["chosen"] else " "
        print(f"{mark} {ranking['group']}.{name}: emotion {emotion:.3f}  speaker {speaker:.3f}  mean {mean:.3f}")
    print(f"probes: {ranking['probe']}; written to {folder / 'layers.json'}")
