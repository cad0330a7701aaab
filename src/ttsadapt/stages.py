"""A sequence of stages from its config to its matrix: each stage a run of its own, skipped if done, resumed if killed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly, Run, run_lock
from ttsadapt.config.base import untuned_config
from ttsadapt.config.identity import code_hash, run_folder, run_id, status
from ttsadapt.config.stages import stage_configs, titles
from ttsadapt.errors import ConfigError, UserError
from ttsadapt.evaluation import summarise, told
from ttsadapt.files import read_json, write_json, write_text
from ttsadapt.finished import refuse_unmerged
from ttsadapt.matrix import UNTUNED, Cell, Matrix, Model, Task, columns
from ttsadapt.metrics.rows import Row, utterance_of, write_scores
from ttsadapt.run import build_learner, name_of, refuse_impossible
from ttsadapt.scoring import link
from ttsadapt.stopping import last_words


def follow(cfg: DictConfig) -> None:
    """Every stage in order, then the matrix; from wherever an earlier attempt stopped. A finished sequence returns at once."""
    stages = stage_configs(cfg)
    for number, stage in enumerate(stages, 1):
        try:
            refuse_impossible(stage)
        except ConfigError as error:
            raise ConfigError(f"stages.{number}: {error}") from error
    folder = run_folder(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    with run_lock(folder):
        if status(folder) == "finished":
            print(f"{name(stages)}: already finished in {folder}")
            return
        try:
            _follow(cfg, stages, folder)
        except BaseException as error:
            write_json(folder / "summary.json", _head(cfg, stages) | last_words(error))
            raise


def _follow(cfg: DictConfig, stages: Sequence[DictConfig], folder: Path) -> None:
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    called = titles(cfg)
    for number, stage in enumerate(stages, 1):
        step = f"stage {number} of {len(stages)}: {name_of(stage)} on {called[number - 1]}"
        write_json(folder / "progress.json", {"stage": step})
        learn(stage, step, last=number == len(stages))
    summary = _head(cfg, stages) | _spent(stages)
    if cfg.metric:
        write_json(folder / "progress.json", {"stage": "matrix"})
        summary |= score(stages, called, folder)
    write_json(folder / "provenance.json", _provenance(stages, called))
    write_json(folder / "summary.json", summary | {"status": "finished"})
    print(told(summary, folder))


def name(stages: Sequence[DictConfig]) -> str:
    """Of the strategies in order, those that follow themselves said once: "lora", "full > lora+ewc"."""
    names = [name_of(stage) for stage in stages]
    return " > ".join(n for i, n in enumerate(names) if i == 0 or n != names[i - 1])


def learn(stage: DictConfig, step: str, last: bool) -> None:
    """Train a stage in a process of its own, when it is not finished; before, make sure that another could go on from it."""
    run = Run(stage, says=f"{step}, in {run_folder(stage)}")
    if run.done:
        print(f"{step}: finished already in {run.folder}", flush=True)
        return
    if not last:
        refuse_before(stage)
    try:
        ensure(run)
    except UserError as error:
        raise UserError(f"{step} has failed: its message is above; the same command goes on from here") from error


def refuse_before(stage: DictConfig) -> None:
    """ConfigError when what this stage will train cannot be merged: known before it trains for hours."""
    assembly = Assembly(stage)
    ensure(*assembly.corpora)
    ensure(*assembly.needs())
    before = set(assembly.base.backbone.state_dict())
    refuse_unmerged(build_learner(assembly)[0], before)


def score(stages: Sequence[DictConfig], called: Sequence[str], folder: Path) -> dict[str, Any]:
    """Writes matrix.json, R.csv, scores.csv and wavs/; gives what summary.json says of them.

    scores.csv is as a run's: `target` are the tests of all stages after the last, `base/` is the untuned model.
    """
    runs = [run_folder(stage) for stage in stages]
    matrix = Matrix([_untuned(stages[0]), *(Model(n, c, r) for n, c, r in zip(called, stages, runs))], columns(called, stages, runs))
    found = matrix.summary()
    write_json(folder / "matrix.json", found)
    matrix.write_csv(folder / "R.csv", found)
    rows = _rows(matrix, folder / "wavs")
    write_scores(folder / "scores.csv", rows)
    judges = {k: v for run in runs for k, v in (read_json(run / "summary.json").get("judges") or {}).items()}
    summary = summarise(rows)
    if apart := {m: "; ".join(f["apart"]) for m, f in found["metrics"].items() if f["apart"]}:
        summary["unpaired"]["figure"] = apart
    return summary | {"judges": judges, "figures": {m: f["figures"] | {"lost": f["lost"]} for m, f in found["metrics"].items()}}


def _untuned(first: DictConfig) -> Model:
    cfg = untuned_config(first)
    if not Assembly(first).pretrained:
        return Model(UNTUNED, cfg, None)
    run = Run(cfg, first=Assembly(first).needs())
    ensure(run)
    return Model(UNTUNED, cfg, run.folder)


def _rows(matrix: Matrix, place: Path) -> list[Row]:
    """Last row and first row of the matrix as one run's scores, with their speech below `place`."""
    rows: list[Row] = []
    seen: dict[tuple[str, str], str] = {}
    for i, task in enumerate(matrix.tasks):
        where = "target" if task.learnt else task.set
        taken = {u.id for u in task.sentences if seen.setdefault((where, u.id), task.title) != task.title}
        names = {u.id: f"{task.title}-{u.id}" if u.id in taken else u.id for u in task.sentences}
        parts: list[tuple[str, Cell]] = [(where, matrix.cells[-1][i]), (f"base/{where}", matrix.cells[0][i])]
        parts += [(f"{kind}/{where}", _reference(task, kind)) for kind in ("recordings", "resynthesis")]
        for part, cell in parts:
            clips = {r["utterance"]: _renamed(r, names) for r in cell.rows}
            rows += [r | {"set": part, "utterance": clips[r["utterance"]]} for r in cell.rows]
            for old, new in clips.items():
                if cell.wavs is not None and (wav := cell.wavs / f"{old}.wav").is_file():
                    link(wav, place / part / f"{new}.wav")
    return rows


def _renamed(row: Row, names: dict[str, str]) -> str:
    """The clip's name with another id of its utterance."""
    utterance = utterance_of(row)
    return names[utterance] + row["utterance"][len(utterance) :]


def _reference(task: Task, kind: str) -> Cell:
    return Cell([r for r in task.references if r["set"] == f"{kind}/{task.set}"], task.run / "wavs" / kind / task.set)


def _head(cfg: DictConfig, stages: Sequence[DictConfig]) -> dict[str, Any]:
    strategies = sorted({s for stage in stages for s in stage.strategy})
    return {
        "run_id": run_id(cfg), "study": cfg.study, "name": name(stages), "strategies": strategies,
        "backbone": cfg.backbone._target_.rpartition(".")[2], "seed": cfg.seed, "code": code_hash(),
        "stages": [
            {"name": called, "run": f"{stage.study}/{run_id(stage)}", "strategies": sorted(stage.strategy)}
            for called, stage in zip(titles(cfg), stages)
        ],
    }  # fmt: skip


def _spent(stages: Sequence[DictConfig]) -> dict[str, Any]:
    """Steps and seconds of all stages; the weights of the stage that trains the most."""
    each: list[Mapping[str, Any]] = [read_json(run_folder(stage) / "summary.json") for stage in stages]
    most = max(each, key=lambda s: s["trainable_parameters"])
    total = {key: sum(s[key] for s in each) for key in ("steps", "train_seconds")}
    return {
        **{key: most[key] for key in ("trainable_parameters", "total_parameters", "trainable_share")},
        **total,
        "how": sorted({h for s in each for h in s["how"]}),
        "steps_per_second": total["steps"] / max(total["train_seconds"], 1e-9),
    }


def _provenance(stages: Sequence[DictConfig], called: Sequence[str]) -> dict[str, Any]:
    """That of the first stage's run, and the runs that are behind the sequence. Reports tell sequences apart by what was asked."""
    first = read_json(run_folder(stages[0]) / "provenance.json")
    return first | {"overrides": [f"stages={' > '.join(called)}"], "stages": [run_id(stage) for stage in stages]}
