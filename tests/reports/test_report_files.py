"""What the report writes, against what the runs left behind."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fabricate import HOSTILE, METRICS, failed, study

from ttsadapt.errors import UserError
from ttsadapt.reports import build, clips, console_table
from ttsadapt.reports.study import read_study
from ttsadapt.reports.systems import Systems

VOID = {"meta", "link", "input", "img", "br", "use", "path"}


class Page(HTMLParser):
    """Tags with their attributes, text outside of scripts, and whether every tag was closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [a for t, a in self.tags if t == tag]


@pytest.fixture(scope="module")
def page(reported: Path) -> Page:
    return Page((reported / "report.html").read_text())


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def summaries(folder: Path) -> dict[tuple[str, int], dict]:
    found = [json.loads(p.read_text()) for p in folder.glob("*/summary.json")]
    return {(s["name"], s["seed"]): s for s in found if s["status"] == "finished"}


def test_writes_all_files(reported):
    names = ["report.html", "report.md", "table.csv", "table.tex"]
    names += [f"plots/{n}.png" for n in ("tradeoff", "losses", "blocks", "mel_pairs")]
    assert all((reported / n).stat().st_size > 500 for n in names)
    assert (reported / "report.html").stat().st_size < 8e6
    assert not list(reported.rglob("*.tmp"))


def test_page_is_well_formed_and_asks_for_nothing(page):
    assert page.open == []
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    anchors = {a["href"][1:] for a in page.all("a")}
    assert anchors <= set(ids)


def test_hostile_text_is_escaped(page, reported):
    assert len(page.all("script")) == 1
    assert HOSTILE.strip() in page.text
    assert "<img src=x" in page.text and all(a.get("src") != "x" for a in page.all("img"))
    assert reported.name in page.text
    markdown = (reported / "report.md").read_text()
    assert "a&lt;b&gt;&amp;\\_{c}%" in markdown and "<img" not in markdown
    tex = (reported / "table.tex").read_text()
    assert r"a\textless{}b\textgreater{}\&\_\{c\}\%" in tex


def test_markdown_says_how_many(reported):
    """Utterances of every column and seeds of every system."""
    table = (reported / "report.md").read_text().split("## ")[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]
    counts = next(row for row in rows if row[0] == "n")
    seeds = rows[0].index("seeds")
    assert all(int(cell) > 0 for cell in counts[1:seeds])
    assert {row[seeds] for row in rows[2:-1]} > {"–"}


def test_page_is_accessible(page):
    assert len(page.all("h1")) == 1 and len(page.all("main")) == 1
    levels = [int(t[1]) for t, _ in page.tags if re.fullmatch("h[1-6]", t)]
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(a.get("alt") for a in page.all("img"))
    assert all(a.get("aria-label") for a in page.all("audio"))
    assert all(a.get("scope") for a in page.all("th"))
    assert all(a.get("role") == "img" and a.get("aria-label") for a in page.all("svg"))


def test_csv_repeats_the_summaries(reported):
    stated = summaries(reported)
    seen = 0
    for row in rows(reported):
        key = (row["system"], 0)
        if row["kind"] != "adapted" or row["seeds"] != "1":
            continue
        source = stated[key]["sets"][row["set"]] if row["quantity"] == "value" else stated[key][row["quantity"]]
        entry = source[row["metric"]]
        assert [float(row[k]) for k in ("mean", "low", "high")] == [entry[k] for k in ("mean", "low", "high")]
        assert float(row["train_seconds"]) == stated[key]["train_seconds"]
        seen += 1
    assert seen == 3 * len(METRICS) * 4


def test_seeds_are_averaged_and_their_spread_is_stated(reported, page):
    stated = summaries(reported)
    means = [stated["lora", seed]["sets"]["target"]["mcd"]["mean"] for seed in (0, 1)]
    (row,) = [r for r in rows(reported) if (r["system"], r["quantity"], r["set"], r["metric"]) == ("lora", "value", "target", "mcd")]
    assert row["seeds"] == "2"
    assert float(row["mean"]) == pytest.approx(np.mean(means), abs=1e-5)
    assert float(row["seed_sd"]) == pytest.approx(np.std(means, ddof=1), rel=1e-3)
    assert float(row["low"]) < float(row["mean"]) < float(row["high"])
    assert "over 2 seeds" in page.text


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path):
    folder = study(tmp_path, strategies=[("lora",)], tests={"target": 3, "source": 3}, seeds=(0, 1), wavs=False)
    for seed, run in enumerate(sorted(folder.iterdir(), key=lambda p: json.loads((p / "summary.json").read_text())["seed"])):
        config = json.loads((run / "config.yaml").read_text())
        config["strategy"]["lora"]["rank"] = 4 * (seed + 1)
        (run / "config.yaml").write_text(json.dumps(config))
    assert [s.label for s in Systems(read_study(folder)).adapted] == ["lora (rank=4)", "lora (rank=8)"]


def test_what_preserves_stands_beside_the_same_training_without_it(tmp_path):
    from ttsadapt.reports.plots import _styles

    folder = study(tmp_path, strategies=[("lora",), ("kd", "lora")], tests={"target": 3, "source": 3}, seeds=(0, 1), wavs=False)
    for run in folder.iterdir():
        config = json.loads((run / "config.yaml").read_text())
        config["strategy"]["lora"]["rank"] = 4 * (config["seed"] + 1)
        (run / "config.yaml").write_text(json.dumps(config))
    systems = Systems(read_study(folder))
    pairs = [(plain.label, kept.label) for plain, kept in systems.preserved_pairs()]
    assert [[label.partition(" ")[2] for label in pair] for pair in pairs] == [["(rank=4)"] * 2, ["(rank=8)"] * 2]
    styles = _styles(systems)
    for plain, kept in systems.preserved_pairs():
        assert styles[plain][0] == styles[kept][0] and (styles[plain][1], styles[kept][1]) == ("-", "--")
    assert len({colour for colour, _, _ in styles.values()}) == 2


def test_names_too_long_for_a_plot_are_numbered_above_it(reported):
    from ttsadapt.reports.compare import change_table
    from ttsadapt.reports.plots import draw

    systems = Systems(read_study(reported))
    assert not draw(systems, change_table(systems))["tradeoff"].legends
    for system in systems:
        system.label += " (optimizer.lr=0.0001, rank=16)"
    figure = draw(systems, change_table(systems))["tradeoff"]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said[0].startswith("1  ") and len(said) == len(systems.adapted)
    assert all(text.get_text().isdigit() for text in figure.axes[0].texts)


def test_latex_rows_have_as_many_cells_as_columns(reported):
    tex = (reported / "table.tex").read_text()
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", tex, re.S):
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert lines and all(len(re.split(r"(?<!\\)&", line)) == len(columns) for line in lines)
        assert body.count(r"\toprule") == body.count(r"\bottomrule") == 1
    assert tex.count("{") == tex.count("}")
    assert "[" in tex and r"\textbf{" in tex
    assert not re.search(r"[^\x00-\x7f]", tex)


def test_failed_run_is_named_with_its_error(page, reported):
    assert "full+kd" in page.text and "ValueError: <img" in page.text
    assert "full+kd" in (reported / "report.md").read_text()
    assert "failed: full+kd (failedfailed) ValueError" in console_table(reported)


def test_console_table_is_narrow_and_aligned(reported):
    lines = console_table(reported).splitlines()
    assert max(map(len, lines)) <= 120
    rule = next(line for line in lines if line.startswith("──"))
    header = lines[lines.index(rule) - 1]
    ends = [m.end() for m in re.finditer("─+", rule)]
    row = next(line for line in lines if line.startswith("full "))
    assert all(len(row) == e or row[e] == " " for e in ends) and len(header) == ends[-1]


def test_same_utterances_for_every_system_across_emotions(reported):
    chosen = clips.choose(Systems(read_study(reported)))
    by_set = {s: [u for u in chosen if u.set == s] for s in ("target", "source")}
    assert {s: len(u) for s, u in by_set.items()} == {"target": 4, "source": 3}
    assert all(len({u.emotion for u in us}) == len(us) for us in by_set.values())
    html = (reported / "report.html").read_text()
    assert html.count("<audio") == 7 * 7  # recordings, resynthesis, base, full, csp, lora, full with preservation


def test_budget_leaves_out_whole_utterances(reported, monkeypatch):
    monkeypatch.setattr(clips, "BUDGET", 1)
    heard = clips.listening(Systems(read_study(reported)))
    assert len(heard) == 1 and len(heard[0].clips) == 7


def test_a_study_without_scores_or_wavs_still_has_a_page(tmp_path):
    run = tmp_path / "bare" / "0123"
    run.mkdir(parents=True)
    (run / "summary.json").write_text('{"status": "finished", "name": "full", "strategies": ["full"]}')
    text = build(run.parent).read_text()
    assert "No run of this study has been scored" in text
    assert Page(text).open == []
    assert console_table(run.parent)


def test_a_study_of_the_untuned_model_alone_has_a_page(tmp_path):
    folder = study(tmp_path, strategies=[()], tests={"target": 1})
    page = Page(build(folder).read_text())
    assert page.open == [] and "No adapted run has been scored" in page.text
    assert len(page.all("audio")) == 3
    assert (folder / "plots" / "mel_pairs.png").is_file() and not (folder / "plots" / "tradeoff.png").exists()


@pytest.mark.parametrize("wanted", ["compar", "nothing", "empty"])
def test_no_such_study_is_one_line_that_names_the_others(tmp_path, wanted):
    study(tmp_path, "compare", [()], {"target": 2}, wavs=False)
    failed(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    for command in (build, console_table):
        with pytest.raises(UserError) as error:
            command(tmp_path / wanted)
        message = str(error.value)
        assert wanted in message and "studies with finished runs: compare" in message and "\n" not in message


@pytest.mark.parametrize("line", ["target,t000,mcd,eight,dB", "target,t000"])
def test_a_broken_score_is_named_by_file_and_line(tmp_path, line):
    folder = study(tmp_path, strategies=[()], tests={"target": 2}, wavs=False)
    path = next(folder.glob("*/scores.csv"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], line, *lines[4:]]))
    with pytest.raises(UserError, match=r"scores\.csv:5: "):
        read_study(folder)


def test_unreadable_wav_is_named(tmp_path):
    folder = study(tmp_path, strategies=[()], tests={"target": 2})
    wav = next(folder.glob("*/wavs/target/*.wav"))
    wav.write_bytes(b"no audio")
    with pytest.raises(UserError, match=re.escape(str(wav))):
        build(folder)


def test_imports_stay_light():
    code = "import sys, ttsadapt.reports.writing; print(sorted({'torch', 'pandas', 'lightning', 'librosa', 'scipy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_labels_in_the_terminal_are_cut_where_that_leaves_them_apart():
    from ttsadapt.reports.tables import _shortened

    long = ["lora (" + "x" * 40 + letter + "y" * 9 for letter in "ab"]
    assert [len(s) for s in _shortened(long, 30)] == [48, 48] and len(set(_shortened(long, 30))) == 2
    assert _shortened(["x" * 40, "lora"], 30) == ["x" * 29 + "…", "lora"] and _shortened([], 30) == []
