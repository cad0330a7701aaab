"""Which recordings are the target, the source, held out, left alone; two corpora as one."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tiny_corpora import CORPORA

from ttsadapt.config import paths
from ttsadapt.config.schema import check
from ttsadapt.data.found import Found
from ttsadapt.data.layouts.roles import Roles, Selection
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError


def found(speaker, emotion="neutral", number=0, label="", split=""):
    name = f"{speaker}-{emotion}-{split}-{number:03d}"
    return Found(Utterance(name, Path(f"{name}.wav"), f"Sentence {number}.", speaker, emotion, label=label), "target", split, name)


def few(speakers=("0011", "0012", "0013"), emotions=("neutral", "angry"), count=10):
    return [found(s, e, n, "Anger" if e == "angry" else "") for s in speakers for e in emotions for n in range(count)]


def sets(cast):
    counted = {}
    for one in cast:
        counted.setdefault(one.set, set()).add((one.utterance.speaker, one.utterance.emotion))
    return counted


def test_without_roles_everything_is_the_target():
    assert Roles().cast(few()) == few()


def test_target_by_speaker_and_emotion_the_rest_is_source_and_unseen_goes_first():
    cast = sets(Roles(target=Selection(["0011"])).cast(few()))
    assert cast["target"] == {("0011", "neutral"), ("0011", "angry")} and {s for s, _ in cast["source"]} == {"0012", "0013"}
    cast = sets(Roles(Selection(["0011", "0012"], ["angry"]), unseen=Selection(["0012"])).cast(few()))
    assert cast["target"] == {("0011", "angry")} and {s for s, _ in cast["unseen"]} == {"0012"}
    assert cast["source"] == {("0011", "neutral"), ("0013", "neutral"), ("0013", "angry")}


def test_numbers_and_the_corpus_s_own_words():
    for word in ("Angry", "angry", "Anger"):
        assert sets(Roles(keep=Selection(["0011"], [word])).cast(few())) == {"target": {("0011", "angry")}}
    assert sets(Roles(keep=Selection([14])).cast([found("14"), found("0014")])) == {"target": {("14", "neutral")}}


def test_an_unquoted_name_with_leading_zeros_is_told_and_no_other_speaker_is_taken():
    """YAML reads 0011 as the octal number 9."""
    read = OmegaConf.create("speaker: [0011]")
    with pytest.raises(DataError, match=r"^target.speaker: there is no 9 here, there is 0009, 0011; quote names with leading zeros$"):
        Roles(target=Selection(read.speaker)).cast(few(["0009", "0011"]))


@pytest.mark.parametrize("role", ["target", "unseen", "keep"])
def test_a_speaker_that_is_not_there(role):
    with pytest.raises(DataError, match=rf"^{role}.speaker: there is no '0099' here, there is 0011, 0012, 0013$"):
        Roles(**{role: Selection(["0011", "0099"])}).cast(few())
    with pytest.raises(DataError, match=rf"^{role}.emotion: there is no 'joyous' here, there is angry, neutral$"):
        Roles(**{role: Selection(emotion=["joyous"])}).cast(few())
    with pytest.raises(DataError, match=r"there is s00, s01, .* and 6 more$"):
        Roles(**{role: Selection(["x"])}).cast([found(f"s{i:02d}") for i in range(30)])


def test_nobody_is_left():
    with pytest.raises(DataError, match=r"^target: no utterance has all of speaker="):
        Roles(Selection(["a"], ["angry"])).cast([found("a"), found("b", "angry")])
    with pytest.raises(DataError, match=r"^all of target \(speaker=\['a'\]\) is also asked for as unseen \(speaker=\['a', 'b'\]\), which"):
        Roles(Selection(["a"]), Selection(["a", "b"])).cast([found("a"), found("b"), found("c")])
    with pytest.raises(ConfigError, match="limit is 0"):
        Roles(limit=0)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 60))
def test_the_limit_is_even(counts, limit):
    many = [found("a", e, n) for e, count in zip("wxyz", counts) for n in range(count)] + [found("b")]
    kept = Roles(limit=limit).cast(many)
    mine = [f.utterance.emotion for f in kept if f.utterance.speaker == "a"]
    assert len(mine) == min(limit, sum(counts)) and len(kept) == len(mine) + 1 and len({f.utterance.id for f in kept}) == len(kept)
    shares = {e: mine.count(e) for e in "wxyz"[: len(counts)]}
    short = [shares[e] for e, count in zip("wxyz", counts) if shares[e] < count]
    assert not short or (max(short) - min(short) <= 1 and max(shares.values()) <= max(short) + 1)
    assert kept == [f for f in many if f in kept]


def test_the_limit_is_spread_over_the_corpus():
    assert [f.utterance.text for f in Roles(limit=4).cast(few(["a"], ["sad"], 20))] == [f"Sentence {n}." for n in (0, 5, 10, 15)]


@pytest.fixture
def both(tmp_path):
    """ESD and LibriTTS by one command line, as the yaml says."""
    for name, variant in (("libritts", "LibriTTS"), ("esd", "flat")):
        CORPORA[name]()[variant].build(tmp_path / name)

    def made(*overrides):
        given = [
            "data=together",
            "paths.outputs=somewhere",
            f"data.source.path={tmp_path}/libritts",
            f"data.target.path={tmp_path}/esd",
            *overrides,
        ]
        with initialize_config_dir(str(paths.conf()), version_base=None):
            cfg = compose("prepare", given)
        check(cfg, "prepare")
        return cfg.data, instantiate(cfg.data)

    return made


def test_one_corpus_as_source_and_another_as_target(both):
    node, it = both("data.target.keep.speaker=[0011]", "data.source.unseen.speaker=[16]", "data.bring.sample_rate=24000")
    cast = {f.utterance.id: (f.set, f.utterance.speaker) for f in it.found()}
    assert cast == {
        "source-14_208_000001_000000": ("source", "14"),
        "source-16_122_000002_000001": ("unseen", "16"),
        "source-84_121_000007_000001": ("source", "84"),
        "source-61_70_000004_000000": ("source", "61"),
        "target-0011_000001": ("target", "0011"),
        "target-0011_000351": ("target", "0011"),
    }
    assert {"libritts.py", "esd.py", "together.py"} <= {path.name for path in it.code()}
    assert it.bring == it.source.bring == it.target.bring and it.bring.sample_rate == 24000
    assert OmegaConf.to_container(node)["source"]["bring"] == "${data.bring}"


def test_what_is_wrong_in_one_of_two_is_told(both, tmp_path):
    (tmp_path / "esd/Emotion Speech Dataset/0011/Angry/0011_000351.wav").unlink()
    _, it = both()
    assert [one.kind for one in it.found() if not isinstance(one, Found)] == ["missing file"]
    _, it = both("data.target.path=nowhere")
    with pytest.raises(DataError, match="path=nowhere: there is no such folder"):
        list(it.found())


def test_speakers_of_both_corpora_are_told_apart(both, tmp_path):
    CORPORA["vctk"]()["0.80"].build(tmp_path / "esd")
    _, it = both("data@data.source=vctk", "data@data.target=vctk", f"data.source.path={tmp_path}/esd")
    cast = list(it.found())
    assert {f.utterance.speaker for f in cast} == {f"{role}-{name}" for role in ("source", "target") for name in ("p225", "s5")}
    assert len({f.utterance.id for f in cast}) == len(cast) == 6
