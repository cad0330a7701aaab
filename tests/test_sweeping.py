"""Settings of decoding compared on a finished run: what each scores, what is skipped, what is refused."""

import csv
import json
import os
from types import SimpleNamespace

import pytest
import torch

from test_every_pair import smaller
from ttsadapt.backbones.decoding import Sampling
from ttsadapt.backbones.knobs import SAMPLING, Knob, decoding, refuse_settings, settings
from ttsadapt.config.base import composed
from ttsadapt.config.identity import run_folder
from ttsadapt.decode import listed
from ttsadapt.errors import ConfigError


class Speaker:
    """With a setting of each kind: of a frozen dataclass, of a part, its own."""

    knobs = SAMPLING | {"guidance": Knob("flow.guidance"), "steps": Knob("steps", 1, whole=True)}

    def __init__(self) -> None:
        self.sampling, self.flow, self.steps = Sampling(temperature=0.4, top_k=20), SimpleNamespace(guidance=0.7), 10


def test_settings_last_as_long_as_they_are_wanted():
    speaker = Speaker()
    before = settings(speaker)
    with pytest.raises(RuntimeError), decoding(speaker, {"temperature": 0, "top_k": 5, "guidance": 1.5, "steps": 4}):
        assert speaker.sampling == Sampling(temperature=0, top_k=5) and (speaker.flow.guidance, speaker.steps) == (1.5, 4)
        raise RuntimeError
    assert settings(speaker) == before and speaker.sampling == Sampling(temperature=0.4, top_k=20)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"guidence": 1}, "decoding.guidence=1: Speaker has no such setting: did you mean 'guidance'"),
        ({"temperature": -1}, "a number, 0 or more"),
        ({"temperature": "hot"}, "a number, 0 or more"),
        ({"top_k": 2.5}, "a whole number, 0 or more"),
        ({"top_p": 1.5}, "a number, 0 to 1"),
        ({"steps": 0}, "a whole number, 1 or more"),
        ({"top_k": True}, "a whole number"),
    ],
)
def test_what_a_backbone_does_not_take_is_one_line(wanted, why):
    with pytest.raises(ConfigError, match=why):
        refuse_settings(Speaker(), wanted)


def test_fastspeech_has_nothing_to_set():
    from ttsadapt.backbones.fastspeech2 import FastSpeech2

    with pytest.raises(ConfigError, match=r"decoding.top_p=0.8: FastSpeech2 has no such setting: it draws nothing"):
        refuse_settings(FastSpeech2.__new__(FastSpeech2), {"top_p": 0.8})


def test_commas_make_a_list():
    assert listed("decoding.top_k=5,20") == "decoding.top_k=[5,20]"
    same = ["decoding.top_k=5", "decoding.top_k=[5,20]", "metric=[a,b]", "run=a,b", "-m"]
    assert [listed(argument) for argument in same] == same


@pytest.fixture(scope="module")
def spoken(mini):
    """A finished run of a model that draws its tokens, trained hardly at all."""
    from ttsadapt.run import train

    shorter = ("trainer.max_steps=2", "trainer.val_every=2", "metric=[]", "base=null", "strategy=[lora]")
    own = f"study=sampled{os.environ.get('PYTEST_XDIST_WORKER', '')}"  # workers that share a run would sweep it at once
    asked = ("backbone=qwen_tts_tiny", *smaller("qwen_tts_tiny"), *shorter, own)
    cfg = mini(*asked, small=False)
    train(cfg)
    return cfg, run_folder(cfg)


def sweep(cfg, folder, **wanted):
    from ttsadapt import sweeping

    grid = wanted.pop("grid")
    asked = composed("metric=[energy_range,articulation]", "limit=2", f"seeds={wanted.pop('seeds', 1)}", name="decode")
    asked.decoding.update(grid)
    sweeping.sweep(asked, folder, ["metric=[energy_range,articulation]"])
    with open(folder / "decoding.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_scores_what_has_not_been_scored(spoken, monkeypatch, capsys):
    from ttsadapt import sweeping

    cfg, folder = spoken
    said, speak = [], sweeping.speak
    monkeypatch.setattr(sweeping, "speak", lambda *a: said.append(a[3]) or speak(*a))
    rows = sweep(cfg, folder, grid={"temperature": [0.1, 2.0], "top_k": [20]})
    own = json.loads(next(r["setting"] for r in rows if r["default"] == "1"))
    assert own["temperature"] == 0.4 and own["top_k"] == 20 and len(said) == 3  # its own setting beside the two
    per = {(r["setting"], r["seed"], r["metric"]) for r in rows if r["setting"] != "recordings"}
    assert len(per) == 3 * 2 and all(r["set"] == "target.valid" for r in rows)
    values = {r["setting"]: r["value"] for r in rows if r["metric"] == "energy_range"}
    assert len(set(values.values())) == 4  # each sounds different, and the recordings are the fourth
    table = (folder / "decoding.csv").read_bytes()
    assert sweep(cfg, folder, grid={"temperature": [0.1, 2]}) == rows and (folder / "decoding.csv").read_bytes() == table
    assert len(said) == 3 and "3 of 3 settings and seeds are scored already" in capsys.readouterr().out
    more = sweep(cfg, folder, grid={"temperature": [0.1, 1.0]})
    assert len(said) == 3 + 1 and [r for r in more if r in rows] == rows
    found = json.loads((folder / "decoding.json").read_text())
    (only,) = found
    assert len(only["settings"]) == 4 and only["seeds"] == 1 and set(only["best"]) == {"energy_range", "articulation"}
    ideal = {r["utterance"]: float(r["value"]) for r in rows if r["setting"] == "recordings" and r["metric"] == "energy_range"}
    away = {}  # of each setting, how far from the recording each clip is
    for r in more:
        if r["metric"] == "energy_range" and r["setting"] != "recordings":
            away.setdefault(r["setting"], []).append(abs(float(r["value"]) - ideal[r["utterance"]]))
    means = {name: sum(values) / len(values) for name, values in away.items()}
    best = only["best"]["energy_range"]
    nearest = min(means, key=means.get)
    assert best["setting"] == json.loads(nearest) and best["default"]["n"] == 2
    assert best["change"]["mean"] == pytest.approx(means[json.dumps(own, sort_keys=True)] - means[nearest])
    assert only["best"]["articulation"]["recordings"]["mean"] > 0
    assert (folder / "decoding.png").stat().st_size > 1000


def test_the_model_and_the_runs_files_stay_as_they_were(spoken):
    from ttsadapt.finished import restored

    _, folder = spoken
    assert not (folder / "scores.csv").exists()
    assert restored(folder)[1].backbone.sampling == Sampling(temperature=0.4, top_k=20)


def test_the_page_of_the_study_shows_it(spoken):
    from ttsadapt.reports import build

    cfg, folder = spoken
    sweep(cfg, folder, grid={"temperature": [0.1, 2.0]})
    page = build(folder.parent).read_text()
    assert 'id="decoding"' in page and "best at temperature" in page and "the run's own".replace("'", "&#39;") in page
    assert "Settings of decoding" in (folder.parent / "report.md").read_text()


def test_a_text_is_spoken_with_other_settings(spoken, tmp_path):
    from ttsadapt.data.audio import load
    from ttsadapt.finished import synthesize

    _, folder = spoken
    heard = []
    for asked in ({}, {"temperature": 2.0, "top_k": 0}, {}):
        out = tmp_path / f"{len(heard)}.wav"
        cfg = composed(f"run={folder}", "text='Hello there.'", f"out={out}", name="synthesize")
        cfg.decoding.update(asked)
        synthesize(cfg, folder)
        heard.append(load(out, 16000))
    assert torch.equal(heard[0], heard[2]) and not (heard[0].shape == heard[1].shape and torch.equal(heard[0], heard[1]))
    cfg.decoding.guidance = 1.0
    with pytest.raises(ConfigError, match="QwenTTS has no such setting: there are"):
        synthesize(cfg, folder)


def test_nothing_to_compare_is_one_line(spoken):
    from ttsadapt.sweeping import sweep as run

    _, folder = spoken
    with pytest.raises(ConfigError, match="decoding has no value"):
        run(composed(name="decode"), folder, [])
    for asked, why in (
        ("evaluation.seeds=[]", r"evaluation.seeds=\[\]: give at least one seed"),
        ("metric=[]", r"metric=\[\] compares nothing"),
        ("metric=[wavlm_sv]", r"metric=\[wavlm_sv\]: none of them can be computed on this machine"),
    ):
        with pytest.raises(ConfigError, match=why):
            run(composed("decoding.temperature=1", asked, name="decode"), folder, [asked])


SETTINGS = ['{"temperature": 0.5, "top_k": 5.0}', '{"temperature": 1.0, "top_k": 5.0}', '{"temperature": 1.5, "top_k": 5.0}']
"""the first is the run's own"""


def write(path, rows):
    from ttsadapt.sweeping import COLUMNS

    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def scored(setting, values, seed=0, version="1"):
    """A row for each of `values`, of one sentence after the other."""
    about = {"set": "target.valid", "seed": seed, "metric": "per", "unit": "%", "better": "lower", "model": "x", "version": version}
    about |= {"setting": setting, "default": int(setting == SETTINGS[0]), "weight": 1}
    return [about | {"utterance": f"u{i}", "text": f"t{i}", "value": value} for i, value in enumerate(values)]


def test_settings_are_ranked_by_the_clips_that_all_of_them_have(tmp_path):
    """One that was scored on the easiest sentence alone, or by another judge, is not the best."""
    from ttsadapt.reports.decoding import read, report, words

    own, better, other = SETTINGS
    rows = [*scored(own, [1, 20, 20, 20]), *scored(better, [2, 18, 18, float("nan")]), *scored(other, [3])]
    rows += [*scored(own, [5, 20, 20, 20], seed=1), *scored(better, [9, 9, 9, 9], seed=2)]
    write(tmp_path / "decoding.csv", rows)
    (found,) = read(tmp_path / "decoding.csv")
    assert found.best("per") == better and found.left_out("per") == 1
    assert found.change(better, "per").mean == pytest.approx(1) and found.change(better, "per").n == 3
    assert found.estimate(own, "per").mean == pytest.approx(41 / 3) and found.estimate(other, "per") is None
    assert (
        "(best of 2, so it flatters); on 1 of 3 seeds, which every setting has; 1 left out: not scored on the same sent" in words(found)[0]
    )
    assert report(tmp_path)[-1].endswith(": decoding.csv, decoding.json, decoding.png")
    assert json.loads((tmp_path / "decoding.json").read_text())[0]["best"]["per"]["left_out"] == 1
    write(tmp_path / "decoding.csv", [*scored(own, [4, 4]), *scored(better, [1, 1], version="0"), *scored(other, [3, 9])])
    (found,) = read(tmp_path / "decoding.csv")
    assert found.best("per") == own and found.left_out("per") == 1 and found.change(other, "per").mean == -2


def test_a_sweep_of_fewer_seeds_is_compared_on_the_seeds_that_all_have(tmp_path):
    from ttsadapt.reports.decoding import read, words

    own, better, other = SETTINGS
    rows = [row for seed in range(3) for row in [*scored(own, [20, 20], seed), *scored(better, [19, 19], seed)]]
    write(tmp_path / "decoding.csv", [*rows, *scored(other, [10, 10])])
    (found,) = read(tmp_path / "decoding.csv")
    assert found.best("per") == other and found.left_out("per") == 0 and found.varied == ["temperature"]
    assert words(found)[0].endswith("; on 1 of 3 seeds, which every setting has")


def test_what_is_not_drawn_is_not_said_to_be_written(tmp_path):
    from ttsadapt.reports.decoding import report

    write(tmp_path / "decoding.csv", scored(SETTINGS[0], [1, 2]))
    assert report(tmp_path)[-1] == f"written to {tmp_path}: decoding.csv, decoding.json" and not (tmp_path / "decoding.png").exists()


def test_the_best_is_where_the_metric_likes_it_with_the_default_beside_it(tmp_path):
    from ttsadapt.reports.decoding import read, report, words

    settings = SETTINGS
    values = {"per": ("lower", [10, 8, 20]), "mos": ("higher", [3, 2.5, 2])}
    rows = [
        {"set": "target.valid", "setting": s, "default": int(i == 0), "seed": seed, "utterance": f"u{u}", "metric": m, "unit": "%",
         "better": better, "value": levels[i] * (1 + 0.01 * u) + seed, "model": "x", "version": "1", "text": f"t{u}", "weight": 1}
        for m, (better, levels) in values.items() for i, s in enumerate(settings) for seed in (0, 1) for u in range(11)
    ]  # fmt: skip
    write(tmp_path / "decoding.csv", [r for r in rows if r["utterance"] not in ("u9", "u10")])
    (few,) = read(tmp_path / "decoding.csv")
    assert "9 texts decide nothing" in words(few)[0] and "excludes 0" not in words(few)[0]
    write(tmp_path / "decoding.csv", rows)
    (found,) = read(tmp_path / "decoding.csv")
    assert [found.best(m) for m in ("per", "mos")] == [settings[1], settings[0]] and found.varied == ["temperature"]
    assert found.estimate(settings[1], "per").mean == pytest.approx(8 * 1.05 + 0.5) and found.estimate(settings[1], "per").n == 11
    assert found.change(settings[1], "per").mean == pytest.approx(2 * 1.05) and found.change(settings[2], "mos").sign == -1
    per, mos = words(found)
    rows[0] = rows[0] | {"value": "nan"}  # a seed of the first sentence without a value: the other one's counts
    write(tmp_path / "partly.csv", rows)
    (partly,) = read(tmp_path / "partly.csv")
    assert partly.estimate(settings[0], "per").n == 11
    assert "best at temperature 1, 8.90" in per and "the run's own (temperature 0.5) 11.00" in per and "paired gain +2.10" in per
    assert "the interval excludes 0 (best of 3" in per and "the run's own setting (best of 3)" in mos
    assert report(tmp_path)[:2] == [per, mos] and json.loads((tmp_path / "decoding.json").read_text())[0]["best"]["per"]["score"]["n"] == 11
