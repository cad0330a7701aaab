"""Two finished runs against each other, from files alone."""

import json
import math

import numpy as np
import pytest
from omegaconf import OmegaConf

from ttsadapt.comparing import compare, compared, paired
from ttsadapt.config.schema import check
from ttsadapt.errors import ConfigError, UserError
from ttsadapt.files import write_json
from ttsadapt.metrics.rows import by_utterance, tabled, write_scores


def row(set_, utterance, value, metric="wer", better="lower", seed="0", version="1", text=None, weight=1.0):
    about = {"unit": "%", "model": "m", "speaker": "s", "emotion": "e", "text": text or utterance.partition("--")[0], "weight": weight}
    return {
        "set": set_,
        "utterance": utterance,
        "metric": metric,
        "value": value,
        "better": better,
        "seed": seed,
        "version": version,
    } | about


def run(outputs, name, rows):
    folder = outputs / "s" / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("{}")
    write_json(folder / "summary.json", {"status": "finished", "name": name})
    write_scores(folder / "scores.csv", rows)
    return folder


def values(better=-2.0, n=20, noise=1.0):
    draw = np.random.default_rng(0)
    hard = draw.normal(20, 8, n)
    return hard, hard + better + draw.normal(0, noise, n)


def asked(tmp_path, **changes):
    given = {"runs": ["s/a", "s/b"], "metrics": [], "set": "target", "draws": 500, "to": None}
    cfg = OmegaConf.create(given | {"paths": {"outputs": str(tmp_path), "cache": str(tmp_path)}} | changes)
    check(cfg, "compare")
    return cfg


def test_the_better_run_is_told_with_its_interval(tmp_path, capsys):
    first, second = values()
    run(tmp_path, "a", [row("target", f"u{i}", v) for i, v in enumerate(first)])
    folder = run(tmp_path, "b", [row("target", f"u{i}", v) for i, v in enumerate(second)])
    compare(asked(tmp_path))
    told = capsys.readouterr().out
    assert "target: b (s/b) against a (s/a)" in told and "wer" in told
    found = json.loads((folder / "compared" / "a-target.json").read_text())["metrics"]["wer"]
    assert found["difference"] == pytest.approx(float((second - first).mean()))
    assert found["low"] < -1.5 and found["high"] < 0 and found["share_better"] == 1.0
    assert found["n"] == found["texts"] == 20 and found["means"] == pytest.approx([first.mean(), second.mean()])


def test_a_run_against_itself_is_refused(tmp_path):
    run(tmp_path, "a", [row("target", "u", 1.0)])
    with pytest.raises(ConfigError, match=r"both are the same run, .*/s/a: give two"):
        compare(asked(tmp_path, runs=["s/a", str(tmp_path / "s" / "a")]))


@pytest.mark.parametrize(
    ("first", "second", "line"),
    [
        (("csm", "1"), ("moshi", "1"), "they are of different backbones (csm and moshi)"),
        (("csm", "1"), ("csm", "2"), "they began from different weights"),
        (("csm", "1"), ("csm", "1"), None),
    ],
)
def test_runs_of_different_models_are_said_to_be(tmp_path, capsys, first, second, line):
    for name, (backbone, base) in (("a", first), ("b", second)):
        folder = run(tmp_path, name, [row("target", f"u{i}", float(i)) for i in range(12)])
        write_json(folder / "summary.json", {"status": "finished", "name": name, "backbone": backbone})
        write_json(folder / "provenance.json", {"base": base})
    compare(asked(tmp_path))
    told = capsys.readouterr().out
    assert told.count("not that of the strategies alone") == (line is not None) and (line or "") in told


@pytest.mark.parametrize(("texts", "said"), [(9, True), (10, False)])
def test_few_texts_decide_nothing(tmp_path, capsys, texts, said):
    first, second = values(n=texts)
    for name, side in (("a", first), ("b", second)):
        run(tmp_path, name, [row("target", f"u{i}", v) for i, v in enumerate(side)])
    compare(asked(tmp_path))
    assert ("9 texts decide nothing" in capsys.readouterr().out) == said


def test_metrics_are_chosen_on_the_command_line_as_everywhere(tmp_path, capsys, monkeypatch):
    from ttsadapt.compare import main

    for name in ("a", "b"):
        run(tmp_path, name, [row("target", f"u{i}", float(i), metric=m) for m in ("wer", "per") for i in range(3)])
    monkeypatch.setattr("sys.argv", ["compare", f"paths.outputs={tmp_path}", "runs=[s/a,s/b]", "metric=[per]"])
    main()
    told = capsys.readouterr().out
    assert "  per " in told and "  wer " not in told


def test_swapped_runs_swap_everything():
    first, second = ([row("target", f"u{i}", v) for i, v in enumerate(side)] for side in values(-0.3, noise=3.0))
    one, other = (tabled(rows)["target"]["wer"] for rows in (first, second))
    there, back = paired(one, other, 800), paired(other, one, 800)
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["share_better"] == pytest.approx(1 - back["share_better"])
    assert [there["low"], there["high"]] == pytest.approx([-back["high"], -back["low"]])
    same = paired(one, one, 100)
    assert same["difference"] == 0 and same["share_better"] == 0.5


def test_seeds_are_averaged_and_texts_drawn_as_wholes():
    single = [row("target", f"u{i}", float(i), text="t") for i in range(4)]
    kinds = (("", -1.0, "0"), ("--s7", 3.0, "7"))
    seeds = [row("target", f"u{i}{suffix}", i + add, seed=seed, text="t") for i in range(4) for suffix, add, seed in kinds]
    found = paired(tabled(single)["target"]["wer"], tabled(seeds)["target"]["wer"], 100)
    assert found["difference"] == pytest.approx(1.0) and found["n"] == 4 and found["texts"] == 1 and found["low"] is None


def test_near_the_reference_is_what_is_compared():
    ideal = {"u": row("recordings/target", "u", 5.0), "v": row("recordings/target", "v", 5.0)}
    one, other = (by_utterance([row("target", u, v, better="near reference") for u in "uv"], ideal) for v in (9.0, 2.0))
    found = paired(one, other, 100)
    assert found["means"] == [4.0, 3.0] and found["difference"] == -1.0 and found["share_better"] == 1.0


def test_other_judges_are_refused():
    one = tabled([row("target", "u", 1.0)])
    other = tabled([row("target", "u", 1.0, version="2")])
    with pytest.raises(UserError, match=r"wer was judged by m 1 in a and by m 2 in b: score both with the same one") as caught:
        compared(one, other, "target", [], 10, ["a", "b"])
    assert "\n" not in str(caught.value)


def test_mistakes_are_one_line(tmp_path):
    for name in ("a", "b"):
        run(tmp_path, name, [row("target", "u", 1.0), row("target", "v", math.nan)])
    for changes, line in (
        ({"runs": ["s/a"]}, "give two"),
        ({"set": "sauce"}, r"set=sauce: s/a has no scores of it.*there are target"),
        ({"metrics": ["mcd"]}, r"metric=\[mcd\]: not both runs have it on target; both have wer"),
    ):
        with pytest.raises(ConfigError, match=line):
            compare(asked(tmp_path, **changes))
    with pytest.raises(UserError, match="no such run"):
        compare(asked(tmp_path, runs=["s/a", "s/none"]))
