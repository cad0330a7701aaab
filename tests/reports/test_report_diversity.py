"""Gains against the diversity of the data: correlations with a known answer, in the page and in the tables."""

import json

import numpy as np
import pytest
from fabricate import run

from ttsadapt.reports import build
from ttsadapt.reports.diversity import FEWEST, FIGURES, diversity, drawn, to_markdown
from ttsadapt.reports.study import read_study
from ttsadapt.reports.systems import Systems


@pytest.fixture
def study(tmp_path):
    """`study(n)`: one strategy, n sets of data; energy varies as MCD was gained, DNS-MOS the other way, SNR not at all."""

    def made(sets, looked_at=None, seeds=1):
        folder = tmp_path / "outputs" / f"study{sets}"
        for number in range(sets * seeds):
            k = number % sets
            place = run(folder, ("lora",), number, {"target": 4, "source": 4}, wavs=False)
            config = json.loads((place / "config.yaml").read_text())
            (place / "config.yaml").write_text(json.dumps(config | {"seed": number // sets, "data": {"target_train": k}}))
            summary = json.loads((place / "summary.json").read_text())
            summary["gain"]["mcd"] = {"mean": float(k), "low": k - 0.5, "high": k + 0.5, "n": 4}
            (place / "summary.json").write_text(json.dumps(summary))
            figures = {"energy_sd": 10.0 + 2 * k, "dnsmos_sd": 1 - 0.1 * k + 0.02 * (-1) ** k, "snr": 20.0, "f0_sd": None}
            if looked_at is None or number < looked_at:
                (place / "diversity.json").write_text(json.dumps({"all": {"figures": figures}}))
        return folder

    return made


def found(folder):
    return diversity(Systems(read_study(folder)))


def test_correlations_are_pearsons_with_fishers_interval(study):
    said = found(study(6))
    assert len(said.points) == 6 and said.note.startswith("6 points: so few")
    of = {name: said.of("mcd", name) for name in FIGURES}
    assert of["energy_sd"].correlation.mean == pytest.approx(1) and of["f0_sd"] is None and of["snr"].said == "–"
    e = of["dnsmos_sd"].correlation
    x, y = np.array([p.figures["dnsmos_sd"] for p in said.points]), np.array([p.gain["mcd"].mean for p in said.points])
    r = np.corrcoef(x, y)[0, 1]
    z = np.arctanh(r) + np.array([-1, 1]) * 1.959964 / np.sqrt(6 - 3)
    assert (e.mean, e.low, e.high, e.n) == (pytest.approx(r), *map(pytest.approx, np.tanh(z)), 6) and e.high < -0.9


def test_seeds_are_no_points_of_their_own(study):
    """They learn from the same recordings; where one of them was looked at, all were."""
    said = found(study(5, looked_at=5, seeds=3))
    assert [p.label for p in said.points] == [f"lora (target_train={k})" for k in range(5)]
    assert said.of("mcd", "energy_sd").correlation.n == 5 and set(said.points[0].gain) >= {"mcd", "per", "duration_ratio"}


def test_the_page_and_the_tables_show_it(study):
    folder = study(5)
    build(folder)
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert 'id="diversity"' in page and "5 points: so few" in page and (folder / "plots" / "diversity.png").is_file()
    assert "| gain, correlated with | energy s.d., dB | DNS-MOS s.d. | WADA-SNR, dB |" in text and "1. lora (target\\_train=0)" in text
    assert "| MCD | +1.00" in text
    widths = {line.count("|") for line in text.split("## Diversity")[1].splitlines() if line.startswith("|")}
    assert widths == {5}


@pytest.mark.parametrize("looked_at", [0, FEWEST - 1])
def test_without_enough_data_looked_at_there_is_no_such_part(study, looked_at):
    said = found(study(5, looked_at))
    assert drawn(said) is None and to_markdown(said) == "" and not said.relations
