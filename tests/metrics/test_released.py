"""Judges from elsewhere: found on the machine or named in one line, and asked the way their own libraries ask them."""

import sys
from pathlib import Path
from types import SimpleNamespace

import jiwer
import models
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from sounds import said, voice

from ttsadapt.config.base import composed
from ttsadapt.data import manifest
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError
from ttsadapt.metrics import pretrained
from ttsadapt.metrics.available import TOLD, available
from ttsadapt.metrics.base import Unknown
from ttsadapt.metrics.ecapa import EcapaSimilarity
from ttsadapt.metrics.recognisers.base import Recogniser
from ttsadapt.metrics.recognisers.released import Released
from ttsadapt.metrics.released_emotion import Emotion2Vec, TransformersEmotion, common
from ttsadapt.metrics.signal import RATE, levelled, trimmed
from ttsadapt.metrics.terms import TermAccuracy
from ttsadapt.metrics.utmos import Utmos
from ttsadapt.metrics.wavlm import WavLMSimilarity
from ttsadapt.metrics.wer import CharacterErrorRate, Failed, WordErrorRate

SPEECH = torch.from_numpy(voice(110.0, "aiua"))
ANYONE = Utterance("a", Path("a.wav"), "a", "one")


class Deaf(Recogniser):
    """Hears what it is told to."""

    model, version = "deaf", "1"

    def __init__(self, says="", lacks=None):
        self.says, self.lacks = says, lacks

    def missing(self, key):
        return self.lacks

    def transcribe(self, audio, language):
        return self.reference(self.says, language)


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.delenv(TOLD, raising=False)
    pretrained.located.cache_clear()


def test_whatever_is_missing_is_said_once_and_left_out(capsys, monkeypatch):
    monkeypatch.setenv("TTSADAPT_OUTPUTS", "/nowhere")
    cfg = composed("metric=[ecapa,wavlm_sv,emotion_iemocap,utmos,emotion2vec,pauses]")
    for _ in range(2):
        kept = available({k: instantiate(node) for k, node in cfg.metric.items()})
        assert list(kept) == ["pauses"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) == 5 and all(line.startswith("left out: ") for line in lines)
    assert any("speechbrain/spkrec-ecapa-voxceleb is not on this machine: `hf download" in line for line in lines)
    assert any("torch.hub.load" in line for line in lines) and any("pip install funasr" in line for line in lines)


@pytest.mark.parametrize("heard", ["the old sailor sleeps", "an old sailor", "", "the the old old sailor sleeps at night", "Twenty-one!"])
def test_word_errors_are_jiwers(heard, tmp_path):
    text = "The old sailor sleeps."
    utterance = said(tmp_path, "u", voice(110.0), text=text)
    judge = Deaf(heard)
    wanted, got = judge.reference(text, "en-us"), judge.transcribe(SPEECH, "en-us")
    found = jiwer.process_words(wanted, got)

    def score(kind, **about):
        return kind(judge, None, **about).score(SPEECH, RATE, utterance)

    assert score(WordErrorRate) == pytest.approx(100 * jiwer.wer(wanted, got))
    for part in ("substitutions", "deletions", "insertions"):
        assert score(WordErrorRate, part=part) == pytest.approx(100 * getattr(found, part) / 4)
    assert score(CharacterErrorRate) == pytest.approx(100 * jiwer.cer(wanted, got))
    assert score(Failed) == 100 * (jiwer.wer(wanted, got) > 0.5)
    assert WordErrorRate(judge, None).weight(utterance) == 4


def test_texts_are_made_alike_as_whisper_does():
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    text = "Mr. Smith, I'd say: twenty-one dollars (uh) -- it's THE colour!"
    assert Deaf().reference(text, "en-us") == " ".join(EnglishTextNormalizer({})(text).split())
    assert Deaf().reference("Grüß Gott, Äpfel!", "de") == "grüß gott äpfel"


def test_another_recogniser_stands_in_and_says_so(capsys):
    metric = WordErrorRate(Deaf("x", lacks="no Whisper"), Deaf("x"))
    assert metric.missing() is None and metric.recogniser is metric.otherwise
    assert "words are heard by deaf: no Whisper" in capsys.readouterr().out
    assert WordErrorRate(Deaf(lacks="no Whisper"), None).missing() == "no Whisper"
    assert "whisper-normaliser transformers" in metric.model


def test_what_stands_in_is_said_once_for_all_that_ask_it(capsys, monkeypatch):
    monkeypatch.setattr("ttsadapt.metrics.recognisers.released.incomplete", lambda path, key: f"{path} is away: give {key}=<folder>")
    cfg = composed("metric=[wer,cer,terms]", "metric.terms.words=[aneurysm]")
    assert len(available({k: instantiate(node) for k, node in cfg.metric.items()})) == 7
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("words are heard by ctc-phones") and line.endswith("give metric.<name>.recogniser.path=<folder>")


@pytest.mark.parametrize("write", [models.ctc, models.whisper])
def test_transformers_recognisers_transcribe_as_the_library_does(write, tmp_path):
    from transformers import AutoModelForCTC, AutoProcessor, WhisperForConditionalGeneration

    judge = Released(str(write(tmp_path / "judge")))
    assert judge.missing("") is None and judge.model == "judge" and len(judge.version) == 12
    clip = trimmed(SPEECH)
    heard = judge.transcribe(SPEECH, "en-us")
    assert heard and judge.transcribe(SPEECH, "en-us") == heard and judge.transcribe(torch.zeros(RATE), "en-us") == ""
    processor = AutoProcessor.from_pretrained(judge.path)
    inputs = processor(clip.numpy(), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        if write is models.ctc:
            ids = AutoModelForCTC.from_pretrained(judge.path)(**inputs).logits.argmax(-1)
        else:
            model = WhisperForConditionalGeneration.from_pretrained(judge.path)
            ids = model.generate(**inputs, do_sample=False, num_beams=1)
    assert heard == judge.reference(processor.batch_decode(ids, skip_special_tokens=write is models.whisper)[0], "en-us")


def test_half_a_model_is_named(tmp_path):
    folder = models.xvector(tmp_path / "half")
    (folder / "preprocessor_config.json").unlink()
    assert "has no preprocessor_config.json" in WavLMSimilarity(str(folder)).missing()
    assert "there is no folder ./none" in Released("./none").missing("metric.wer.recogniser")
    folder = models.emotions(tmp_path / "hollow")
    assert TransformersEmotion(str(folder)).missing() is None
    (folder / "model.safetensors").unlink()
    assert "has no weights (model.safetensors): download" in TransformersEmotion(str(folder)).missing()


@pytest.mark.parametrize(
    ("write", "judge", "head"),
    [
        (models.ctc, lambda path: Released(path).transcribe(SPEECH, "en-us"), "lm_head.bias and 1 more"),
        (models.emotions, lambda path: TransformersEmotion(path).score(SPEECH, RATE, ANYONE), "classifier.bias and 3 more"),
        (models.xvector, lambda path: WavLMSimilarity(path).embed(SPEECH), "classifier.bias and"),
    ],
)
def test_a_model_without_the_head_that_judges_is_refused(write, judge, head, tmp_path):
    """As a model that was pretrained and never tuned: transformers would draw the head at random."""
    from safetensors.torch import load_file, save_file

    folder = write(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    whole = {n: t for n, t in weights.items() if not n.endswith("masked_spec_embed")}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    judge(str(folder))  # nothing is judged with that vector
    headless = tmp_path / "headless"
    folder.rename(headless)
    save_file({n: t for n, t in whole.items() if n.startswith(("wav2vec2.", "wavlm."))}, headless / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"headless has no {head}.* cannot judge: download it again, or give the folder") as error:
        judge(str(headless))
    (headless / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="headless is no model for AutoModel") as broken:
        judge(str(headless))
    assert "\n" not in str(error.value) + str(broken.value)


def test_ecapa_is_what_speechbrain_computes(tmp_path):
    from speechbrain.inference.speaker import EncoderClassifier

    folder = models.ecapa(tmp_path / "ecapa")
    metric = EcapaSimilarity(str(folder), reference="recording")
    theirs = EncoderClassifier.from_hparams(source=str(folder), savedir=str(tmp_path / "copy"))
    clip = levelled(trimmed(SPEECH))
    wanted = theirs.encode_batch(clip[None])[0, 0]
    assert torch.allclose(metric.embed(clip), wanted, atol=1e-4)
    utterance = said(tmp_path, "other", voice(220.0, "iau"))
    found = metric.score(SPEECH, RATE, utterance)
    other = theirs.encode_batch(levelled(trimmed(torch.from_numpy(voice(220.0, "iau"))))[None])[0, 0]
    assert found == pytest.approx(100 * float(torch.cosine_similarity(wanted, other, dim=0)), abs=0.05)
    (folder / "embedding_model.ckpt").write_bytes(b"no weights")
    from ttsadapt.metrics import ecapa

    ecapa.opened.cache_clear()
    with pytest.raises(CheckpointError, match="holds no ECAPA-TDNN"):
        metric.embed(clip)


def test_a_voice_is_the_mean_of_its_held_out_recordings(tmp_path):
    corpus = tmp_path / "corpus"
    valid = [said(corpus / "w", f"v{i}", voice(100.0 + 5 * i), speaker="anna") for i in range(2)]
    manifest.write(valid, corpus, "target.valid")
    manifest.write([said(corpus / "w", "t", voice(300.0), speaker="anna")], corpus, "target.train")
    metric = WavLMSimilarity(str(models.xvector(tmp_path / "wavlm")))
    metric.open(corpus, tmp_path)
    vectors = [metric.vector(torch.from_numpy(voice(100.0 + 5 * i))) for i in range(2)]
    wanted = torch.nn.functional.normalize(sum(vectors) / 2, dim=0)
    found = metric.score(SPEECH, RATE, valid[0])
    assert found == pytest.approx(100 * float(metric.vector(SPEECH) @ wanted), abs=0.01)
    unknown = metric.score(SPEECH, RATE, said(tmp_path, "n", voice(90.0), speaker="nobody"))
    assert isinstance(unknown, Unknown) and "nobody has no recordings in the data" in unknown.why
    assert np.isnan(metric.score(torch.zeros(RATE), RATE, valid[0]))


def test_emotions_of_iemocap(tmp_path):
    path = str(models.emotions(tmp_path / "emotions"))
    accuracy, probability = TransformersEmotion(path), TransformersEmotion(path, says="probability")
    about = [said(tmp_path, e, voice(110.0), emotion=e) for e in ("neutral", "happy", "angry", "sad", "fearful")]
    shares = [probability.score(SPEECH, RATE, u) for u in about[:4]]
    assert sum(shares) == pytest.approx(100, abs=1e-3)
    assert [accuracy.score(SPEECH, RATE, u) for u in about[:4]] == [100.0 * (s == max(shares)) for s in shares]
    unknown = accuracy.score(SPEECH, RATE, about[4])
    assert isinstance(unknown, Unknown) and "angry, happy, neutral, sad" in unknown.why


def test_emotion2vec_is_asked_as_funasr_wants_it(tmp_path, monkeypatch):
    asked = {}

    class AutoModel:
        def __init__(self, **settings):
            asked.update(settings)

        def generate(self, audio, **settings):
            asked.update(settings, samples=len(audio))
            return [{"labels": ["生气/angry", "开心/happy", "<unk>"], "scores": [0.2, 0.7, 0.1]}]

    fake = SimpleNamespace(AutoModel=AutoModel, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "funasr", fake)
    (tmp_path / "config.yaml").touch(), (tmp_path / "model.pt").touch()
    metric = Emotion2Vec(str(tmp_path))
    assert metric.missing() is None
    assert metric.score(SPEECH, RATE, said(tmp_path, "h", voice(110.0), emotion="happy")) == 100
    assert metric.score(SPEECH, RATE, said(tmp_path, "a", voice(110.0), emotion="angry")) == 0
    assert asked["granularity"] == "utterance" and asked["model"] == str(tmp_path) and asked["disable_update"]
    assert common("开心/happy") == "happy" and common("ang") == "angry"


def test_utmos_from_the_hub_s_cache(tmp_path, monkeypatch, utterance):
    hub = models.speechmos(tmp_path / "hub")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub))
    metric = Utmos()
    assert metric.missing() is None and metric.version
    assert metric.score(SPEECH, RATE, utterance) == pytest.approx(1 + 4 * np.tanh(3 * float(SPEECH.abs().mean())), abs=1e-4)
    assert np.isnan(metric.score(torch.zeros(RATE), RATE, utterance))
    (tmp_path / "hub/checkpoints/utmos22_strong_step7459_v1.pt").unlink()
    assert "has no weights" in metric.missing()


def test_terms_are_whole_words_that_are_heard(tmp_path):
    (tmp_path / "terms.txt").write_text("Worcester\naneurysm\n\n")
    metric = TermAccuracy(Deaf("the aneurysms of Worcester"), None, ["of"], str(tmp_path / "terms.txt"))
    utterance = said(tmp_path, "t", voice(110.0), text="An aneurysm, of Worcester.")
    assert metric.score(SPEECH, RATE, utterance) == pytest.approx(200 / 3) and metric.weight(utterance) == 3
    assert metric.score(SPEECH, RATE, said(tmp_path, "n", voice(110.0), text="nothing")).why == "no listed term in the text"
    assert "give metric.terms.words" in TermAccuracy(Deaf(), None, None, None).missing()


def test_dnsmos_is_the_package_s_own():
    from speechmos import dnsmos

    from ttsadapt.metrics.dnsmos import DnsMos

    theirs, nobody = dnsmos.run(SPEECH.numpy(), RATE), ANYONE
    for part in ("ovrl", "sig", "bak", "p808"):
        assert DnsMos(part=part).score(SPEECH, RATE, nobody) == pytest.approx(theirs[f"{part}_mos"], abs=1e-5)
