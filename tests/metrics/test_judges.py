import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sounds import phones_at, said, voice

from ttsadapt.artifacts import ensure
from ttsadapt.data import manifest
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import ConfigError, DataError, UserError
from ttsadapt.files import read_json
from ttsadapt.metrics.emotion import EmotionAccuracy, EmotionProbability, EmotionSimilarity
from ttsadapt.metrics.judges.clips import Clips
from ttsadapt.metrics.judges.emotion import EmotionEncoder
from ttsadapt.metrics.judges.recogniser import Recogniser, errors, phones_of, steps_of
from ttsadapt.metrics.judges.speaker import SpeakerEncoder
from ttsadapt.metrics.per import PhoneErrorRate
from ttsadapt.metrics.resemblyzer import ResemblyzerSimilarity
from ttsadapt.metrics.signal import RATE
from ttsadapt.metrics.speaker import SpeakerSimilarity
from ttsadapt.reproducible import reproducible

VOICES = {"low": 100.0, "high": 210.0}
EMOTIONS = {"neutral": 1.0, "bright": 1.25}
WORDS = ("aiu", "iua", "uai", "aui", "iau")


def write_corpus(folder: Path, voices=VOICES, emotions=EMOTIONS) -> Path:
    """Two voices x two emotions; no word is shared between splits."""
    words = {"train": WORDS[:3], "valid": WORDS[3:4], "test": WORDS[4:]}
    for group in ("source", "target"):
        for split, said_there in words.items():
            utterances = []
            for speaker, f0 in voices.items():
                for emotion, brightness in emotions.items():
                    for word in said_there:
                        name = f"{group}-{split}-{speaker}-{emotion}-{word}"
                        about = {"speaker": speaker, "emotion": emotion, "phones": phones_at(word)}
                        utterances.append(said(folder / "wavs", name, voice(f0, word, brightness=brightness), **about))
            manifest.write(utterances, folder, f"{group}.{split}")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpora") / "tones-1")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def built(*judges):
    ensure(*judges)
    return judges


@pytest.fixture(scope="module")
def recogniser(corpus, cache) -> Recogniser:
    (judge,) = built(Recogniser(corpus, cache, steps=60, seconds=4.0))
    return judge


@pytest.fixture(scope="module")
def encoders(corpus, cache):
    short = {"steps": 25, "count": 8}
    return built(SpeakerEncoder(corpus, cache, **short), EmotionEncoder(corpus, cache, **short))


def test_clips_never_hold_a_test_sentence_in_training(corpus, cache):
    clips = Clips(corpus, cache)
    ensure(clips)
    learnt, held = ({c.utterance.text for c in part} for part in (clips.train(), clips.held_out()))
    assert learnt and held and not learnt & held
    assert {c.vocoded for c in clips.train()} == {True, False}
    assert all(c.audio.square().mean().sqrt() == pytest.approx(0.1, rel=0.05) for c in clips.train())
    assert all(c.start == pytest.approx(0.08, abs=0.03) for c in clips.train())


def test_recogniser_learns_and_states_its_error(recogniser, corpus):
    error = read_json(recogniser.folder / "card.json")["error"]
    assert set(error) == {"recordings/source", "recordings/target", "vocoded/source", "vocoded/target"}
    assert error["recordings/target"] < 25 and recogniser.languages == ["en-us"]
    heard = [recogniser.transcribe(torch.from_numpy(voice(100.0, w))) for w in WORDS]
    assert sum(errors(tuple(w), h) for w, h in zip(WORDS, heard)) <= 4


def test_recogniser_is_a_function_of_its_key(recogniser, corpus, tmp_path):
    """Built again elsewhere, after other random numbers were drawn and with other threads: the same bits."""
    torch.manual_seed(99)
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    (again,) = built(Recogniser(corpus, tmp_path, steps=60, seconds=4.0))
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == 2
    torch.set_num_threads(1)
    one, two = (load_file(j.folder / "weights.safetensors") for j in (recogniser, again))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert Recogniser(corpus, tmp_path, steps=61).folder != again.folder


def test_per_of_the_right_the_wrong_and_no_words(recogniser, corpus, cache, tmp_path):
    metric = PhoneErrorRate(steps=60)
    metric.judge = recogniser
    right = said(tmp_path, "w", voice(100.0, "iau"), phones=phones_at("iau"))
    wrong = said(tmp_path, "x", voice(100.0, "aaa"), phones=phones_at("aaa"))
    audio = torch.from_numpy(voice(100.0, "iau"))
    assert metric.score(audio, RATE, right) < metric.score(audio, RATE, wrong)
    assert metric.score(torch.zeros(RATE), RATE, right) == 100
    assert metric.weight(right) == 3
    assert math.isnan(metric.score(audio, RATE, Utterance("g", right.audio, "g", "one", language="de", phones=right.phones)))
    assert set(metric.own_errors()) == {"recogniser"} and metric.revision == recogniser.version


@pytest.mark.parametrize(
    ("wanted", "heard", "count"),
    [("a b c", "a b c", 0), ("a b c", "a c", 1), ("a b c", "a x c", 1), ("a b c", "a b b c", 1), ("a b c", "", 3), ("a", "b c d", 3)],
)
def test_errors_on_sequences_made_by_hand(wanted, heard, count):
    assert errors(wanted.split(), heard.split()) == count


def test_phones_lose_stress_and_pauses():
    phones = tuple(Phone(s, i, i + 1) for i, s in enumerate(["_", "ˈaɪ", "t", "ˌuː", "_"]))
    assert phones_of(Utterance("u", Path("u"), "", "s", phones=phones)) == ("aɪ", "t", "uː")


def test_output_lengths_are_what_the_network_gives(recogniser):
    for samples in (RATE // 2, 8001, 12345, 16159, 16160):
        audio = torch.randn(1, samples)
        assert recogniser.model(audio, torch.tensor([samples])).shape[1] == int(steps_of(torch.tensor(samples)))


def test_padding_changes_no_phone(recogniser):
    short, long = torch.from_numpy(voice(100.0, "ai")), torch.from_numpy(voice(100.0, "aiua"))
    batch = torch.stack([torch.nn.functional.pad(short, (0, len(long) - len(short))), long])
    together = recogniser.model(batch, torch.tensor([len(short), len(long)]))[0]
    alone = recogniser.model(short[None], torch.tensor([len(short)]))[0]
    inside = len(alone) - 15  # beyond that the padding is within hearing
    assert torch.allclose(together[:inside], alone[:inside], atol=1e-3)


def test_speaker_similarity(encoders, corpus, cache, tmp_path):
    judge, _ = encoders
    metric = SpeakerSimilarity(steps=25)
    metric.judge = judge
    low = said(tmp_path, "v", voice(100.0, "iau"), speaker="low")
    own, other = (metric.score(torch.from_numpy(voice(f0, "iau")), RATE, low) for f0 in VOICES.values())
    assert own > other + 10
    assert math.isnan(metric.score(torch.zeros(RATE), RATE, low))
    assert math.isnan(metric.score(torch.from_numpy(voice(100.0)), RATE, Utterance("n", low.audio, "n", "nobody")))
    assert all(0 <= e <= 50 for e in judge.card["error"].values()) and judge.card["error"]


def test_a_recording_is_wholly_similar_to_itself(encoders, tmp_path):
    speaker, emotion = encoders
    audio = np.round(voice(100.0, "iau") * 32767) / 32768
    utterance = said(tmp_path, "self", voice(100.0, "iau"), speaker="low")
    same, felt = SpeakerSimilarity(reference="recording", steps=25), EmotionSimilarity(steps=25)
    same.judge, felt.judge = speaker, emotion
    for metric in (same, felt):
        assert metric.score(torch.from_numpy(audio.astype(np.float32)), RATE, utterance) == pytest.approx(100, abs=1e-3)


def test_emotion_is_heard(encoders, tmp_path):
    _, judge = encoders
    accuracy, probability = EmotionAccuracy(steps=25), EmotionProbability(steps=25)
    accuracy.judge = probability.judge = judge
    hits = []
    for f0 in VOICES.values():
        for emotion, brightness in EMOTIONS.items():
            about = Utterance("e", tmp_path, "e", "low", emotion)
            audio = torch.from_numpy(voice(f0, "iau", brightness=brightness))
            hits.append(accuracy.score(audio, RATE, about))
            assert (probability.score(audio, RATE, about) > 50) == (hits[-1] == 100)
    assert np.mean(hits) >= 75
    assert math.isnan(accuracy.score(torch.from_numpy(voice(100.0)), RATE, Utterance("e", tmp_path, "e", "low", "never heard")))
    assert math.isnan(accuracy.score(torch.zeros(RATE), RATE, Utterance("e", tmp_path, "e", "low", "neutral")))


def test_one_class_is_refused_with_the_metric_to_drop(tmp_path):
    corpus = write_corpus(tmp_path / "lonely", voices={"low": 100.0}, emotions={"neutral": 1.0})
    for judge, metric in ((SpeakerEncoder, "speaker"), (EmotionEncoder, "emotion")):
        with pytest.raises(UserError, match=rf"one {metric} only .*: drop {metric} from") as caught:
            ensure(judge(corpus, tmp_path / "cache", steps=2))
        assert "\n" not in str(caught.value)


def test_a_corpus_without_training_data_is_refused(tmp_path):
    manifest.write([said(tmp_path / "c" / "w", "a", voice(100.0))], tmp_path / "c", "ood.test")
    with pytest.raises(DataError, match="no train split"):
        ensure(Clips(tmp_path / "c", tmp_path / "cache"))


def test_unknown_reference_is_one_line():
    with pytest.raises(ConfigError, match="choose voice or recording"):
        SpeakerSimilarity(reference="both")


def test_a_judge_that_is_not_built_says_so(corpus, tmp_path):
    with pytest.raises(UserError, match="no recogniser for tones-1"):
        Recogniser(corpus, tmp_path).transcribe(torch.ones(RATE))


def test_resemblyzer_is_optional(monkeypatch):
    monkeypatch.setattr("ttsadapt.metrics.resemblyzer.find_spec", lambda name: None)
    assert "ttsadapt[resemblyzer]" in ResemblyzerSimilarity().missing()


def test_reproducible_gives_back_generator_and_threads():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with reproducible():
        one = torch.rand(3)
    with reproducible():
        assert torch.equal(one, torch.rand(3))
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads


@pytest.mark.slow
def test_dnsmos_prefers_speech_to_noise():
    from ttsadapt.metrics.dnsmos import DnsMos

    metric, nobody = DnsMos(), Utterance("d", Path("d"), "d", "one")
    noise = 0.3 * torch.randn(2 * RATE, generator=torch.Generator().manual_seed(0))
    assert metric.score(noise, RATE, nobody) < metric.score(torch.from_numpy(voice(120.0)), RATE, nobody) <= 5
    assert math.isnan(metric.score(torch.zeros(RATE), RATE, nobody))
