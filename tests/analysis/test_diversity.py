"""The diversity of recordings: figures with a known answer, what is kept, what is said, and that an analysis is chosen by its class."""

import csv
import json

import numpy as np
import pytest
import soundfile
from hydra.utils import instantiate

from ttsadapt.analysis import recorded
from ttsadapt.analysis.diversity import ALL, Diversity
from ttsadapt.analysis.diversity_told import picture, table
from ttsadapt.analysis.ranking import Settings
from ttsadapt.analysis.verdict import Gates, verdict
from ttsadapt.analyze import job as analyze
from ttsadapt.config.base import base_config, composed
from ttsadapt.config.identity import run_folder, run_id
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import ConfigError, DataError

RATE = 16000


def tone(gains, pitch, seconds=0.3):
    """A buzz at `pitch` Hz, `seconds` at each of the `gains` in dB."""
    time = np.arange(round(seconds * RATE) * len(gains)) / RATE
    wave = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 12))
    level = np.repeat(10 ** (np.asarray(gains) / 20), round(seconds * RATE))
    return (0.1 * wave * level).astype(np.float32)


@pytest.fixture
def said(tmp_path):
    def made(name, audio, speaker="anna", phones="haɪ"):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, audio, RATE)
        step = len(audio) / RATE / len(phones)
        times = tuple(Phone(p, k * step, (k + 1) * step) for k, p in enumerate(phones))
        return Utterance(name, path, "hi", speaker, duration=len(audio) / RATE, phones=times)

    return made


def test_figures_are_those_of_the_signal(said, tmp_path):
    loud = said("loud", tone([0] * 6, 110), phones="haɪba")
    quiet = said("quiet", tone([-20] * 6, 220), phones="bahi")
    wanted = Diversity(clips=0)
    found = wanted.measured([loud, quiet, said("other", tone([0] * 4, 110), "bert")], tmp_path)
    assert list(found) == ["anna", "bert", ALL]
    assert list(wanted.measured([loud, said("third", tone([0] * 4, 110), ALL)], tmp_path)) == [ALL, "anna", "all of them"]
    figures = wanted.figures(found["anna"], {"en-us": set("haɪbx")})
    assert figures["clips"] == 2 and figures["hours"] == pytest.approx(3.6 / 3600, rel=0.05)
    assert figures["energy_sd"] == pytest.approx(10, abs=0.3)  # half of the frames 20 dB below the others
    assert 0 <= figures["energy_low"] < figures["energy_sd"] <= figures["energy_high"] + 1e-9  # of two clips
    assert figures["f0_sd"] == pytest.approx(6, abs=0.3) and figures["f0_range"] == pytest.approx(12, abs=0.5)  # an octave
    assert figures["phones"] == 5 and figures["diphones"] == len({"ha", "aɪ", "ɪb", "ba", "ah", "hi"})
    assert figures["inventory_share"] == pytest.approx(4 / 5)  # i is not in the source, x was not said
    assert figures["rate"] == pytest.approx((3 + 2) / 2 / 1.8, rel=0.05)  # a, ɪ, a and a, i
    assert figures["dnsmos"] is None and figures["dnsmos_clips"] == 0
    alone = wanted.figures(found["bert"], {})
    assert alone["energy_low"] is None and "of source's" not in table({"bert": alone})[0] and "of source's" in table({"a": figures})[0]
    assert alone["energy_sd"] < 1 and alone["f0_sd"] < 0.3 and alone["inventory_share"] is None and alone["snr_sd"] is None


def test_pauses_count_unless_only_speech_is_asked_for(said, tmp_path):
    one = said("one", tone([0, -70, 0, -70, 0, -70, 0], 150))
    everything, speech, shallow = (Diversity(clips=0, **k) for k in ({}, {"speech_only": True}, {"floor": 41.0}))
    sd = [d.figures(d.measured([one], tmp_path)[ALL], {})["energy_sd"] for d in (everything, speech, shallow)]
    assert sd[0] == pytest.approx(60 * np.sqrt(12 / 49), rel=0.1) and sd[1] < 4 < sd[2] < sd[0]


def test_one_speaker_is_one_row_of_the_picture(tmp_path):
    one, known = [(np.zeros(9), np.ones(9))], {"energy_sd": 1.0, "f0_sd": None}
    heights = []
    for names in (["anna", ALL], ["anna", "bert", ALL]):
        picture(dict.fromkeys(names, one), dict.fromkeys(names, known), tmp_path / "it.png")
        heights.append(int.from_bytes((tmp_path / "it.png").read_bytes()[20:24], "big"))
    assert heights[0] < heights[1] / 2


def test_a_recording_is_measured_once(said, tmp_path, monkeypatch):
    one = said("one", tone([0, -6], 150))
    first = recorded.clip(one, tmp_path)

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(recorded, "levels", again)
    kept = recorded.clip(one, tmp_path)
    assert np.array_equal(kept.level, first.level) and np.array_equal(kept.f0, first.f0) and kept.snr == first.snr
    with pytest.raises(AssertionError, match="measured again"):
        recorded.clip(said("one", tone([0, -7], 150)), tmp_path)  # the same name, other contents


def figures(**changed):
    known = {"energy_sd": 16.0, "energy_low": None, "energy_high": None, "dnsmos": 3.2, "dnsmos_sd": 0.3}
    return known | {"snr": 30.0, "hours": 5.0, "clips": 900} | changed


@pytest.mark.parametrize(
    ("changed", "gates", "likely", "words"),
    [
        ({}, {}, "yes", "likely to help: its energy varies by 16.0 dB (15 dB or more; 13 dB is a second-hand figure, arXiv 2603.10904"),
        ({"energy_sd": 14.0}, {}, "perhaps", "between 13 and 15 dB"),
        ({"energy_sd": 12.9}, {}, "no", "(below 13 dB; 13 dB is a second-hand figure, arXiv 2603.10904)."),
        ({"energy_sd": 12.97}, {}, "perhaps", "varies by 13.0 dB (between 13 and 15 dB"),
        ({"energy_sd": 12.9}, {"energy": (10.0, 12.0)}, "yes", "(12 dB or more; the threshold is yours;"),
        ({"snr": 9.0}, {}, "perhaps", "But the recordings are noisy, 9.0 dB by WADA-SNR, less than 15 (our threshold;"),
        ({"snr": 14.6}, {}, "perhaps", "14.6 dB by WADA-SNR, less than 15 (our"),
        ({"snr": 14.6}, {"snr": 16.0}, "perhaps", "less than 16 (the threshold is yours;"),
        ({"snr": 9.0, "energy_sd": 9.0}, {}, "no", "Besides, the recordings are noisy"),
        ({"snr": 9.0}, {"snr": None}, "yes", "likely to help"),
        ({"dnsmos_sd": 0.1}, {"quality": 0.2}, "perhaps", "DNS-MOS varies by 0.10 only"),
        ({"hours": 0.5}, {"hours": 3.5}, "perhaps", "0.50 hours, less than 3.5"),
        ({"energy_sd": None}, {}, "unknown", "no speech"),
        ({"energy_low": 15.2, "energy_high": 16.9}, {}, "yes", "varies by 16.0 dB, 95 % interval 15.2 to 16.9 (15 dB or more"),
        (
            {"energy_low": 14.2, "energy_high": 17.9},
            {},
            "perhaps",
            "may as well lie on the other side of that: more recordings would tell.",
        ),
        ({"energy_sd": 12.5, "energy_low": 12.0, "energy_high": 13.1}, {}, "perhaps", "interval 12.0 to 13.1 (below 13 dB"),
        ({}, {}, "yes", "Looked at: 5.00 h of speech in 900 recordings, of DNS-MOS 3.2 (1 to 5) on average."),
        ({"hours": 0.04, "dnsmos": None}, {}, "yes", "2.4 min of speech in 900 recordings; the speakers of arXiv"),
    ],
)
def test_the_verdict_says_why_and_how_sure_that_is(changed, gates, likely, words):
    said = verdict("anna", figures(**changed), Gates(**gates))
    assert said["likely"] == likely and said["said"].startswith("anna: ") and words in said["said"] and "\n" not in said["said"]


def test_an_analysis_is_chosen_by_its_class():
    made = {name: instantiate(composed(f"analysis={name}", name="analyze").analysis) for name in ("layers", "diversity")}
    assert type(made["layers"]) is Settings and type(made["diversity"]) is Diversity
    assert type(instantiate(composed(name="analyze").analysis)) is Settings
    assert vars(Diversity()) == vars(made["diversity"])


def test_the_study_adapts_one_base_to_targets_of_many_kinds_and_looks_at_the_same_runs():
    """Its data differ from run to run; the base, which learns from other data, does not."""
    kinds = [("clean", "null"), ("noise", "null"), ("diverse", "[neutral]")]
    asked = [("experiments=diversity/compare", f"condition@data.conditions.target={c}", f"data.target_emotions={e}") for c, e in kinds]
    runs = [composed(*overrides) for overrides in asked]
    assert len({run_id(run) for run in runs}) == 3 and len({run_id(base_config(run)) for run in runs}) == 1
    assert base_config(runs[1]).data._target_.endswith(".Embedded")
    looks = [composed(*overrides, "analysis=diversity", name="analyze") for overrides in asked]
    assert [run_folder(look) for look in looks] == [run_folder(run) for run in runs]


@pytest.fixture
def cfg(mini):
    overrides = [o for o in mini.args() if not o.startswith("base=")]
    own = ("data.target_voices=2", "analysis=diversity", "analysis.clips=0", "study=analysis", "condition@data.conditions.target=noise")
    return composed(*overrides, "base=null", *own, name="analyze")


def test_the_command_leaves_figures_a_table_and_a_picture(cfg, capsys):
    analyze(cfg)
    said, folder = capsys.readouterr().out, run_folder(cfg)
    left = json.loads((folder / "diversity.json").read_text())
    assert set(left["speakers"]) == {"shelby", "Lee"} and left["part"] == "target.train" and left["settings"]["gates"]["snr"] == 15.0
    assert left["speakers"]["shelby"]["figures"]["snr"] < 25 and 0.5 < left[ALL]["figures"]["inventory_share"] <= 1
    with open(folder / "diversity.csv", newline="") as file:
        rows = {r["speaker"]: r for r in csv.DictReader(file)}
    assert float(rows["Lee"]["energy_sd"]) == left["speakers"]["Lee"]["figures"]["energy_sd"] and list(rows) == ["Lee", "shelby", ALL]
    assert (folder / "diversity.png").read_bytes().startswith(b"\x89PNG")
    told = {name: s["figures"] for name, s in (left["speakers"] | {ALL: left[ALL]}).items()}
    assert left[ALL]["verdict"]["said"] in said and "\n".join(table(told)) in said
    before = (folder / "diversity.json").read_bytes()
    analyze(cfg)
    assert (folder / "diversity.json").read_bytes() == before


def test_mistakes_are_one_line(cfg):
    cfg.analysis.part = "target.trian"
    with pytest.raises(DataError, match=r"analysis.part=target.trian: the data have .*target.train"):
        analyze(cfg)
    for wrong, words in (({"clips": -1}, "clips=-1"), ({"floor": 20}, "floor=20"), ({"energy": [15, 13]}, "energy=")):
        with pytest.raises(ConfigError, match=words):
            Diversity(**wrong)


@pytest.mark.slow
def test_quality_varies_over_clips(said, tmp_path):
    pytest.importorskip("speechmos")
    wanted = Diversity(clips=2)
    generator = np.random.default_rng(0)
    clips = [said(str(k), tone([0] * 4, 150) + generator.normal(0, s, 19200).astype(np.float32)) for k, s in enumerate((0.0, 0.02, 0.1))]
    found = wanted.figures(wanted.measured(clips, tmp_path)[ALL], {})
    assert found["dnsmos_clips"] == 2 and 1 <= found["dnsmos"] <= 5 and found["dnsmos_sd"] > 0
