"""Every corpus in each of its real layouts: what is found, and that what is wrong is named while the rest goes on."""

import importlib.util
from collections import Counter
from functools import lru_cache

import pytest
import soundfile
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from tiny_corpora import CORPORA

from ttsadapt.artifacts import ensure
from ttsadapt.config import paths
from ttsadapt.config.schema import check
from ttsadapt.config.signatures import signature
from ttsadapt.data.bringing.engine import REJECTED, read_rejected
from ttsadapt.data.corpora.folder import Folder
from ttsadapt.data.corpora.listed import Listed
from ttsadapt.data.emotions import _SAID, COMMON, EMOTIONS, common
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout
from ttsadapt.data.layouts.recognised import recognised
from ttsadapt.data.prepare import PreparedCorpus
from ttsadapt.errors import DataError, UserError

ARROW = importlib.util.find_spec("pyarrow") is not None
YAMLS = {f.stem: node for f in sorted((paths.conf() / "data").glob("*.yaml")) if "_target_" in (node := OmegaConf.load(f))}
KNOWN = sorted(name for name, node in YAMLS.items() if issubclass(get_class(node._target_), Layout))


def tiny(name):
    return CORPORA[name]() if ARROW or name != "hugging_face" else {}


TINY = {name: tiny(name) for name in CORPORA}
VARIANTS = [(name, variant) for name, made in TINY.items() for variant in made]
TROUBLES = [(*at, trouble) for at in VARIANTS for trouble in TINY[at[0]][at[1]].troubles]
WHOLE = [(name, next(iter(made))) for name, made in TINY.items() if made]


@lru_cache
def node(name):
    with initialize_config_dir(str(paths.conf()), version_base=None):
        cfg = compose("prepare", [f"data={name}", "data.path=somewhere", "paths.outputs=somewhere"])
    check(cfg, "prepare")
    return OmegaConf.to_container(cfg.data, resolve=True)


def corpus(name, root, **settings):
    made = node(name) | {"path": str(root)} | settings
    made["bring"] = made["bring"] | {"fractions": [1.0, 0.0, 0.0], "processes": 1}
    return instantiate(made).remembering(root.with_name(f"{root.name}-cache"))


def made(name, variant, root, changes=None, **settings):
    one = TINY[name][variant]
    one.build(root, changes)
    given = {k: v.replace("{path}", str(root)) if isinstance(v, str) else v for k, v in one.settings.items()}
    return one, corpus(name, root, **given | settings)


def split(ones):
    ones = list(ones)
    found = {one.utterance.id: one for one in ones if isinstance(one, Found)}
    rejected = [one for one in ones if isinstance(one, Rejected)]
    assert len(found) + len(rejected) == len(ones)
    assert all("\n" not in one.told and one.where and one.told for one in rejected)
    return found, rejected


def seen(found):
    u = found.utterance
    return u.text, u.speaker, u.emotion, u.label, u.language, found.split


def wanted(one, root):
    return {i: tuple(v.replace("{name}", root.name) for v in values) for i, values in one.expected.items()}


def refused(call, kind=DataError):
    with pytest.raises(kind) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def prepared(it, root):
    artifact = PreparedCorpus(it, root.with_name(f"{root.name}-cache"))
    ensure(artifact)
    return {name: artifact.utterances(name) for name in artifact.names()}, read_rejected(artifact.folder / REJECTED)


def test_every_corpus_has_its_builder():
    assert sorted(CORPORA) == KNOWN
    assert all(issubclass(get_class(YAMLS[name]._target_), Listed) for name in [*KNOWN, "together"])


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_a_corpus_that_is_read_as_somebody_s_own_recordings_is_recognised(name, variant, tmp_path):
    one, _ = made(name, variant, tmp_path / "it")
    usable = (name, variant) in WHOLE and "transcripts_path" not in one.settings
    assert recognised(str(tmp_path / "it")) in ((name,) if usable else (name, ""))  # never another one


def test_what_nothing_can_be_used_of_is_told_by_its_name(tmp_path):
    made("esd", "flat", tmp_path / "it")
    assert refused(lambda: list(Folder(str(tmp_path / "it")).found())).endswith("it looks like a public corpus: data=esd reads it")
    (tmp_path / "own").mkdir()
    soundfile.write(tmp_path / "own" / "a.wav", [0.0] * 100, 16000)
    assert [one.kind for one in Folder(str(tmp_path / "own")).found()] == ["no transcript"]


@pytest.mark.parametrize("name", KNOWN)
def test_the_yaml_gives_every_argument_and_says_where_the_corpus_is_from(name):
    assert node(name).keys() - {"_target_"} == signature(node(name)["_target_"]).parameters.keys()
    comments = [line for line in (paths.conf() / f"data/{name}.yaml").read_text().splitlines() if line.startswith("# ")]
    assert "https://" in comments[1] or "http://" in comments[1]


@pytest.mark.parametrize(("name", "variant"), [v for v in VARIANTS if TINY[v[0]][v[1]].expected])
def test_what_is_found(name, variant, tmp_path):
    one, it = made(name, variant, tmp_path)
    found, rejected = split(it.found())
    assert rejected == [] and {i: seen(f) for i, f in found.items()} == wanted(one, tmp_path)
    assert all(f.set == "target" and f.utterance.audio.is_file() and f.utterance.emotion in EMOTIONS for f in found.values())
    assert list(found) == list(split(it.found())[0])


@pytest.mark.parametrize(("name", "variant"), WHOLE)
def test_it_is_brought_in(name, variant, tmp_path):
    """What was found is on disk, with its texts, speakers and labels."""
    one, it = made(name, variant, tmp_path)
    parts, rejected = prepared(it, tmp_path)
    utterances = {u.id: u for part in parts.values() for u in part}
    brought = {i: (u.text, u.speaker, u.emotion, u.label, u.language) for i, u in utterances.items()}
    assert brought == {i: values[:5] for i, values in wanted(one, tmp_path).items()}
    assert all(soundfile.info(u.audio).samplerate == 16000 and u.duration > 0.3 for u in utterances.values())
    assert all(name.startswith("target.") for name in parts) and rejected == []


@pytest.mark.parametrize(("name", "variant", "trouble"), [t for t in TROUBLES if TINY[t[0]][t[1]].troubles[t[2]].kind == "leak"])
def test_a_sentence_in_two_official_splits_is_told(name, variant, trouble, tmp_path):
    wrong = TINY[name][variant].troubles[trouble]
    one, it = made(name, variant, tmp_path, wrong.changes)
    parts, rejected = prepared(it, tmp_path)
    assert {u.id for part in parts.values() for u in part} == one.expected.keys() - set(wrong.lost)
    assert [r.kind for r in rejected] == ["leak"] and "it is left out of train" in rejected[0].told


@pytest.mark.parametrize(("name", "variant", "trouble"), [t for t in TROUBLES if TINY[t[0]][t[1]].troubles[t[2]].kind != "leak"])
def test_what_is_wrong_is_named_and_the_rest_goes_on(name, variant, trouble, tmp_path):
    wrong = TINY[name][variant].troubles[trouble]
    one, it = made(name, variant, tmp_path, wrong.changes)
    if wrong.kind == "":
        assert wrong.words in refused(lambda: list(it.found()))
        return
    found, rejected = split(it.found())
    assert found.keys() == one.expected.keys() - set(wrong.lost)
    if wrong.kind is None:
        assert rejected == []
    else:
        assert rejected and {r.kind for r in rejected} == {wrong.kind} and all(wrong.words in f"{r.where}: {r.told}" for r in rejected)


@pytest.mark.parametrize(("name", "variant"), WHOLE)
def test_a_wrong_path(name, variant, tmp_path):
    archive = tmp_path / "corpus.tar.gz"
    archive.write_bytes(b"x")
    assert "is an archive: extract it" in refused(lambda: corpus(name, archive).fingerprint())
    (empty := tmp_path / "empty").mkdir()
    assert f"path={tmp_path}/nowhere: there is no such folder" in refused(lambda: list(corpus(name, tmp_path / "nowhere").found()))
    assert "is an archive: extract it" in refused(lambda: list(corpus(name, archive).found()))
    assert str(empty) in refused(lambda: list(corpus(name, empty).found()))


def test_the_folder_itself_or_the_one_above(tmp_path):
    _, above = made("ljspeech", "plain", tmp_path)
    itself = corpus("ljspeech", tmp_path / "LJSpeech-1.1")
    assert [f.utterance for f in above.found()] == [f.utterance for f in itself.found()]


def test_words_for_emotions():
    assert all(common(word, {}) in EMOTIONS for word in COMMON) and set(COMMON.values()) == set(EMOTIONS)
    assert Counter(word for words in _SAID.values() for word in words.split()).most_common(1)[0][1] == 1
    assert common("Pleasant surprise", {}) == "surprised" and common("", {}) == "neutral" and common("spleen", {}) is None
    assert common("Spleen", {"spleen": "melancholic"}) == "melancholic" and common("happy", {"happy": "glad"}) == "glad"


def test_earlier_turns(tmp_path):
    _, it = made("meld", "MELD", tmp_path)
    found, _ = split(it.found())
    turns = {i: [u.id for u in f.utterance.context] for i, f in found.items()}
    assert turns["train_dia0_utt2"] == ["train_dia0_utt0", "train_dia0_utt1"] and turns["train_dia0_utt0"] == turns["valid_dia0_utt0"] == []
    _, one = made("meld", "MELD", tmp_path, context=1)
    assert [u.id for u in split(one.found())[0]["train_dia0_utt2"].utterance.context] == ["train_dia0_utt1"]
    gap = {"MELD.Raw/train/train_splits/dia0_utt1.wav": None}
    _, it = made("meld", "MELD", tmp_path / "gap", gap)
    assert [u.id for u in split(it.found())[0]["train_dia0_utt2"].utterance.context] == []  # nobody answers what is not there


def test_turns_of_another_set_are_no_context(tmp_path):
    _, it = made("meld", "MELD", tmp_path, target={"_target_": "ttsadapt.data.layouts.roles.Selection", "speaker": ["Chandler"]})
    parts, _ = prepared(it, tmp_path)
    assert {u.id for u in parts["source.train"]} == {"train_dia0_utt1"}
    assert {u.id: [turn.id for turn in u.context] for u in parts["target.train"]} == {"train_dia0_utt0": [], "train_dia0_utt2": []}


def test_dialogues_without_official_splits_stay_whole(tmp_path):
    _, it = made("meld", "like MELD", tmp_path, context=2)
    found, _ = split(it.found())
    assert {f.group for f in found.values()} == {"mine-0"} and len(found["mine_dia0_utt2"].utterance.context) == 2


@pytest.mark.skipif(not ARROW, reason="pyarrow is not installed")
def test_recordings_in_tables_are_unpacked_once(tmp_path):
    _, it = made("hugging_face", "parquet", tmp_path / "set")
    first = {f.utterance.audio: f.utterance.audio.stat().st_mtime_ns for f in split(it.found())[0].values()}
    assert len(first) == 4 and all(p.is_relative_to(f"{tmp_path}/set-cache/unpacked") for p in first)
    assert {f.utterance.audio: f.utterance.audio.stat().st_mtime_ns for f in split(it.found())[0].values()} == first
    before = it.fingerprint()
    assert it.remembering(tmp_path / "elsewhere").fingerprint() == before


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install pyarrow" in refused(lambda: list(corpus("hugging_face", tmp_path).found()), UserError)


@pytest.mark.parametrize("name", ["emovdb", "savee"])
def test_texts_beside_the_corpus_are_part_of_it(name, tmp_path):
    variant = {"emovdb": "packed", "savee": "nested"}[name]
    _, it = made(name, variant, tmp_path / "a")
    before = it.fingerprint()
    _, same = made(name, variant, tmp_path / "b")
    assert same.fingerprint() == before
    table = next(p for p in it.inputs() if p.is_file())
    table.write_text(table.read_text() + '( arctic_a0003 "More." )\n' if name == "emovdb" else table.read_text() + "a02 More.\n")
    assert it.fingerprint() != before
