"""Who is in train, valid and test: nothing that is tested is learnt, and nothing is lost without a word."""

from functools import lru_cache
from itertools import product
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ttsadapt.config import paths
from ttsadapt.data.corpora import cremad, emodb
from ttsadapt.data.found import Found
from ttsadapt.data.layouts.files import split_in
from ttsadapt.data.splits import BySentence, BySpeaker, _divide, assign, named
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError


def said(text, speaker="eve", set="target", split="", group="", hash="", **more):
    path = Path(f"/{speaker}-{text}.wav")
    return Found(Utterance(f"{speaker}-{text}-{more}", path, text, speaker, hash=hash, **more), set, split, str(path), group=group)


def test_a_recording_under_two_names_is_not_split():
    items = [said(f"text {chr(97 + i)}", hash=f"{i // 2}") for i in range(20)]
    assigned, left_out = assign(items, (0.5, 0.25, 0.25), BySentence())
    homes = {}
    for one in assigned:
        assert homes.setdefault(one.utterance.hash, one.split) == one.split
    assert not left_out and set(homes.values()) == {"train", "valid", "test"}


def test_every_split_has_every_emotion_as_far_as_sentences_allow():
    emotions = ("happy", "sad", "angry", "calm", "bored", "fearful", "neutral")
    items = [said(f"text {i}", emotion=emotions[i * i % 7 if i % 3 else i % 7]) for i in range(110)]
    assigned, left_out = assign(items, (0.8, 0.1, 0.1), BySentence())
    assert not left_out and [sum(f.split == s for f in assigned) for s in ("train", "valid", "test")] == [88, 11, 11]
    whole = {e: sum(f.utterance.emotion == e for f in assigned) for e in emotions}
    for split in ("valid", "test"):
        for emotion, count in whole.items():
            assert abs(sum((f.split, f.utterance.emotion) == (split, emotion) for f in assigned) - count / 10) <= 1.5, (split, emotion)
    again, _ = assign(items[::-1], (0.8, 0.1, 0.1), BySentence())
    assert {f.where: f.split for f in again} == {f.where: f.split for f in assigned}


def test_sentences_said_in_every_emotion_are_divided_by_their_hash_alone():
    plain = [said(f"text {i}") for i in range(40)]
    moved = [said(f"text {i}", emotion=e) for i in range(40) for e in ("happy", "sad")]
    homes = [{f.sentence: f.split for f in assign(items, (0.8, 0.1, 0.1), BySentence())[0]} for items in (plain, moved)]
    assert homes[0] == homes[1]


def test_given_splits_that_leak_lose_the_training_recording():
    items = [said("one", split="train", hash="a"), said("two", split="test", hash="a"), said("Two!", "bob", split="valid", hash="b")]
    others = [said("three", split="train", hash="c"), said("four", split="valid")]
    assigned, left_out = assign([*items, *others], (1, 0, 0), BySentence())
    assert [(f.utterance.text, f.split) for f in assigned] == [("two", "test"), ("three", "train"), ("four", "valid")]
    assert [r.told for r in left_out] == [
        "its recording is in train and, at /eve-two.wav, in test: it is left out of train",
        "its sentence is in valid and, at /eve-two.wav, in test: it is left out of valid",
    ]


def test_by_speaker_nobody_is_in_two_splits():
    items = [said(f"text {i if i < 5 else f'{i} of {who}'}", who) for who in "abcdefgh" for i in range(20)]
    assigned, left_out = assign(items, (0.6, 0.2, 0.2), BySpeaker())
    homes, texts = {}, {}
    for one in assigned:
        assert homes.setdefault(one.utterance.speaker, one.split) == one.split
        assert texts.setdefault(one.sentence, one.split) == one.split
    assert sorted(homes.values()) == ["test", "test", "train", "train", "train", "train", "valid", "valid"]
    assert {r.kind for r in left_out} == {"leak"} and len(left_out) == 4 * 5  # the five that all say


@pytest.mark.parametrize(("other", "split"), [("source", ""), ("target", "train")])
def test_who_is_unseen_is_heard_nowhere_else(other, split):
    with pytest.raises(DataError, match=rf"'eve' is to be unseen but speaks in the {other}, at /eve-one.wav") as error:
        assign([said("one", set=other, split=split), said("two", set="unseen", split="test")], (1, 0, 0), BySentence())
    assert "\n" not in str(error.value)


def test_given_splits_keep_the_rule_and_the_groups():
    """A speaker, and a recording cut in pieces, stay in one split whoever has given them."""
    items = [said("a", "ann", split="train"), said("b", "ann", split="test"), said("c", "bob", split="test")]
    assigned, left_out = assign(items, (1, 0, 0), BySpeaker())
    assert [f.utterance.text for f in assigned] == ["a", "c"]
    assert [r.told for r in left_out] == ["its speaker is in test and, at /ann-a.wav, in train: it is left out of test"]
    items = [said("a", split="train", group="g"), said("b", split="test", group="g"), said("c", split="train")]
    assigned, left_out = assign(items, (1, 0, 0), BySentence())
    assert [f.utterance.text for f in assigned] == ["b", "c"] and "its group is in train and" in left_out[0].told


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_free_follows_the_same_split_in_any_order(turned):
    """It shares its sentence with train and its group with test."""
    items = [said("a", split="train"), said("b", split="test", group="g"), said("c", split="train"), said("A!", "bob", group="g")]
    assigned, _ = assign(items[::-1] if turned else items, (1, 0, 0), BySentence())
    assert {f.utterance.text: f.split for f in assigned} == {"A!": "test", "b": "test", "c": "train"}


def units(count):
    return [("sentence", c) for c in "abcdefghijklmnopqrstuvwxyz"[:count]]


def test_every_split_with_a_share_has_something():
    assert sorted(_divide(units(3), [], (0.1, 0.1, 0.8), "").values()) == ["test", "train", "valid"]
    assert list(_divide(units(20), [], (0.8, 0.1, 0.1), "").values()) == ["test"] * 2 + ["valid"] * 2 + ["train"] * 16
    assert list(_divide(units(3), ["test"], (0.8, 0.1, 0.1), "").values()) == ["valid", "train", "train"]
    assert list(_divide(units(2), [], (0.5, 0, 0.5), "").values()) == ["test", "train"]


def test_what_is_lost_is_told():
    items = [said(text, who) for who in "abcdefgh" for text in ("one", "two")]
    with pytest.raises(DataError, match=r"nothing is left for target.test .*its sentence is in test .* speaker_only where all") as error:
        assign(items, (0.6, 0.2, 0.2), BySpeaker())
    assert "\n" not in str(error.value)
    assigned, left_out = assign(items, (0.6, 0.2, 0.2), BySpeaker(texts_apart=False))
    assert not left_out and homes(assigned, "speaker") == {"train": 4, "test": 2, "valid": 2}
    with pytest.raises(DataError, match=r"target set has 2 different sentences for 3 splits .*: take another data/bring/split_by"):
        assign(items, (0.6, 0.2, 0.2), BySentence())
    heard = [said(text, set="source", split="train") for text in ("one", "two")]
    heard += [said(text, "bob") for text in ("One", "Two", "three")]
    with pytest.raises(DataError, match=r"nothing is left for target.test"):  # one sentence of its own, for two splits
        assign(heard, (0.8, 0.1, 0.1), BySentence())


def test_unseen_voices_are_enrolled_and_asked_for():
    items = [said(text, who) for who in "abcdefgh" for text in ("one", "two")]
    items += [said(text, "new", set="unseen", emotion=emotion) for text in ("one", "two") for emotion in "wxyz"]
    assigned, left_out = assign(items, (0.6, 0.2, 0.2), BySpeaker(texts_apart=False))
    assert not left_out and {f.split for f in assigned if f.set == "unseen"} == {"train", "valid", "test"}


def test_words_for_splits_are_one_table():
    for word in ("dev", "val", "eval", "evaluation", "Validation"):
        assert named(word, "here") == split_in(f"my-{word}") == "valid"
    assert named("training", "here") == split_in("training_set") == "train" and split_in("clips") == ""


def homes(assigned, key):
    """How many of them are in each split; none is in two."""
    found = {}
    for one in assigned:
        assert found.setdefault(getattr(one.utterance, key), one.split) == one.split
    return {split: list(found.values()).count(split) for split in ("train", "valid", "test")}


# -- the true shapes of corpora of actors


def _ravdess():
    for actor, emotion, strong, text, again in product(range(1, 25), range(1, 9), (1, 2), (1, 2), (1, 2)):
        if (emotion, strong) != (1, 2):
            yield f"Actor_{actor:02d}/03-01-{emotion:02d}-{strong:02d}-{text:02d}-{again:02d}-{actor:02d}.wav"


def _cremad():
    return (
        f"AudioWAV/{actor}_{text}_{emotion}_XX.wav"
        for actor, text, emotion in product(range(1001, 1092), cremad._SENTENCES, ("ANG", "SAD"))
    )


def _emodb():
    speakers = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
    return (f"wav/{who}{text}{emotion}a.wav" for who, text, emotion in product(speakers, emodb._SENTENCES, "WLEAFTN"))


def _tess():
    words = [f"{a}{b}" for a, b in product("abcdefghijklmnopqrst", "abcdefghij")]
    return (f"{who}_{word}_{emotion}.wav" for who, word, emotion in product(("OAF", "YAF"), words, ("angry", "ps", "sad")))


def _savee():
    for who, emotion in product(("DC", "JE", "JK", "KL"), ("a", "d", "f", "h", "n", "sa", "su")):
        yield from (f"AudioData/{who}/{emotion}{number:02d}.wav" for number in range(1, 31 if emotion == "n" else 16))


ACTORS = {"ravdess": (_ravdess, "speaker", 24), "cremad": (_cremad, "text", 12), "emodb": (_emodb, "text", 10)}
ACTORS |= {"tess": (_tess, "text", 200), "savee": (_savee, "text", 3 + 6 * 12 + 27)}


@lru_cache
def bare(name):
    with initialize_config_dir(str(paths.conf()), version_base=None):
        return OmegaConf.to_container(compose("prepare", [f"data={name}", "data.path=x", "paths.outputs=x"]).data, resolve=True)


def actors(name, root, **settings):
    for file in ACTORS[name][0]():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    if name == "savee":  # the first three sentences are those of all emotions
        codes = {Path(file).stem for file in _savee()}
        (root / "texts.txt").write_text("".join(f"{c} Said {c if int(c[-2:]) > 3 else c[-2:]}.\n" for c in sorted(codes)))
        settings["transcripts_path"] = str(root / "texts.txt")
    return instantiate(bare(name) | {"path": str(root)} | settings)


@pytest.mark.parametrize("name", ACTORS)
def test_every_corpus_of_actors_is_divided_as_its_yaml_says(name, tmp_path):
    corpus, (_, key, count) = actors(name, tmp_path), ACTORS[name]
    found = list(corpus.found())
    assigned, left_out = assign(found, corpus.bring.fractions, corpus.bring.rule)
    there = homes(assigned, key)
    assert left_out == [] and len(assigned) == len(found) and sum(there.values()) == count and min(there.values()) >= 1
    assert there["train"] >= 0.75 * count


def test_one_actor_of_two_statements(tmp_path):
    only = {"_target_": "ttsadapt.data.layouts.roles.Selection", "speaker": ["Actor_01"]}
    corpus = actors("ravdess", tmp_path, target=only)
    found = list(corpus.found())
    with pytest.raises(DataError, match=r"the target set has 1 different speakers for 3 splits .*split_by \(sentence"):
        assign(found, corpus.bring.fractions, corpus.bring.rule)
    assigned, left_out = assign(found, (0.5, 0, 0.5), BySentence())
    assert {f.part for f in assigned} == {"source.train", "source.test", "target.train", "target.test"} and not left_out
