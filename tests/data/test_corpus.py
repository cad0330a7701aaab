"""The embedded corpus, its manifests, and what phones there are."""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ttsadapt.artifacts import ensure
from ttsadapt.data import espeak, manifest, sentences, styles
from ttsadapt.data.corpora.embedded import TARGET_POOL, Embedded
from ttsadapt.data.espeak import RATE, Prosody, engine
from ttsadapt.data.prepare import PreparedCorpus
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import ConfigError, DataError, UserError
from ttsadapt.files import content_hash
from ttsadapt.text.phones import phonemize, split_stress

TINY = {
    "source_voices": ["m1", "f1"],
    "unseen_voices": ["f5"],
    "target_voices": 2,
    "source_train": 28,
    "source_valid": 4,
    "source_test": 4,
    "target_train": 9,
    "target_valid": 2,
    "target_test": 3,
    "ood_test": 4,
    "unseen_train": 2,
    "unseen_test": 2,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    corpus = PreparedCorpus(Embedded(**TINY, processes=1), tmp_path_factory.mktemp("cache"))
    ensure(corpus)
    return corpus


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_two_preparations_are_equal_to_the_byte_whatever_the_process_count(prepared, tmp_path):
    again = PreparedCorpus(Embedded(**TINY, processes=2), tmp_path)
    assert again.folder.name == prepared.folder.name
    ensure(again)
    files = sorted(p.relative_to(prepared.folder) for p in prepared.folder.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again.folder) for p in again.folder.rglob("*") if p.is_file())
    assert sum(p.suffix == ".wav" for p in files) == sum(part["utterances"] for part in prepared.card["sets"].values())
    for file in files:
        assert content_hash(prepared.folder / file) == content_hash(again.folder / file), file


def test_another_seed_or_setting_is_another_corpus(prepared):
    names = {Embedded(**TINY | change).fingerprint() for change in ({}, {"seed": 1}, {"sample_rate": 22050}, {"target_train": 10})}
    names.add(Embedded(**TINY, target_emotions={"excited": {"rate": 240}}).fingerprint())
    assert len(names) == 5 and prepared.fingerprint in names


def test_phones_tile_every_recording(prepared):
    for name in prepared.names():
        for utterance in prepared.utterances(name):
            info = soundfile.info(utterance.audio)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert utterance.duration == info.frames / info.samplerate
            edges = [p.start for p in utterance.phones] + [utterance.phones[-1].end]
            assert edges[0] == 0 and edges[-1] == utterance.duration
            assert all(a.end == b.start and a.end > a.start for a, b in zip(utterance.phones, utterance.phones[1:]))


def test_pauses_are_quiet_and_vowels_loud(prepared):
    levels = {"pause": [], "vowel": []}
    for utterance in prepared.utterances("source.train"):
        audio, rate = soundfile.read(utterance.audio)
        for phone in utterance.phones[1:]:
            kind = "pause" if phone.symbol == "_" else "vowel" if phone.symbol[0] == "ˈ" else None
            if kind and phone.end - phone.start > 0.06:
                middle = audio[int((phone.start + 0.02) * rate) : int((phone.end - 0.02) * rate)]
                levels[kind].append(np.sqrt(np.mean(middle**2)))
    assert np.median(levels["vowel"]) > 20 * np.median(levels["pause"])


def test_no_sentence_in_two_splits_of_the_default_corpus():
    by_split, seen = {}, Counter()
    for line in Embedded(target_voices=25).script():
        by_split.setdefault(line.part.partition(".")[2], set()).add(line.text)
        seen[line.part] += 1
    for one, other in combinations(("train", "valid", "test"), 2):
        assert not by_split[one] & by_split[other]
    assert seen == {
        "source.train": 2600,
        "source.valid": 56,
        "source.test": 56,
        "target.train": 140 * 25,
        "target.valid": 21 * 25,
        "target.test": 28 * 25,
        "ood.test": 28,
        "unseen.train": 16,
        "unseen.test": 21,
    }
    assert len({line.text for line in Embedded().script() if line.part == "source.train"}) == 2600


def test_voices_and_emotions_are_crossed_and_the_target_is_absent_from_the_source():
    lines = list(Embedded().script())
    source = [(line.voice, line.emotion) for line in lines if line.part == "source.train"]
    assert len({v for v, _ in source}) >= 14 and len(set(source)) == 14 * 7
    counts = Counter(source).values()
    assert max(counts) - min(counts) <= 1
    for part, voices in (("source.test", 14), ("target.test", 1), ("unseen.test", 4)):
        picked = [line for line in lines if line.part == part]
        emotions = Counter(line.emotion for line in picked)
        assert len(emotions) == 7 and max(emotions.values()) == min(emotions.values())
        assert len({line.voice for line in picked}) == voices
    by_set = {s: {line.voice for line in lines if line.part.startswith(s)} for s in ("source", "target", "unseen", "ood")}
    assert not by_set["source"] & by_set["target"] and not by_set["unseen"] & (by_set["source"] | by_set["target"])
    assert by_set["ood"] <= by_set["source"]
    ood = Counter(line.language for line in lines if line.part == "ood.test")
    assert ood == {"en-us": 14, "de": 14}


def test_a_larger_training_set_leaves_the_tests_as_they_are():
    def tests(**settings):
        return {(line.part, line.text, line.voice) for line in Embedded(**settings).script() if line.part.endswith("test")}

    assert tests() == tests(source_train=1500, target_train=300)


def test_sentences_are_short_and_different():
    texts = sentences.plain(2000, 3)
    assert len(set(texts)) == 2000 and texts[:50] == sentences.plain(50, 3) != sentences.plain(50, 4)
    assert all(4 <= len(text.split()) <= 8 and text[0].isupper() and text[-1] == "." for text in texts)
    assert any(text.endswith("?") for text in sentences.other(20, 0))
    assert not set(sentences.other(40, 0)) & set(texts)


def test_the_target_expresses_emotions_in_its_own_way(prepared):
    import pyworld

    def pitch(part, speaker, emotion):
        """Median Hz of the utterances of a speaker."""
        picked = [u for u in prepared.utterances(part) if (u.speaker, u.emotion) == (speaker, emotion)]
        audio = np.concatenate([soundfile.read(u.audio)[0] for u in picked])
        f0, time = pyworld.dio(audio, 16000, f0_floor=50, f0_ceil=700, frame_period=10)
        f0 = pyworld.stonemask(audio, f0, time, 16000)
        return float(np.median(f0[f0 > 0]))

    neutral, happy, sad = (pitch("source.train", "f1", e) for e in ("neutral", "happy", "sad"))
    assert sad < 0.9 * neutral and happy > 1.1 * neutral
    mine = {e: pitch("target.train", TARGET_POOL[0], e) for e in ("neutral", "happy")}
    assert mine["neutral"] < 0.9 * neutral and mine["happy"] / mine["neutral"] > 1.15 * happy / neutral


def test_custom_emotions():
    corpus = Embedded(**TINY | {"target_emotions": {"excited": {"rate": 240, "pitch": 70, "tilt": 2}, "sad": {}}})
    assert {line.emotion for line in corpus.script() if line.part.startswith("target")} == {"excited", "sad"}
    assert corpus.target_styles["excited"].rate == 240
    assert corpus.target_styles["sad"] == styles.TARGET["sad"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target_emotions": {"excited": {"speed": 2}}}, "target_emotions.excited.speed"),
        ({"target_emotions": {"excited": {"rate": 1000}}}, "from 80 to 450"),
        ({"target_emotions": {}}, "empty"),
        ({"target_voices": 26}, "1 to 25"),
        ({"unseen_voices": ["f1"]}, "f1"),
        ({"source_train": -1}, "source_train"),
        ({"source_voices": []}, "source_voices"),
    ],
)
def test_wrong_settings_are_one_line(settings, words):
    with pytest.raises(ConfigError) as error:
        Embedded(**TINY | settings)
    assert words in one_line(error)


def test_an_unknown_voice_is_named_before_anything_is_made(tmp_path):
    with pytest.raises(ConfigError) as error:
        Embedded(**TINY | {"source_voices": ["m1", "bellinda"]}).prepare(tmp_path)
    assert "'bellinda'" in one_line(error) and "belinda" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_card(prepared):
    card = prepared.card
    assert card["sets"]["source.train"]["utterances"] == 28
    assert card["sets"]["ood.test"]["languages"] == {"de": 2, "en-us": 2}
    assert set(card["sets"]["target.train"]["voices"]) == set(TARGET_POOL[:2])
    assert "_" in card["phones"] and not any(p[0] in "ˈˌ" for p in card["phones"])


# -- the engine


def test_speech_depends_on_nothing_but_its_arguments():
    first = engine().say("My sister sold five cheap umbrellas.", "en-us+f2", Prosody(rate=200), seed=7)
    engine().say("Something quite different.", "de+m3", seed=1)
    again = engine().say("My sister sold five cheap umbrellas.", "en-us+f2", Prosody(rate=200), seed=7)
    assert np.array_equal(first.pcm, again.pcm) and first.segments == again.segments
    assert first.pcm.dtype == np.int16 and first.segments[-1][2] == len(first.pcm)


def test_constant_pitch_is_what_was_asked_for():
    import pyworld

    audio = engine().say("All our rules remain.", "en-us", constant_f0=150).pcm / 32768
    f0, _ = pyworld.harvest(audio, RATE, frame_period=10)
    assert abs(np.median(f0[f0 > 0]) - 150) < 1


def test_voice_quality_moves_no_sample_and_does_what_it_says():
    speech = engine().say("A busy squirrel hid the nuts.", "en-us+m3", seed=1)

    def treated(**settings):
        return styles.voice_quality(speech.pcm, RATE, styles.Style(**settings), np.random.default_rng(0))

    def balance(audio):
        power, f = np.abs(np.fft.rfft(audio)) ** 2, np.fft.rfftfreq(len(audio), 1 / RATE)
        return 10 * np.log10(power[f > 2000].sum() / power[f < 2000].sum())

    plain = treated()
    assert balance(treated(tilt=4)) > balance(plain) + 5 > balance(treated(tilt=-4)) + 10
    assert balance(treated(breath=0.5)) > balance(plain)
    assert np.sqrt(np.mean(treated(volume=50) ** 2)) == pytest.approx(0.5 * np.sqrt(np.mean(plain**2)), rel=0.01)
    for changed in (treated(tilt=4), treated(breath=0.2), treated(tremolo=0.5), treated(roughness=0.5)):
        assert len(changed) == len(plain) and np.abs(changed).max() < 1 and not np.allclose(changed, plain, atol=1e-3)
        lag = np.argmax(np.correlate(changed, plain[200:-200], "valid")) - 200
        assert abs(lag) <= 2


def test_unknown_languages_and_variants_are_one_line():
    for voice, word in (("en-uk", "en-us"), ("en-us+belind", "belinda"), ("", "take one of"), ("../x", "take one of")):
        with pytest.raises(UserError) as error:
            engine().say("Hello.", voice)
        assert word in one_line(error)


def test_a_missing_wheel_is_one_line(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(espeak.importlib.metadata, "version", missing)
    with pytest.raises(UserError) as error:
        Embedded().fingerprint()
    assert 'pip install "ttsadapt[gpl]"' in one_line(error)


def test_the_engine_starts_from_a_deep_folder_and_leaves_nothing_behind(tmp_path):
    import espeakng_loader

    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    (deep / "espeakng_loader").symlink_to(Path(espeakng_loader.__file__).parent)
    code = (
        "import espeakng_loader, pathlib; from ttsadapt.data import espeak;"
        f"espeakng_loader.get_data_path = lambda: {str(deep / 'espeakng_loader' / 'espeak-ng-data')!r};"
        "print(len(espeak.engine().say('Hello there.', 'en-us+f2').pcm))"
    )
    temporary = tmp_path / "t"
    temporary.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "TMPDIR": str(temporary)}
    )
    assert int(run.stdout) == len(engine().say("Hello there.", "en-us+f2").pcm)
    assert not list(temporary.iterdir())


# -- phones


def test_phonemize_gives_the_symbols_of_the_corpus(prepared):
    utterance = next(u for u in prepared.utterances("source.train") if u.emotion == "neutral")
    spoken = [p.symbol for p in utterance.phones if p.symbol != "_"]
    assert [s for s in phonemize(utterance.text) if s != "_"] == spoken
    assert "ˈoʊ" in phonemize("An old boat.") and phonemize("zwölf", "de") != phonemize("zwölf", "en-us")


@pytest.mark.parametrize("text", ["", "   ", "...", "\0"])
def test_text_without_words_is_one_line(text):
    with pytest.raises(UserError) as error:
        phonemize(text)
    assert "nothing in" in one_line(error)


def test_split_stress():
    assert [split_stress(s) for s in ("ˈoʊ", "ˌɑː", "t", "_", "ˈ")] == [("oʊ", 1), ("ɑː", 2), ("t", 0), ("_", 0), ("ˈ", 0)]


# -- manifests


def test_manifests_are_lhotse_cut_sets(prepared, monkeypatch):
    from lhotse import CutSet

    monkeypatch.chdir(prepared.folder)  # lhotse takes relative paths from here
    cuts = list(CutSet.from_file("target.test.jsonl.gz"))
    for cut, utterance in zip(cuts, prepared.utterances("target.test"), strict=True):
        (supervision,) = cut.supervisions
        assert (cut.id, cut.duration, supervision.text) == (utterance.id, utterance.duration, utterance.text)
        assert (supervision.speaker, supervision.language, supervision.emotion) == (utterance.speaker, "en-us", utterance.emotion)
        phones = [Phone(i.symbol, i.start, i.end) for i in supervision.alignment["phone"]]
        assert phones == list(utterance.phones)
        assert cut.load_audio().shape == (1, round(utterance.duration * 16000))
    written = [json.loads(line) for line in gzip.decompress(Path("target.test.jsonl.gz").read_bytes()).splitlines()]
    assert json.loads(json.dumps([cut.to_dict() for cut in cuts])) == written


def test_a_written_manifest_reads_back(prepared, tmp_path):
    wav = tmp_path / "wavs" / "a.wav"
    wav.parent.mkdir()
    soundfile.write(wav, np.full(8000, 0.1), 16000)
    given = Utterance("a", wav, "Grüß dich", "x", "sad", "de", 0.5, (Phone("ɡ", 0, 0.3), Phone("_", 0.3, 0.5)))
    manifest.write([given, replace(given, id="b", phones=())], tmp_path, "source.train")
    assert manifest.read(tmp_path, "source.train") == [given, replace(given, id="b", phones=())]
    assert manifest.names(tmp_path) == ["source.train"]
    with pytest.raises(DataError) as error:
        manifest.write([given, given], tmp_path, "source.test")
    assert "'a'" in one_line(error) and manifest.names(tmp_path) == ["source.train"]
    with pytest.raises(DataError) as error:
        manifest.write([replace(given, audio=prepared.folder / "card.json")], tmp_path, "source.test")
    assert "outside" in one_line(error)


def broken(lines, how):
    rows = [json.loads(line) for line in lines]
    if how == "twice":
        rows.append(rows[0])
    elif how == "outside":
        rows[1]["recording"]["sources"][0]["source"] = "../../elsewhere.wav"
    elif how == "absolute":
        rows[1]["recording"]["sources"][0]["source"] = "/etc/passwd"
    elif how == "no text":
        del rows[1]["supervisions"][0]["text"]
    elif how == "part":
        rows[1]["start"] = 0.2
    elif how == "list":
        rows[1] = [1]
    text = [json.dumps(row) for row in rows]
    if how == "json":
        text[1] = text[1][:40]
    return "\n".join(text).encode()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("twice", "line 5: id"),
        ("outside", "line 2: '../../elsewhere.wav' lies outside"),
        ("absolute", "line 2: '/etc/passwd' lies outside"),
        ("no text", "line 2: not a cut"),
        ("part", "line 2: the cut is not one whole"),
        ("list", "line 2: not a cut but a list"),
        ("json", "line 2: not valid JSON"),
        ("truncated", "corrupt"),
        ("foreign", "corrupt"),
        ("missing", "no manifest"),
    ],
)
def test_bad_manifests_are_one_line(prepared, tmp_path, how, words):
    lines = gzip.decompress((prepared.folder / "source.test.jsonl.gz").read_bytes()).decode().splitlines()
    raw = gzip.compress(broken(lines, how))
    raw = {"truncated": raw[: len(raw) // 2], "foreign": b"hello"}.get(how, raw)
    if how != "missing":
        (tmp_path / "source.test.jsonl.gz").write_bytes(raw)
    with pytest.raises(DataError) as error:
        manifest.read(tmp_path, "source.test")
    assert words in one_line(error)
