"""The runner of alternating pairs, and every case at its small size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ttsadapt.bench import main
from ttsadapt.bench.base import Case, Comparison, Figures, cost, memory, rounds, speed
from ttsadapt.bench.table import markdown, ratios, verdicts

ROOT = Path(__file__).parents[1]
SMALL = sorted(p.stem for p in (ROOT / "conf/bench").glob("*_small.yaml"))


class Told(Case):
    """Writes down who works when."""

    def __init__(self):
        self.order = []

    def sides(self):
        def side(name):
            return lambda: lambda: self.order.append(name) or 10

        return {name: side(name) for name in "abc"}

    def comparisons(self):
        return [Comparison("a", "b", speed, at_least=2.0), Comparison("a", "c", cost, at_most=0.6), Comparison("c", "a", memory)]


def test_sides_take_turns_after_one_repeat_that_does_not_count():
    case = Told()
    done = rounds(case, 3, told=lambda line: None)
    assert "".join(case.order) == "abc" + "abc" + "cba" + "abc"
    assert len(done) == 3 and all(list(each) == ["a", "b", "c"] and each["a"].units == 10 for each in done)


def test_ratios_are_of_one_round_and_judged_by_their_median():
    one = {"a": Figures(100, 1, 1.0, 3.0), "b": Figures(100, 1, 2.1, 1.0), "c": Figures(100, 1, 2.0, 1.5)}
    slow = {name: Figures(100, 9, 9 * f.cpu, f.memory) for name, f in one.items()}  # the machine was busy: both sides alike
    other = one | {"b": Figures(100, 1, 1.5, 1.0)}
    done, case = [one, slow, other], Told()
    assert ratios(done, case.comparisons()[0]) == pytest.approx([2.1, 2.1, 1.5])
    first, second, third = verdicts(case, done)
    assert first["median"] == pytest.approx(2.1) and (first["low"], first["high"]) == pytest.approx((1.5, 2.1))
    assert (first["limit"], first["holds"]) == (">= 2", True)
    assert (second["limit"], second["holds"], second["median"]) == ("<= 0.6", True, pytest.approx(0.5))
    assert (third["limit"], third["holds"], third["median"]) == ("", None, pytest.approx(0.5))
    table = markdown(case, done)
    assert "| a / b " in table and ">= 2" in table and "holds" in table and "MISSED" not in table
    assert "MISSED" in markdown(case, [other])


def test_every_case_has_a_small_size():
    cases = {p.stem.partition("_")[0] for p in (ROOT / "conf/bench").glob("*.yaml")}
    assert cases == {name.removesuffix("_small").partition("_")[0] for name in SMALL}


@pytest.mark.parametrize("name", SMALL)
def test_a_case_runs_small_and_leaves_its_tables(name, outputs, monkeypatch, capsys):
    asks = name == "learner_small"  # of two sides: a process a side takes its time, and asks every case for its sides in the same way
    options = [f"bench={name}", "pairs=1", "threads=1", f"memory={asks}", f"hydra.run.dir={outputs}/bench/{name}"]
    if asks:
        done = subprocess.run([sys.executable, "-m", "ttsadapt", "bench", *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        said = done.stdout
    else:  # what takes longest is importing
        monkeypatch.setattr(sys, "argv", ["ttsadapt", *options])
        main()
        said = capsys.readouterr().out
    written = json.loads((outputs / "bench" / name / "bench.json").read_text())
    for figures in written["rounds"][0].values():
        assert figures["units"] > 0 and figures["cpu"] > 0 and figures["wall"] > 0
        assert not asks or figures["memory"] > 0.05
    assert written["comparisons"] and written["machine"]["code"]
    assert (outputs / "bench" / name / "bench.md").read_text() in said
