"""What the embedded corpus has beyond voices and emotions: conditions, terms, ways of speaking, dialogues, languages, many voices."""

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import soundfile

from ttsadapt.artifacts import ensure
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data import conditions, sentences, styles
from ttsadapt.data.conditions import Clean, Diverse, Noise, Reverberation
from ttsadapt.data.corpora.embedded import Embedded, EmbeddedTarget
from ttsadapt.data.espeak import RATE, engine
from ttsadapt.data.prepare import PreparedCorpus
from ttsadapt.data.spoken import Spoken
from ttsadapt.errors import ConfigError
from ttsadapt.text.phones import phonemize

TINY = {
    "source_voices": ["m1", "f1"], "unseen_voices": ["f5"], "target_voices": 2, "source_train": 2, "source_valid": 0, "source_test": 0,
    "target_train": 3, "target_valid": 0, "target_test": 2, "ood_test": 0, "unseen_train": 0, "unseen_test": 0, "processes": 1,
}  # fmt: skip
FULL = TINY | {
    "terms": ["quinoa", "Zyphandra"], "terms_learnt": 1, "term_train": 2, "term_test": 1,
    "dialogues": {"source_test": 1, "target_train": 2}, "dialogue_turns": [2, 3], "source_languages": ["en-us", "de"],
    "conditions": {"target": Noise(10.0), "Lee": Clean(), "source": Reverberation(0.4)},
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    corpus = PreparedCorpus(Embedded(**FULL), tmp_path_factory.mktemp("cache"))
    ensure(corpus)
    return corpus


@pytest.fixture(scope="module")
def speech():
    return engine().say("The old sailor hid the brass key, and a golden fox followed him home.", "en-us+m3", seed=1).pcm / np.float32(32768)


def generator(seed=0):
    return np.random.default_rng(seed)


# -- conditions


@pytest.mark.parametrize("slope", [0.0, -3.0])
@pytest.mark.parametrize("snr", [5.0, 20.0])
def test_noise_lies_at_its_distance_and_has_its_slope(speech, snr, slope):
    heard = Noise(snr, slope).recorded(speech, RATE, generator())
    noise = heard - speech
    assert 20 * np.log10(conditions.speech_level(speech, RATE) / np.sqrt(np.mean(noise**2))) == pytest.approx(snr, abs=0.01)
    power, f = np.abs(np.fft.rfft(noise)) ** 2, np.fft.rfftfreq(len(noise), 1 / RATE)
    density = [10 * np.log10(power[(f >= low) & (f < 1.1 * low)].mean()) for low in (500, 4000)]
    assert density[1] - density[0] == pytest.approx(3 * slope, abs=1.0)  # three octaves


def test_a_room_decays_as_it_should_and_delays_nothing():
    click = np.zeros(2 * RATE, np.float32)
    click[RATE // 4] = 0.5
    heard = conditions.reverberant(click, RATE, 0.5, 3.0, generator())
    assert np.argmax(np.abs(heard)) == RATE // 4 and not np.abs(heard[: RATE // 4]).max() > 1e-4 * np.abs(heard).max()
    tail = heard[RATE // 4 + 1 :].astype(np.float64)
    assert 10 * np.log10(heard[RATE // 4] ** 2 / np.sum(tail**2)) == pytest.approx(3, abs=0.1)
    energy = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1][: int(0.4 * RATE)] + 1e-20)  # Schroeder's integral
    fell = np.polyfit(np.arange(int(0.25 * RATE)) / RATE, energy[: int(0.25 * RATE)], 1)[0]
    assert -60 / fell == pytest.approx(0.5, rel=0.1)


def test_the_same_room_for_all_and_another_place_for_each(speech):
    one, other = (Reverberation(0.5)(speech, RATE, generator(k)) for k in (1, 2))
    assert np.array_equal(one, other)
    one, again, other = (Diverse()(speech, RATE, generator(k)) for k in (1, 1, 2))
    assert np.array_equal(one, again) and not np.allclose(one, other, atol=1e-3)
    levels = [conditions.speech_level(Diverse()(speech, RATE, generator(k)), RATE) for k in range(12)]
    assert 20 * np.log10(max(levels) / min(levels)) > 6


@pytest.mark.parametrize("condition", [Noise(0.0), Noise(10.0, -3.0), Reverberation(0.8, 0.0), Diverse(level=(20, 20))])
def test_no_sample_moves_and_none_is_beyond_full_scale(speech, condition):
    heard = condition(speech, RATE, generator())
    assert heard.shape == speech.shape and heard.dtype == np.float32 and np.abs(heard).max() <= 0.981
    lag = np.argmax(np.correlate(heard, speech[200:-200], "valid")) - 200
    assert abs(lag) <= 2
    assert not condition(np.zeros(4000, np.float32), RATE, generator()).any()


def test_bandwidth_ends_where_it_is_said(speech):
    loud = Noise(0.0).recorded(speech, RATE, generator())
    cut = conditions.narrowed(loud, RATE, 3000)
    power, f = np.abs(np.fft.rfft(cut)) ** 2 / np.abs(np.fft.rfft(loud)) ** 2, np.fft.rfftfreq(len(cut), 1 / RATE)
    assert np.median(power[(f > 300) & (f < 2000)]) == pytest.approx(1, abs=0.02) and np.median(power[f > 6000]) < 1e-3


def test_train_is_recorded_in_its_condition_and_tests_are_clean():
    corpus = Embedded(**FULL)
    found = {(line.part, line.voice): type(line.condition) for line in corpus.script()}
    first, second = corpus.target_voices
    assert found["target.train", first] is Noise and found["target.train", second] is Clean
    assert found["source.train", "m1"] is Reverberation
    assert {kind for (part, _), kind in found.items() if part.endswith("test")} == {Clean}
    noisy = Embedded(**TINY, test_conditions={"target": Noise()})
    assert {type(line.condition) for line in noisy.script() if line.part == "target.test"} == {Noise}


def test_only_what_sounds_otherwise_is_another_corpus():
    def name(**settings):
        return Embedded(**TINY | settings).fingerprint()

    clean = name()
    assert name(conditions={"target": Clean()}) == name(dialogues={"target_train": 0}) == clean
    assert name(conditions={"target": Noise(), "Lee": Clean()}) != name(conditions={"target": Noise()})
    different = [name(conditions={"target": c}) for c in (Noise(), Noise(10), Reverberation(), Diverse(), Diverse(level=(0, 1)))]
    assert len({clean, name(test_conditions={"target": Noise()}), *different}) == 7


def test_the_recording_holds_the_noise(prepared):
    def floor(utterance):
        """Level of the quietest 10 ms against the whole, in dB."""
        audio, _ = soundfile.read(utterance.audio)
        level = np.sqrt(np.mean(audio[: len(audio) // 160 * 160].reshape(-1, 160) ** 2, 1)) + 1e-5
        return 20 * np.log10(np.percentile(level, 3) / np.sqrt(np.mean(audio**2)))

    train = [u for u in prepared.utterances("target.train") if not u.context and "term" not in u.id]
    first, second = prepared.corpus.target_voices
    quiet, noisy = (np.median([floor(u) for u in train if u.speaker == voice]) for voice in (second, first))
    assert -14 < noisy < -8 and quiet < noisy - 10


# -- terms


def test_terms_are_in_the_text_in_sentences_of_their_own(prepared):
    train = [u for u in prepared.utterances("target.train") if "-term-" in u.id]
    tests = prepared.utterances("terms.test")
    assert len(train) == 2 * 2 and all("quinoa" in u.text for u in train)
    assert Counter(t for u in tests for t in FULL["terms"] if t in u.text) == {"quinoa": 2, "Zyphandra": 2}
    assert not {u.text for u in train} & {u.text for u in tests}
    written = json.loads((prepared.folder / "terms.json").read_text())
    assert list(written) == list(prepared.corpus.terms) == FULL["terms"] and written["quinoa"] == list(phonemize("quinoa"))
    spoken = [p.symbol for p in next(u for u in tests if "quinoa" in u.text).phones]
    said = [s for s in written["quinoa"] if s != "_"]
    assert any(spoken[i : i + len(said)] == said for i in range(len(spoken)))


def test_sentences_of_a_test_are_like_none_of_the_training():
    corpus = Embedded(terms=["quinoa", "isthmus"], term_train=20, term_test=20)
    texts = {part: {line.text for line in corpus.script() if line.part == part} for part in ("target.train", "terms.test")}
    framed = {part: {t.replace("isthmus", "{}").replace("quinoa", "{}") for t in some} for part, some in texts.items()}
    assert len(texts["terms.test"]) == 40 and not framed["target.train"] & framed["terms.test"]


# -- ways of speaking


def test_ways_of_speaking_are_chosen_by_name():
    corpus = Embedded(**TINY, target_emotions=["whispering", "fast", "sad"])
    assert corpus.target_styles == {n: (styles.SPEAKING | styles.TARGET)[n] for n in ("whispering", "fast", "sad")}
    assert Embedded(**TINY, target_emotions={"slow": {"pitch": 20}}).target_styles["slow"].rate == styles.SPEAKING["slow"].rate
    with pytest.raises(ConfigError, match="'wispering' is not known by name"):
        Embedded(**TINY, target_emotions=["wispering"])


def test_a_whisper_has_no_voice_but_the_same_vowels(speech):
    import pyworld

    pcm = (speech * 32767).astype(np.int16)
    plain, whispered = (styles.voice_quality(pcm, RATE, styles.Style(whisper=w), generator()) for w in (0.0, 1.0))
    assert len(plain) == len(whispered)

    def voiced(audio):
        x = audio.astype(np.float64)
        f0, time = pyworld.dio(x, RATE, f0_floor=60, f0_ceil=400)
        return np.mean(pyworld.d4c(x, f0, time, RATE)[:, 0] < 0.5)

    assert voiced(plain) > 0.5 and voiced(whispered) < 0.1
    mel = MelSpectrogram(RATE)
    import torch

    a, b = (mel(torch.from_numpy(x)).flatten().numpy() for x in (plain, whispered))
    assert np.corrcoef(a, b)[0, 1] > 0.8


# -- dialogues


def test_turns_alternate_and_know_what_came_before(prepared):
    for part, count in (("target.train", 2), ("source.test", 1)):
        turns = [u for u in prepared.utterances(part) if "dialogue" in u.id]
        answers = [u for u in turns if u.context]
        assert len(turns) - len(answers) == count
        for turn in answers:
            assert [c.id for c in turn.context] == [u.id for u in turns if u.id[-6:-2] == turn.id[-6:-2] and u.id[-1] < turn.id[-1]]
            assert turn.context[-1].speaker != turn.speaker and {c.emotion for c in turn.context} == {turn.emotion}
            assert turn.context[-1].audio.is_file() and turn.context[0].text.endswith("?")


def test_what_a_base_speaks_itself_has_no_turns_before_it(prepared, tmp_path):
    """They are not spoken with it, and a manifest refuses turns that it does not hold."""
    answer = next(u for u in prepared.utterances("target.train") if u.context)
    assert Spoken(tmp_path, None, [answer], None, 50.0, 0).script == [replace(answer, context=())]


def test_more_dialogues_to_learn_from_leave_the_tests_as_they_are():
    def texts(**counts):
        lines = Embedded(target_voices=3, dialogues=counts).script()
        return [[x.text for x in lines if x.part == p and "dialogue" in x.id] for p in ("target.test", "target.train")]

    few, many = texts(target_test=5, target_train=5), texts(target_test=5, target_train=40)
    assert few[0] == many[0] and few[1] == many[1][: len(few[1])] and not set(many[0]) & set(many[1])
    pairs = Counter(
        (x.voice, bool(x.context)) for x in Embedded(target_voices=3, dialogues={"target_train": 12}).script() if "dialogue" in x.id
    )
    assert len({voice for voice, _ in pairs}) == 3


# -- languages and voices


def test_languages_are_shared_out_and_never_cross_splits():
    corpus = Embedded(source_languages=["en-us", "de"], target_languages=["de"])
    lines = list(corpus.script())
    assert Counter(x.language for x in lines if x.part == "source.train") == {"en-us": 1300, "de": 1300}
    assert {x.language for x in lines if x.part.startswith("target")} == {"de"}
    by_split = {s: {x.text for x in lines if x.part.endswith(s)} for s in ("train", "valid", "test")}
    assert not any(by_split[a] & by_split[b] for a, b in combinations(by_split, 2))
    with pytest.raises(ConfigError, match="no sentences in 'fr'"):
        list(Embedded(source_languages=["fr"]).script())


def test_other_texts_are_in_the_second_language():
    def ood(**settings):
        return [(x.language, x.text) for x in Embedded(**TINY | {"ood_test": 8} | settings).script() if x.part == "ood.test"]

    german, british = ood(), ood(second_language="en-gb")
    assert [language for language, _ in german] == 4 * ["en-us"] + 4 * ["de"] and german[:4] == british[:4]
    assert [language for language, _ in british[4:]] == 4 * ["en-gb"]
    assert {text for _, text in british[4:]} == set(sentences.plain(4, 0))
    assert {text for _, text in german[4:]} == set(sentences.german(4, 0))
    everything = [x.text for x in Embedded(**TINY | {"ood_test": 8, "second_language": "en-gb"}).script() if x.part != "ood.test"]
    assert everything and not {text for _, text in british} & set(everything)
    assert {x.language for x in Embedded(**TINY, language="de", second_language="fr").script()} == {"de"}


def test_the_target_alone_says_what_it_says_beside_the_source():
    whole, alone = Embedded(**FULL), EmbeddedTarget(**FULL)
    assert list(alone.script()) and {x.id: x.text for x in alone.script()}.items() <= {x.id: x.text for x in whole.script()}.items()
    assert {x.part for x in alone.script()} == {"target.train", "target.test", "terms.test"}


def test_two_dozen_target_voices_all_sound_different():
    """Mean log mel spectra of the same sentence: the two closest voices are further apart than one voice is from itself."""
    import torch

    corpus, mel = Embedded(target_voices=24), MelSpectrogram(RATE)

    def colour(voice, seed):
        pcm = engine().say("My sister sold five cheap umbrellas.", f"en-us+{voice}", seed=seed).pcm
        return mel(torch.from_numpy(pcm / np.float32(32768))).mean(0).numpy() * 20 / np.log(10)  # dB

    def apart(a, b):
        return float(np.sqrt(np.mean((a - b) ** 2)))

    found = {voice: colour(voice, 3) for voice in corpus.target_voices}
    closest = min(apart(found[a], found[b]) for a, b in combinations(found, 2))
    itself = max(apart(found[voice], colour(voice, 4)) for voice in corpus.target_voices[:6])
    assert len(found) == 24 and closest > 1.5 > 3 * itself, (closest, itself)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"conditions": {"shebly": Noise()}}, "conditions.shebly"),
        ({"terms": ["quinoa", "quinoa"]}, "twice"),
        ({"terms": ["quinoa"], "term_train": -1}, "term_train"),
        ({"dialogues": {"target_trian": 1}}, "dialogues.target_trian"),
        ({"dialogues": {"target_train": 1}, "target_voices": 1}, "needs two voices"),
        ({"dialogue_turns": [3, 2]}, "dialogue_turns"),
        ({"ood_test": 2, "second_language": "fr"}, "second_language: there are no sentences in 'fr'"),
        ({"ood_test": 1, "language": "de"}, "ood_test: there are no sentences of this kind in language=de"),
        ({"terms": ["quinoa"], "language": "de"}, "terms: there are no"),
        ({"dialogues": {"target_train": 1}, "language": "de"}, "dialogues: there are no"),
    ],
)
def test_wrong_settings_are_one_line(settings, words):
    with pytest.raises(ConfigError) as error:
        Embedded(**TINY | settings)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("make", [lambda: Reverberation(0), lambda: Diverse(snr=(3, 2)), lambda: Diverse(rt60=(0, 1))])
def test_wrong_conditions_are_one_line(make):
    with pytest.raises(ConfigError, match="give"):
        make()
