"""Cells of a matrix whose sentences were spoken with several seeds."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from ttsadapt import matrix
from ttsadapt.evaluation import write_scores
from ttsadapt.matrix import Matrix, Model, Task

CFG = OmegaConf.create({"train_on": "target", "metric": {"m": {}}, "evaluation": {"seeds": [3, 5], "sets": ["target"], "limit": None}})


def rows(name, level, seeds, better="lower"):
    """Two sentences, a quarter apart; the second seed is a unit above the first."""
    return [
        {"set": name, "utterance": f"u{u}" + (f"--s{seed}" if k else ""), "metric": "m", "value": level + u / 4 + k, "unit": "dB",
         "better": better, "model": "x", "version": "1", "text": f"t{u}", "weight": 1.0, "seed": str(seed)}
        for k, seed in enumerate(seeds) for u in range(2)
    ]  # fmt: skip


@pytest.fixture
def made(tmp_path, monkeypatch):
    """`made(rows of the stage's run)`: the matrix of one stage, and the names of the cells that were spoken for it."""
    spoken = []

    def build(self, folder):
        spoken.append(f"{self.task.title} by {self.model.title}")
        write_scores(folder / "scores.csv", rows("target", 50.0, self.task.cfg.evaluation.seeds))

    monkeypatch.setattr(matrix.Elsewhere, "build", build)
    monkeypatch.setattr(matrix, "assembled", lambda nodes: {})
    said = [SimpleNamespace(id=f"u{u}") for u in range(2)]
    corpus = SimpleNamespace(folder=tmp_path / "corpus")
    monkeypatch.setattr(matrix, "sentences", lambda assembly, name: said)

    def of(untuned, stage):
        spoken.clear()
        for name, told in (("untuned", untuned), ("stage", stage)):
            (tmp_path / name).mkdir(exist_ok=True)
            write_scores(tmp_path / name / "scores.csv", told)
        models = [Model(name, CFG, tmp_path / name) for name in ("untuned", "stage")]
        task = Task("anna", "target", CFG, tmp_path / "stage", True)
        for one in (*models, task):
            one.__dict__["assembly"] = SimpleNamespace(cfg=CFG, corpus=corpus, judged=corpus.folder, cache=tmp_path / "cache")
        return Matrix(models, [task]).summary()["metrics"]["m"], spoken

    return of


def test_seeds_are_averaged_and_count_once(made):
    found, spoken = made(rows("target", 9.0, (3, 5)), rows("target", 4.0, (3, 5)))
    assert [line[0]["mean"] for line in found["R"]] == [9.625, 4.625] and not spoken
    assert all(line[0]["n"] == 2 and line[0]["seeds"] == 2 for line in found["R"])


def test_scores_of_other_seeds_are_not_put_beside_these(made):
    """As `ttsadapt evaluate run=... evaluation.seeds=[3]` leaves them."""
    found, spoken = made(rows("target", 9.0, (3, 5)), rows("target", 4.0, (3,)) + rows("base/target", 8.0, (3,)))
    assert spoken == ["anna by stage"] and [line[0]["mean"] for line in found["R"]] == [9.625, 50.625]
    found, spoken = made(rows("target", 9.0, (3,)), rows("target", 4.0, (3, 5)) + rows("base/target", 8.0, (3,)))
    assert spoken == ["anna by untuned"] and [line[0]["mean"] for line in found["R"]] == [50.625, 4.625]


def test_a_floor_that_is_known_is_not_spoken_again(made):
    found, spoken = made(rows("target", 9.0, (3,)), rows("target", 4.0, (3, 5)) + rows("base/target", 8.0, (3, 5)))
    assert not spoken and found["R"][0][0]["mean"] == 8.625
