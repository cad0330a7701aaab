"""Sequences of stages from config to matrix, in this process; each test goes on from what the ones before have trained."""

import csv
import json
from fnmatch import fnmatchcase
from html.parser import HTMLParser

import pytest
import torch
from omegaconf import open_dict
from safetensors.torch import load_file

from ttsadapt.config.identity import run_folder, status
from ttsadapt.config.stages import stage_configs
from ttsadapt.errors import ConfigError, UserError

SEQUENCE = (
    "study=sequence", "strategy=[lora]", "trainer.max_steps=4", "metric=[mcd]", "data.target_voices=2",
    "data.target_train=7", "data.target_valid=2", "data.target_test=2",
)  # fmt: skip
FIRST = "{only.speaker:[shelby]}"
SECOND = "{only.speaker:[Lee],strategy:[full,rehearsal],remember:[source,stages],strategy.full.frozen:[embeddings]}"
THIRD = "{name:calm,only.emotion:[neutral],strategy:[full]}"


@pytest.fixture(scope="module")
def produced():
    """Folders of the runs that were made, in order; made in this process, which spares the start of another for each."""
    from ttsadapt.assembly import Run
    from ttsadapt.run import train

    made = []

    def produce(self):
        made.append(self.folder)
        train(self.cfg, locked=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "produce", produce)
        yield made


@pytest.fixture(scope="module")
def two(mini, produced):
    """A sequence of two stages that was killed between them, and started again."""
    from ttsadapt.assembly import Run
    from ttsadapt.stages import follow

    cfg = mini(*SEQUENCE, f"stages=[{FIRST},{SECOND}]")
    first, second = stage_configs(cfg)
    known = Run.produce

    def killed(self):
        if self.folder == run_folder(second):
            raise KeyboardInterrupt
        known(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "produce", killed)
        with pytest.raises(KeyboardInterrupt):
            follow(cfg)
    assert status(run_folder(first)) == "finished" and status(run_folder(second)) == "missing"
    assert status(run_folder(cfg)) == "stopped"
    at = (run_folder(first) / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    follow(cfg)
    assert (run_folder(first) / "checkpoints" / "last.ckpt").stat().st_mtime_ns == at
    return cfg


def matrix_of(cfg):
    return json.loads((run_folder(cfg) / "matrix.json").read_text())


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_sequence_ends_with_its_matrix(two):
    folder = run_folder(two)
    summary, matrix = json.loads((folder / "summary.json").read_text()), matrix_of(two)
    assert summary["status"] == "finished" and summary["name"] == "lora > full+rehearsal" and summary["steps"] == 8
    assert [s["name"] for s in summary["stages"]] == ["shelby", "Lee"]
    assert matrix["rows"] == ["untuned", "shelby", "Lee"] and matrix["tasks"] == ["shelby", "Lee"] and matrix["beside"] == ["source"]
    found = matrix["metrics"]["mcd"]
    assert [[cell["n"] for cell in line] for line in found["R"]] == [[2, 2, 4]] * 3
    r = [[-cell["mean"] for cell in line] for line in found["R"]]  # an error: lower is better
    figures = {name: value["mean"] for name, value in found["figures"].items()}
    assert figures["average"] == pytest.approx((r[2][0] + r[2][1]) / 2)
    assert figures["backward_transfer"] == pytest.approx(r[2][0] - r[1][0]) == pytest.approx(-figures["forgetting"])
    assert figures["forward_transfer"] == pytest.approx(r[1][1] - r[0][1])
    assert found["lost"]["source"]["mean"] == pytest.approx(r[0][2] - r[2][2])
    table = rows(folder / "R.csv")
    assert len(table) == 9 and float(table[-1]["mean"]) == pytest.approx(-r[2][2]) and table[-1]["after"] == "Lee"


def test_its_scores_are_those_of_a_run_that_learnt_both(two):
    folder = run_folder(two)
    summary, table = json.loads((folder / "summary.json").read_text()), rows(folder / "scores.csv")
    said = [r for r in table if r["set"] == "target"]
    assert sorted({r["speaker"] for r in said}) == ["Lee", "shelby"] and len(said) == 4
    line = matrix_of(two)["metrics"]["mcd"]["R"]
    assert summary["sets"]["target"]["mcd"]["mean"] == pytest.approx((line[2][0]["mean"] + line[2][1]["mean"]) / 2)
    assert summary["forgetting"]["mcd"]["mean"] == pytest.approx(line[2][2]["mean"] - line[0][2]["mean"])
    assert len(list((folder / "wavs" / "target").glob("*.wav"))) == len(list((folder / "wavs" / "base" / "target").glob("*.wav"))) == 4


def test_a_stage_starts_from_the_merged_model_before_it(two):
    from ttsadapt.assembly import Assembly
    from ttsadapt.finished import restored

    first, second = stage_configs(two)
    _, tuned = restored(run_folder(first))
    after = Assembly(second)
    (features,) = after.features("target.valid")
    batch = features.collate(features.ids)
    with torch.no_grad():
        ours, theirs = tuned.backbone(batch), after.base.backbone.eval()(batch)
        bare = Assembly(first).base.backbone.eval()(batch)
    assert torch.allclose(ours["mel"].value, theirs["mel"].value, atol=1e-5)
    assert (bare["mel"].value - theirs["mel"].value).abs().max() > 1e-4, "the first stage has changed nothing"


def test_what_is_frozen_is_what_the_stage_before_left(two):
    from ttsadapt.backbones.fastspeech2 import FastSpeech2

    first, second = map(run_folder, stage_configs(two))
    before = load_file(first / "outcome" / "model.safetensors")
    after = torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    names = {n.removeprefix("backbone.") for n in after}
    frozen = {n for n in before if any(fnmatchcase(n, glob) for glob in FastSpeech2.components["embeddings"])}
    assert "mel_linear.weight" in names and len(frozen) >= 4 and not frozen & names
    assert (before["mel_linear.weight"] - after["backbone.mel_linear.weight"]).abs().max() > 0


def test_voices_stay_known_and_keep_their_vectors(two, mini, produced):
    """As when a corpus of one's own is brought in for each stage: the base has heard of neither voice."""
    from hydra.utils import instantiate

    from ttsadapt.artifacts import ensure
    from ttsadapt.assembly import Assembly, Outcome, restore

    first, second = stage_configs(two)
    ensure(Outcome(second))
    left = [restore(Outcome(stage).folder / "frontend.pt") for stage in (first, second)]
    state = restore(Assembly(first)._place() / "frontend.pt")
    state["speakers"] = source = {n: v for n, v in state["speakers"].items() if n not in ("shelby", "Lee")}
    tables = [dict(source)]
    for stage in (first, second):
        frontend = instantiate(stage.backbone.frontend)
        frontend.restore(state)
        frontend.enroll(Assembly(stage).utterances("target.train"))
        state = frontend.state()
        tables.append(dict(state["speakers"]))
    assert [len(t) - len(source) for t in tables] == [0, 1, 2] and set(tables[2]) - set(tables[1]) == {"Lee"}
    for table in tables[:2]:
        assert all(torch.equal(vector, tables[2][name]) for name, vector in table.items())
    assert all(torch.equal(vector, tables[2][name]) for name, vector in left[1]["speakers"].items() if name in tables[2])
    assert {"shelby", "Lee"} <= left[1]["speakers"].keys() and "shelby" in left[0]["speakers"]


def test_a_later_stage_rehearses_the_source_and_the_stages_before(two):
    from ttsadapt.assembly import Assembly
    from ttsadapt.backbones.base import SOURCE
    from ttsadapt.run import source_of

    first, second = map(Assembly, stage_configs(two))
    assert first.remembered == "source.train" and second.remembered == "source.train+stages.train"
    seen, own = source_of(second), {u.id for u in first.utterances("target.train")}
    assert set(seen.ids) == own | {u.id for u in second.utterances("source.train")} and len(own) == 7 and seen.origin == SOURCE
    assert {u.speaker for u in second.utterances("target.train")} == {"Lee"}


def test_a_longer_sequence_trains_only_what_is_new(two, mini, produced, capsys):
    from ttsadapt.stages import follow

    cfg = mini(*SEQUENCE, f"stages=[{FIRST},{SECOND},{THIRD}]")
    before = len(produced)
    follow(cfg)
    third = stage_configs(cfg)[2]
    assert produced[before:][0] == run_folder(third) and len(produced) == before + 2  # it, and the model before it on its sentences
    said = capsys.readouterr().out
    assert "stage 1 of 3: lora on shelby: finished already" in said and "stage 2 of 3: full+rehearsal on Lee: finished already" in said
    matrix, shorter = matrix_of(cfg)["metrics"]["mcd"], matrix_of(two)["metrics"]["mcd"]
    assert [len(line) for line in matrix["R"]] == [4] * 4
    assert [line[:2] for line in matrix["R"][:3]] == [line[:2] for line in shorter["R"]]
    r = [[-cell["mean"] for cell in line] for line in matrix["R"]]
    assert matrix["figures"]["forgetting"]["mean"] == pytest.approx((max(r[1][0], r[2][0]) - r[3][0] + max(r[1][1], r[2][1]) - r[3][1]) / 2)
    follow(cfg)
    assert "already finished" in capsys.readouterr().out and len(produced) == before + 2


def test_what_cannot_be_merged_may_only_come_last(two, mini, produced):
    from ttsadapt.stages import follow

    shift = "{only.speaker:[Lee],strategy:[full],strategy.shift:{_target_:own_strategies.Shift}}"
    before = len(produced)
    cfg = mini(*SEQUENCE, f"stages=[{FIRST},{shift},{THIRD}]")
    with pytest.raises(ConfigError, match=r"strategy=\[full,shift\] cannot be merged \(shift has weights of its own\)") as error:
        follow(cfg)
    assert "\n" not in str(error.value) and len(produced) == before, "refused before it trains"
    last = mini(*SEQUENCE, f"stages=[{FIRST},{shift}]")
    follow(last)
    assert matrix_of(last)["rows"][-1] == "Lee" and all(cell for cell in matrix_of(last)["metrics"]["mcd"]["R"][-1])


def test_a_stage_that_trains_nothing_is_named_and_leaves_nothing_behind(mini):
    from ttsadapt.stages import follow

    cfg = mini(*SEQUENCE, f"stages=[{FIRST},{{only.speaker:[Lee],strategy:[ewc]}}]")
    with pytest.raises(ConfigError, match=r"stages\.2: strategy=\[ewc\] trains nothing: add full"):
        follow(cfg)
    assert not run_folder(cfg).exists()


def test_a_stage_that_fails_is_named(two, mini, produced):
    from ttsadapt.assembly import Run
    from ttsadapt.stages import follow

    def failing(self):
        raise UserError("no")

    cfg = mini(*SEQUENCE, f"stages=[{FIRST},{{name:other,only.speaker:[Lee]}}]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "produce", failing)
        with pytest.raises(UserError, match="stage 2 of 2: lora on other has failed"):
            follow(cfg)
    assert json.loads((run_folder(cfg) / "summary.json").read_text())["status"] == "failed"


class Tables(HTMLParser):
    """Texts of the cells of every table with the class "heat", and how many of them are coloured."""

    def __init__(self):
        super().__init__()
        self.found, self.coloured, self.inside = [], 0, False

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "table":
            self.inside = "heat" in (attributes.get("class") or "").split()
        if self.inside and tag == "td":
            self.found.append("")
            self.coloured += "--heat" in (attributes.get("style") or "")

    def handle_data(self, data):
        if self.inside and self.found:
            self.found[-1] += data.strip()


def test_the_page_shows_the_matrix(two):
    from ttsadapt.reports import build

    page = build(run_folder(two).parent)
    parsed = Tables()
    parsed.feed(page.read_text())
    sequences = list(run_folder(two).parent.glob("*/matrix.json"))
    cells = sum((len(m["tasks"]) + 1) * (len(m["tasks"]) + 1) for m in (json.loads(f.read_text()) for f in sequences))
    assert len(parsed.found) == cells and parsed.coloured == cells
    line = matrix_of(two)["metrics"]["mcd"]["R"][2]
    assert any(f"{line[0]['mean']:.1f}"[:4] in text for text in parsed.found)
    table = (page.parent / "report.md").read_text()
    assert "Sequences: MCD" in table and "| after | shelby | Lee | source |" in table and "Backward transfer" in table


def test_a_sequence_speaks_with_its_last_stage(two, mini):
    from ttsadapt.config.finding import find

    cfg = mini(*SEQUENCE, f"stages=[{FIRST},{SECOND}]")
    with open_dict(cfg):
        cfg.run = None
    assert find(cfg) == run_folder(stage_configs(two)[1])
