"""Intervals, directions, comparisons, sound and pictures of the report."""

import base64
import csv
import io
import json

import numpy as np
import pytest
import soundfile
from fabricate import study
from PIL import Image

from ttsadapt.reports import clips, plots
from ttsadapt.reports.compare import change_table, main_table, preservation_table, reading
from ttsadapt.reports.numbers import Estimate, bounds, count, decimals, fixed, interval, paired
from ttsadapt.reports.provenance import what_ran
from ttsadapt.reports.study import read_study
from ttsadapt.reports.systems import Systems

SMALL = {"target": 10, "source": 10}


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = [e.low <= 0 <= e.high for e in (interval(dict(enumerate(rng.normal(0, 1, 40)))) for _ in range(300))]
    assert 0.90 < np.mean(hits) < 0.98


def test_seeds_are_as_far_from_the_recording_as_each_of_them(tmp_path):
    """A second seed as far on the other side of it: their mean lies on the recording, and is no better for that."""
    folder = study(tmp_path, strategies=[("full",)], tests=SMALL, wavs=False)
    place = next(folder.iterdir()) / "scores.csv"
    with open(place, newline="") as file:
        rows = [row | {"seed": "0"} for row in csv.DictReader(file)]
    ideal = {r["utterance"]: float(r["value"]) for r in rows if (r["set"], r["metric"]) == ("recordings/target", "duration_ratio")}

    def found():
        with open(place, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        systems = Systems(read_study(folder))
        return systems.adapted[0].goodness("target", "duration_ratio")

    before = found()
    for r in [r for r in rows if (r["set"], r["metric"]) == ("target", "duration_ratio")]:
        mirrored = 2 * ideal[r["utterance"]] - float(r["value"])
        rows.append(r | {"utterance": f"{r['utterance']}--s1", "seed": "1", "value": f"{mirrored:.6f}"})
    assert min(before.values()) < 0 and found() == pytest.approx(before)


def test_interval_of_few_and_undefined_values():
    assert interval({}) is None and interval({"a": float("nan")}) is None
    one = interval({"a": 2.0})
    assert one.mean == 2 and np.isnan(one.low) and one.sign == 0 and bounds(one, 2) == ""


def test_interval_weighs_utterances_and_draws_texts_as_wholes():
    rng = np.random.default_rng(0)
    values = {f"{i}": v for i, v in enumerate(rng.normal(0, 1, 20))}
    twice = values | {f"again {k}": v for k, v in values.items()}
    texts = {k: k.removeprefix("again ") for k in twice}
    grouped, plain = interval(twice, groups=texts), interval(values)
    assert grouped.n == 40 and grouped.mean == pytest.approx(plain.mean)
    assert grouped.high - grouped.low == pytest.approx(plain.high - plain.low, rel=0.1)
    assert interval({"a": 1.0, "b": 4.0}, {"a": 3.0, "b": 1.0}).mean == 1.75


def test_paired_uses_common_utterances_only():
    change = paired({"a": 3.0, "b": 5.0, "c": 9.0}, {"a": 1.0, "b": 1.0, "z": 7.0})
    assert change.n == 2 and change.mean == 3


def test_seeds_of_an_utterance_are_one_value(tmp_path):
    folder = study(tmp_path, "seeds", (("lora",),), tests=SMALL)
    path = sorted(folder.glob("*/scores.csv"))[0]
    head, *lines = path.read_text().splitlines()
    first = next(csv.DictReader([head, lines[0]]))
    other = dict(first) | {"utterance": f"{first['utterance']}--s7", "value": str(float(first["value"]) + 2)}
    rows = [*csv.DictReader([head, *lines]), other | {"seed": "7"}]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*head.split(","), "seed"])
        writer.writeheader()
        writer.writerows(rows)
    (run,) = (r for r in read_study(folder).runs if r.folder == path.parent)
    values = run.scores[first["set"], first["metric"]]
    assert values[first["utterance"]] == pytest.approx(float(first["value"]) + 1) and other["utterance"] not in values


@pytest.mark.parametrize(("half", "digits"), [(0.012, 3), (0.12, 2), (1.2, 1), (12.0, 0), (0.00012, 3)])
def test_decimals_show_two_digits_of_the_half_width(half, digits):
    assert decimals([Estimate(5, 5 - half, 5 + half, 9)]) == digits


def test_numbers_as_text():
    assert fixed(-0.001, 2) == "0.00" and fixed(-1.25, 1) == "−1.2" and fixed(0.5, 1, True) == "+0.5"
    assert count(1_834_112) == "1.83\u00a0M" and count(None) == "–"


def systems_of(folder):
    return Systems(read_study(folder))


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    chosen = [(), ("full",), ("csp",), ("ewc", "full", "kd", "rehearsal")]
    return systems_of(study(tmp_path_factory.mktemp("numbers"), strategies=chosen, tests=SMALL, wavs=False))


def system(systems, label):
    return next(s for s in systems if s.label == label)


def test_references_come_first_and_the_base_is_one_row(systems):
    labels = ["recordings", "resynthesis", "base", "csp", "full", "ewc+full+kd+rehearsal"]
    assert [s.label for s in systems] == labels
    assert [s.kind for s in systems] == ["ceiling", "vocoder", "floor", "adapted", "adapted", "adapted"]


def test_best_is_the_best_adapted_in_the_metric_s_own_direction(systems):
    for column in main_table(systems).columns:
        means = {s.label: c.estimate.mean for s, c in zip(systems, column.cells)}
        adapted = {s.label: means[s.label] for s in systems.adapted}
        badness = {
            "lower": lambda m: m,
            "higher": lambda m: -m,
            "near reference": lambda m, ceiling=means["recordings"]: abs(m - ceiling),
        }[column.metric.better]
        best = [s.label for s, c in zip(systems, column.cells) if c.best]
        assert best == [min(adapted, key=lambda k: badness(adapted[k]))]


def test_change_from_scores_agrees_with_the_summary(systems):
    """What is computed when seeds are averaged has the sign and the size of what a run states of itself."""
    full, base = system(systems, "full"), system(systems, "base")
    for metric in systems.study.metrics.values():
        for kind, set_, pair in (("gain", "target", (full, base)), ("forgetting", "source", (base, full))):
            ours = systems.improvement(metric, set_, *pair)
            assert ours.mean == pytest.approx(systems.change(kind, metric, full).mean, abs=1e-5)


def test_preservation_is_the_paired_difference_of_scores(systems):
    table = preservation_table(systems)
    assert [(a.label, b.label) for a, b in table.pairs] == [("full", "ewc+full+kd+rehearsal")]
    column = table.groups[0].columns[0]
    plain, kept = (s.runs[0].scores["source", column.metric.name] for s in table.pairs[0])
    differences = [plain[k] - kept[k] for k in plain]
    assert column.metric.name == "mcd" and column.cells[0].estimate.mean == pytest.approx(np.mean(differences))
    assert column.cells[0].mark == 1 and column.cells[0].estimate.low > 0


def test_marks_need_an_interval_that_excludes_zero(tmp_path):
    folder = study(tmp_path, strategies=[(), ("full",)], tests=SMALL, wavs=False)
    for path in folder.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        if summary["strategies"]:
            summary["gain"]["mcd"] = {"mean": 0.2, "low": -0.1, "high": 0.5, "n": 10}
            summary["forgetting"]["mcd"] = {"mean": 0.2, "low": 0.1, "high": 0.5, "n": 10}
            path.write_text(json.dumps(summary))
    systems = systems_of(folder)
    gain, forgetting = (g.columns[0].cells[0] for g in change_table(systems).groups)
    assert (gain.mark, forgetting.mark) == (0, -1)
    assert reading(systems)[0].startswith("No run gains on the target")


def test_a_winner_is_not_praised_alone(tmp_path):
    folder = study(tmp_path, strategies=[(), ("full",)], tests=SMALL, wavs=False)
    for path in folder.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        if summary["strategies"]:
            summary["gain"]["mcd"] = {"mean": 2.0, "low": 1.0, "high": 3.0, "n": 10}
            summary["gain"]["per"] = {"mean": -4.0, "low": -5.0, "high": -3.0, "n": 10}
            path.write_text(json.dumps(summary))
    assert reading(systems_of(folder))[0].endswith("2.0 dB [1.0, 3.0], though worse in PER.")


def test_of_one_adapted_system_nothing_is_the_best(tmp_path):
    from ttsadapt.reports import build
    from ttsadapt.reports.tables import to_console, to_latex

    folder = study(tmp_path, strategies=[(), ("full",)], tests=SMALL, wavs=False)
    for path in folder.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        for kind in ("gain", "forgetting") if summary["strategies"] else ():
            summary[kind]["mcd"] = {"mean": 2.0, "low": 1.0, "high": 3.0, "n": 10}
        path.write_text(json.dumps(summary))
    systems = systems_of(folder)
    gain, lost = reading(systems)[:2]
    assert gain.startswith("full gains on the target: MCD better") and lost.startswith("full forgets on the source: MCD worse, 2.0 dB")
    page = build(folder).read_text()
    texts = [to_console(systems), to_latex(systems), (folder / "report.md").read_text(), page]
    assert not any(word in text.lower() for text in texts for word in ("best adapted", " least", "*1", "forgets most"))
    assert not any(c.best for column in main_table(systems).columns for c in column.cells)


def test_sentences_that_are_few_decide_nothing(tmp_path):
    for n, said in ((9, True), (10, False)):
        systems = systems_of(study(tmp_path / str(n), strategies=[(), ("full",)], tests={"target": n, "source": n}, wavs=False))
        assert any("9 sentences decide nothing" in line for line in reading(systems)) == said


def test_reading_names_the_winners_of_the_tables(systems):
    said = " ".join(reading(systems))
    assert "full gains most on the target: MCD" in said
    assert "ewc+full+kd+rehearsal forgets least" in said
    assert "preservation lowers forgetting in MCD in 1 of 1" in said


def test_without_common_ways_of_training_nothing_is_compared(tmp_path):
    chosen = [(), ("full",), ("ewc", "kd", "lora", "rehearsal")]
    assert preservation_table(systems_of(study(tmp_path, strategies=chosen, tests={"target": 3, "source": 3}, wavs=False))).pairs == []


@pytest.mark.parametrize(
    "layers", [{"group": "decoder", "blocks": ["0", "1"]}, [{"blocks": ["0"], "emotion": [1.0]}], {"decoder": {"blocks": ["0"]}}, {}]
)
def test_layers_may_lack_keys(tmp_path, layers):
    folder = study(tmp_path, strategies=[("csp",)], tests={"target": 3, "source": 3}, wavs=False)
    next(folder.glob("*/layers.json")).write_text(json.dumps(layers))
    systems = systems_of(folder)
    assert (plots.blocks(systems) is not None) == bool(layers)


@pytest.mark.parametrize("rate", [16000, 22050, 18000])
def test_encoded_audio_is_the_audio(rate):
    time = np.arange(rate) / rate
    samples = (0.4 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    data = base64.b64decode(clips.encode(samples, rate).split(",")[1])
    heard, heard_rate = soundfile.read(io.BytesIO(data))
    assert heard_rate == rate and abs(len(heard) / rate - 1) < 0.12
    spectrum = np.abs(np.fft.rfft(heard[rate // 4 : rate * 3 // 4]))
    assert spectrum.argmax() / len(spectrum) * rate / 2 == pytest.approx(440, abs=4)
    assert np.abs(heard[rate // 4 : rate // 2]).max() == pytest.approx(0.4, abs=0.05)


def test_mel_rises_with_frequency_and_has_no_empty_band():
    rate = 16000
    time = np.arange(rate) / rate
    bands = [clips.mel(np.sin(2 * np.pi * f * time).astype(np.float32), rate).mean(1).argmax() for f in (200, 1000, 4000)]
    expected = [2595 * np.log10(1 + f / 700) / (2595 * np.log10(1 + 8000 / 700)) * (clips.MELS + 1) - 1 for f in (200, 1000, 4000)]
    assert np.allclose(bands, expected, atol=1)
    noise = np.random.default_rng(0).normal(size=rate).astype(np.float32)
    assert clips.mel(noise, rate).mean(1).min() > -10


def test_pictures_share_one_time_axis():
    short, long = np.full((clips.MELS, 10), -3.0), np.full((clips.MELS, 25), -3.0)
    image = Image.open(io.BytesIO(base64.b64decode(clips.paint([long, short], 25).split(",")[1])))
    assert image.size == (25, 2 * clips.MELS)
    pixels = np.asarray(image.convert("L"), dtype=float)
    assert pixels[clips.MELS + 10 :, :8].mean() > 150 and pixels[clips.MELS + 10 :, 14:].mean() < 30


def test_what_ran_says_shared_facts_once_and_judges_errors(systems):
    ran = what_ran(systems.study)
    assert ran.shared["device"] == "cpu (x86_64)" and ran.shared["packages.torch"] == "2.11.0"
    assert [r.details for r in ran.runs][-1] == {}
    assert ran.judges == [("recogniser", "source.test", "4.31 %"), ("speaker-encoder", "source.test", "2.13")]
