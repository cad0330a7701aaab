"""From files of answers to figures: what is refused, who counts, and how far the intervals can be trusted."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from simulate import LABELS, always, hand_in, key_of, made, rated_in, rater, session, short_study

from ttsadapt.errors import UserError
from ttsadapt.listening.agreement import alpha
from ttsadapt.listening.checksum import checksum, fnv, sheet_of
from ttsadapt.listening.correlation import spearman
from ttsadapt.listening.design import sheets
from ttsadapt.listening.intervals import Crossed
from ttsadapt.listening.key import read_keys
from ttsadapt.listening.results import gather
from ttsadapt.listening.told import rows
from ttsadapt.reports import build

MEANS = {"recordings": 4.6, "resynthesis": 4.1, "base": 2.2, "full": 3.6, "lora": 3.4}


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """(study, its MOS test, key): twelve listeners who care, three who do not."""
    study = short_study(tmp_path_factory.mktemp("outputs"))
    test = made("mos", "page.sentences=10")
    test.build(study)
    key = key_of(study, "mos")
    careful = {f"l{i}": session(key, str(i), rater(key, str(i), MEANS)) for i in range(1, 13)}
    careless = {f"c{value}": session(key, f"careless{value}", always(value)) for value in "135"}
    hand_in(test.folder(study), careful | careless)
    return study, test, key


@pytest.fixture(scope="module")
def said(rated):
    study, test, _ = rated
    told = test.read(study, [test.folder(study) / "results"])
    return told, json.loads((test.folder(study) / "listening.json").read_text())


def test_careless_listeners_are_dropped_and_said(said):
    told, found = said
    assert found["listeners"] == 12 and found["dropped"] == 3
    assert "12 of 15 listeners count" in told and "75 %" in told
    assert found["ratings"] == 120 and found["means_of_everyone"] != found["means"]
    assert all(passed == [4, 4, 2, 2] for who, passed in found["checks"].items() if not who.startswith("careless"))


def test_means_and_differences_come_out_as_they_went_in(said):
    _, found = said
    assert list(found["means"]) == LABELS
    for item, mean in found["means"].items():
        assert mean["n"] == 24 and mean["low"] < mean["mean"] < mean["high"]
        assert mean["mean"] == pytest.approx(MEANS[item], abs=0.5)
    pairs = {(d["item"], d["other"]): d for d in found["differences"]}
    assert len(pairs) == 10
    assert pairs["full", "base"]["low"] > 0.5 and pairs["base", "recordings"]["high"] < -1
    plain = found["means"]["full"]["mean"] - found["means"]["base"]["mean"]
    assert pairs["full", "base"]["mean"] == pytest.approx(plain, abs=0.25)  # balanced but for 12 listeners over 5 sheets


def test_every_file_says_the_same(rated, said):
    study, test, _ = rated
    folder, (_, found) = test.folder(study), said
    with open(folder / "table.csv", newline="") as file:
        table = {(r["quantity"], r["item"], r["other"]): r for r in csv.DictReader(file)}
    assert float(table["mean", "lora", ""]["mean"]) == found["means"]["lora"]["mean"]
    assert float(table["difference", "lora", "base"]["low"]) == next(
        d["low"] for d in found["differences"] if (d["item"], d["other"]) == ("lora", "base")
    )
    with open(folder / "ratings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    counted = [float(r["value"]) for r in rows if r["counts"] == "1" and r["item"] == "lora"]
    assert np.mean(counted) == pytest.approx(found["means"]["lora"]["mean"])
    assert {r["kind"] for r in rows} == {"rated", "check", "repeat"} and len(rows) == 15 * 16
    text = (folder / "table.md").read_text()
    assert "| lora |" in text and "Krippendorff" in text and (folder / "plot.png").stat().st_size > 5000


def test_automatic_metrics_of_the_same_sentences_stand_beside(rated, said):
    from ttsadapt.reports.study import read_study
    from ttsadapt.reports.systems import Systems

    study, _, key = rated
    systems = Systems(read_study(study))
    _, found = said
    lora = next(s for s in systems if s.label == "lora")
    heard = {t.utterance for t in rated_in(key)}
    expected = np.mean([v for k, v in lora.values("target", "mcd").items() if k in heard])
    assert found["automatic"]["mcd"]["lora"] == pytest.approx(expected)
    rho = {c["metric"]: c for c in found["correlations"]}
    assert rho["mcd"]["n"] == 40 and rho["mcd"]["low"] < rho["mcd"]["rho"] < rho["mcd"]["high"]  # 4 systems x 10 sentences
    assert rho["mcd"]["rho"] > 0.4 and rho["speaker_similarity"]["rho"] > 0.4  # both turned: better for the ear, better by the metric


def test_the_study_page_shows_it(rated, monkeypatch):
    monkeypatch.setattr("ttsadapt.reports.clips.BUDGET", 1)
    """As it was last read, whatever the rule then; what has not been read is said, with what reads it."""
    study, test, _ = rated
    folder = test.folder(study)
    results = sorted((folder / "results").glob("*.json"))
    test.read(study, results[-3:])
    assert "3 of 3 listeners count" in (page := build(study).read_text()) and "12 files of answers are not in these figures" in page
    lax = made("mos", "page.sentences=10", "page.rule.pass_share=0", "page.rule.repeat_share=0")
    lax.read(study, results)
    page = build(study).read_text()
    assert '<section id="listening">' in page and "15 of 15 listeners count" in page and "not in these figures" not in page
    (folder / "listening.json").unlink()
    page = build(study).read_text()
    assert f"15 files of answers are not in these figures: the command that built the page, with results={folder / 'results'}" in page
    assert "listeners count" not in page
    test.read(study, results)


def damaged(key, how):
    """(name, content of the file) of an answer that must not count."""
    good = session(key, "1", rater(key, "1", MEANS))
    body = good["body"]
    if how == "altered":
        body["trials"][3]["answer"] = "5" if body["trials"][3]["answer"] != "5" else "4"
        return good
    if how == "another page":
        body["page"] = "0" * 16
    elif how == "incomplete":
        del body["trials"][-1]
    elif how == "too fast":
        body["trials"][5]["ms"] = 100
    elif how == "unknown answer":
        body["trials"][5]["answer"] = "6"
    elif how == "another listener's trials":
        body["listener"] = "2"
    elif how == "no listener":
        body["listener"] = " "
    return good | {"checksum": checksum(body)}


@pytest.mark.parametrize(
    "how", ["altered", "another page", "incomplete", "too fast", "unknown answer", "another listener's trials", "no listener"]
)
def test_answers_that_cannot_be_trusted_are_one_line_each(rated, tmp_path, how):
    _, _, key = rated
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(damaged(key, how)))
    sessions, refused = gather([path], key)
    assert sessions == [] and [r.kind for r in refused] == [how]
    assert str(path) in refused[0].told and "\n" not in refused[0].told


LONG = json.dumps({"body": {"listener": "9" * 5000, "questions": {}, "trials": [], "finished": ""}})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"body": 3}', '{"body": {"trials": [{}]}}', "\x00\xff", "null", LONG])
def test_files_that_are_no_answers_are_refused(rated, tmp_path, text):
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    sessions, refused = gather([tmp_path], rated[2])
    assert sessions == [] and [r.kind for r in refused] == ["unreadable"]


def test_of_two_files_of_a_listener_the_first_counts(rated, tmp_path):
    _, _, key = rated
    one, two = (session(key, "1", rater(key, "1", MEANS)) for _ in range(2))
    one["body"]["finished"] = "2026-01-06T00:00:00.000Z"
    one["checksum"] = checksum(one["body"])
    for name, content in (("a", one), ("b", two)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    sessions, refused = gather([tmp_path, tmp_path / "nowhere"], key)
    assert [Path(s.where).name for s in sessions] == ["b.json"]
    assert sorted(r.kind for r in refused) == ["listener twice", "no such file"]


def test_nothing_usable_is_one_line(rated, tmp_path):
    study, test, key = rated
    with pytest.raises(UserError, match=r"no usable answers.*no \.json"):
        test.read(study, [tmp_path])
    (tmp_path / "x.json").write_text(json.dumps(session(key, "3", always("3"))))
    with pytest.raises(UserError, match="none of 1 listeners passes"):
        test.read(study, [tmp_path])


def test_results_before_a_page_are_one_line(tmp_path):
    study = short_study(tmp_path)
    with pytest.raises(UserError, match="build the page first"):
        made("mos").read(study, [tmp_path])


def test_answers_to_a_page_that_was_built_anew_stay_readable(tmp_path):
    """Twice: neither page's answers are lost, nor those of two pages thrown together."""
    study = short_study(tmp_path)
    sizes = ["page.sentences=5", "page.sentences=4", "page.sentences=3"]
    said = [made("mos", size).build(study) for size in [*sizes, sizes[-1]]]
    newest, *older = read_keys(made("mos").folder(study))
    keys = {len({t.utterance for t in rated_in(key)}): key for key in (newest, *older)}
    assert keys.keys() == {3, 4, 5} and newest is keys[3] and len({key.salt for key in keys.values()}) == 1
    assert ["stay readable" in text for text in said] == [False, True, True, False] and keys[5].page in said[1]
    answers = {f"{n}-{who}": session(key, f"{n}{who}", rater(key, f"{n}{who}", MEANS)) for n, key in keys.items() for who in "ab"}
    answers["4-c"] = session(keys[4], "4c", rater(keys[4], "4c", MEANS))
    results = hand_in(made("mos").folder(study), answers)
    told = made("mos").read(study, [results])
    found = json.loads((results.parent / "listening.json").read_text())
    assert found["page"] == keys[4].page and found["listeners"] == 3 and found["refused"] == {"another page": 4}
    assert f"these are answers to page {keys[4].page}" in told and "alone in results=" in told
    for n in (3, 5):
        told = made("mos").read(study, [results / f"{n}-{who}.json" for who in "ab"])
        found = json.loads((results.parent / "listening.json").read_text())
        assert found["page"] == keys[n].page and found["refused"] == {} and ("built before" in told) == (n == 5)


def test_the_rule_can_be_changed_when_reading(rated):
    study, _, _ = rated
    lax = made("mos", "page.sentences=10", "page.rule.pass_share=0", "page.rule.repeat_share=0")
    told = lax.read(study, [lax.folder(study) / "results"])
    assert "15 of 15 listeners count" in told


def some(study, test, key, listeners):
    """What is told and found when so many listeners have answered."""
    results = hand_in(test.folder(study), {str(i): session(key, str(i), rater(key, str(i), MEANS)) for i in range(1, listeners + 1)})
    told = test.read(study, [results])
    return told, json.loads((results.parent / "listening.json").read_text())


@pytest.mark.parametrize("listeners", [1, 2, 3])
def test_of_few_listeners_there_is_no_interval_and_that_is_said(tmp_path, listeners):
    """Neither of a mean nor of a difference, which then is that of the means; in every file and on the console."""
    study = short_study(tmp_path)
    test = made("mos")
    test.build(study)
    told, found = some(study, test, key_of(study, "mos"), listeners)
    entries = [*found["means"].values(), *found["differences"]]
    assert all((e["low"], e["high"], e["why"]) == (None, None, "too few listeners") for e in entries)
    means = {item: mean["mean"] for item, mean in found["means"].items()}
    for d in found["differences"]:
        assert d["mean"] == pytest.approx(means[d["item"]] - means[d["other"]])
    folder = test.folder(study)
    for text in (told, (folder / "table.md").read_text()):
        assert "(too few listeners)" in text and "an interval takes 4 listeners and 4 sentences" in text
        assert "Differences are those of the means" in text
    with open(folder / "table.csv", newline="") as file:
        assert {r["why"] for r in csv.DictReader(file) if r["quantity"] in ("mean", "difference")} == {"too few listeners"}


def test_why_a_difference_is_not_that_of_the_means_is_said_where_it_is_read(rated, said):
    study, test, _ = rated
    told, _ = said
    for text in (told, (test.folder(study) / "table.md").read_text()):
        assert "severity" in text and "are not quite those of the means" in text


def test_figures_of_the_clips_played_say_so(said):
    _, found = said
    head = next(h for h in rows(found)[0] if h.startswith(found["labels"]["mcd"]))
    assert head.endswith(", of the clips played")
    assert not any("clips played" in h for h in rows(found, automatic=False)[0])


@pytest.mark.parametrize(("share", "verdict"), [(0.95, "told apart"), (0.5, "not")])
def test_abx_says_whether_systems_can_be_told_apart(tmp_path, share, verdict):
    study = short_study(tmp_path)
    test = made("abx", "page.sentences=8", "page.task.pairs=[[lora,base]]")
    test.build(study)
    key = key_of(study, "abx")
    rng = np.random.default_rng(5)

    def answer(code, trial):
        right = rng.random() < share or trial.accepted is not None
        return max(trial.worth, key=lambda a: trial.worth[a] if right else -trial.worth[a])

    hand_in(test.folder(study), {str(i): session(key, str(i), answer) for i in range(1, 13)})
    told = test.read(study, [test.folder(study) / "results"])
    found = json.loads((test.folder(study) / "listening.json").read_text())
    exact, mean = found["exact"]["lora against base"], found["means"]["lora against base"]
    assert exact["n"] == 96 and len(exact["listeners"]) == 12 and all(t["n"] == 8 for t in exact["listeners"].values())
    assert (exact["p"] < 1e-6) == (mean["low"] > 0.5) == (exact["low"] > 0.5) == (verdict == "told apart")
    assert "binomial p" in told and "Wilson" not in told and told.count("[") == 2  # one of the figure, one of it before screening
    assert found["correlations"] == [] and found["differences"] == []


def test_where_everybody_is_right_the_interval_is_wilsons(tmp_path):
    study = short_study(tmp_path)
    test = made("abx", "page.sentences=8", "page.task.pairs=[[lora,base]]")
    test.build(study)
    key = key_of(study, "abx")

    def right(code, trial):
        return max(trial.worth, key=trial.worth.get)

    hand_in(test.folder(study), {str(i): session(key, str(i), right) for i in range(1, 6)})
    told = test.read(study, [test.folder(study) / "results"])
    mean = json.loads((test.folder(study) / "listening.json").read_text())["means"]["lora against base"]
    assert mean["mean"] == mean["high"] == 1 and mean["low"] == pytest.approx(40 / (40 + 1.96**2), abs=1e-4) and "1.00 [0.91, 1.00]" in told


def test_comparisons_are_positive_for_the_better_system(tmp_path):
    study = short_study(tmp_path)
    test = made("cmos", "page.sentences=8")
    test.build(study)
    key = key_of(study, "cmos")
    means = {"full against base": 1.5, "lora against base": -1.0}
    hand_in(test.folder(study), {str(i): session(key, str(i), rater(key, str(i), means, noise=0.4)) for i in range(1, 9)})
    test.read(study, [test.folder(study) / "results"])
    found = json.loads((test.folder(study) / "listening.json").read_text())
    assert found["means"]["full against base"]["low"] > 0.8 and found["means"]["lora against base"]["high"] < -0.4
    assert found["dropped"] == 0 and all(c["n"] == 16 for c in found["correlations"])


# ---- statistics -----------------------------------------------------------------------------------------------------------------------


def simulated(seed, listeners, sentences, items, complete):
    """Ratings with listeners', sentences' and their interactions' effects; item i has the mean 2.5 + i / 4."""
    rng = np.random.default_rng(seed)
    severity, ease = rng.normal(0, 0.5, listeners), rng.normal(0, 0.3, sentences)
    taste, fit = rng.normal(0, 0.2, (listeners, items)), rng.normal(0, 0.2, (sentences, items))
    plan = sheets(sentences, items, 1, complete, None)
    cells = [(who, c.sentence, c.item) for who in range(listeners) for c in plan[who % len(plan)]]
    values = [2.5 + i / 4 + severity[w] + ease[s] + taste[w, i] + fit[s, i] + rng.normal(0, 0.7) for w, s, i in cells]
    return Crossed(*(list(map(str, column)) for column in zip(*cells)), values, seed)


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize(("listeners", "sentences"), [(16, 12), (8, 8)])
def test_intervals_cover_as_often_as_they_say(monkeypatch, complete, listeners, sentences):
    monkeypatch.setattr("ttsadapt.listening.intervals.DRAWS", 300)
    hits = []
    for seed in range(120):
        crossed = simulated(seed, listeners, sentences, 4, complete)
        mean, difference = crossed.mean("1"), crossed.difference("3", "0")
        hits.append((mean.low <= 2.75 <= mean.high, difference.low <= 0.75 <= difference.high))
    assert np.mean(hits, axis=0) == pytest.approx([0.95, 0.95], abs=0.05)


def test_a_mean_knows_that_listeners_are_few():
    """Many ratings by few listeners are not many independent ratings."""
    crossed = simulated(1, 6, 40, 4, True)
    naive = 1.96 * np.std(crossed.value[crossed.item == 1]) / math.sqrt(240)
    assert crossed.mean("1").half > 2 * naive


def test_differences_are_free_of_severity():
    """One listener hears only the good system on easy sentences: the plain difference of means is off, the adjusted one is not."""
    cells = [(w, s, i) for w in range(6) for s in range(6) for i in range(2) if (w < 3) == (i == 0) or s < 2]
    values = [3 + 0.5 * i + 1.0 * (w < 3) + 0.2 * s for w, s, i in cells]
    crossed = Crossed(*(list(map(str, c)) for c in zip(*cells)), values)
    assert crossed.difference("1", "0").mean == pytest.approx(0.5, abs=1e-6)
    assert crossed.mean("1").mean - crossed.mean("0").mean < 0.3


def test_where_nothing_is_known_there_is_no_interval():
    """One listener, or a few who agree by chance; an item on which all agree. And no interval leaves the scale."""
    cells = [(w, s, (w + s) % 3) for w in range(2) for s in range(6)]
    two = Crossed(*(list(map(str, c)) for c in zip(*cells)), [5, 3, 1, 5, 3, 1, 3, 2, 5, 3, 2, 5])
    assert two.difference("2", "1").mean == two.mean("2").mean - two.mean("1").mean and two.unknown == "too few listeners"
    assert all(math.isnan(e.low) for e in (two.difference("2", "1"), two.mean("1")))
    alone = Crossed(["a"] * 4, ["1", "2", "3", "4"], ["x"] * 4, [3, 4, 5, 4])
    assert alone.mean("x").mean == 4 and math.isnan(alone.mean("x").low)
    cells = [(w, s, i) for w in range(4) for s in range(4) for i in range(2)]
    agreed = Crossed(*(list(map(str, c)) for c in zip(*cells)), [1.0 if i else float(w + s > 0) for w, s, i in cells])
    assert agreed.mean("1").mean == 1 and math.isnan(agreed.mean("1").low) and math.isnan(agreed.mean("1").high)
    assert agreed.unknown == "all alike"
    assert agreed.mean("0").low < 15 / 16 and agreed.mean("0").high <= 1


KRIPPENDORFF = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
"""four observers, twelve units: the example of "Computing Krippendorff's alpha-reliability" (2011), section E, as intervals"""


def test_alpha_is_the_published_one():
    columns = zip(*(line.split() for line in KRIPPENDORFF.strip().splitlines()))
    units = [[float(v) for v in column if v != "."] for column in columns]
    assert alpha(units) == pytest.approx(0.849, abs=5e-4)


def test_alpha_of_chance_of_agreement_and_of_nothing():
    rng = np.random.default_rng(0)
    assert alpha(rng.integers(1, 6, (300, 4)).tolist()) == pytest.approx(0, abs=0.06)
    assert alpha([[1, 1], [2, 2], [5, 5]]) == 1
    assert math.isnan(alpha([[3], [4]])) and math.isnan(alpha([[3, 3], [3, 3]]))


def test_spearman_is_scipys_with_an_interval_around_it():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(1)
    a = rng.integers(1, 6, 60).astype(float)
    b = a + rng.normal(0, 1.5, 60)
    rho, low, high = spearman([str(i // 4) for i in range(60)], a.tolist(), b.tolist())
    assert rho == pytest.approx(spearmanr(a, b).statistic) and low < rho < high


def test_codes_are_hashed_as_the_page_does():
    """The published vectors of 64-bit FNV-1a; numbers take the sheets in turn."""
    assert fnv("") == 0xCBF29CE484222325 and fnv("a") == 0xAF63DC4C8601EC8C and fnv("foobar") == 0x85944171F73967E8
    assert [sheet_of(str(i), 3) for i in (1, 2, 3, 4)] == [0, 1, 2, 0] and sheet_of("anna", 3) == fnv("anna") % 3
