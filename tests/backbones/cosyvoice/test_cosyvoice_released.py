"""The frozen networks of a release, its tokenizer, and what is said about files that are not."""

import pickle
from dataclasses import replace

import pytest
import torch
from cosyvoice_toys import buzz, recorded
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from backbones.cosyvoice import onnx_file
from ttsadapt.backbones.cosyvoice.released import CamPlus, SpeechTokenizer
from ttsadapt.backbones.cosyvoice.text import END_OF_PROMPT, Pieces
from ttsadapt.errors import CheckpointError, ConfigError, DataError, TooLong


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("audio"))


def test_speech_tokens_come_from_whisper_s_bands(tmp_path):
    codec = SpeechTokenizer(str(onnx_file.speech_tokenizer(tmp_path / "tokens.onnx")), tokens=128, rate=100.0)
    tokens = codec.encode(buzz(1.0, 150))
    assert tokens.dtype == torch.long and abs(len(tokens) - 100) <= 1
    time = torch.arange(16000) / 16000
    low, high = (codec.encode(0.3 * torch.sin(2 * torch.pi * f * time)).float().mean() for f in (300.0, 3000.0))
    assert high > 2 * low
    again = pickle.loads(pickle.dumps(codec))
    assert torch.equal(again.encode(buzz(1.0, 150)), tokens)


def test_wrong_speech_tokenizers_are_told_in_one_line(tmp_path):
    path = onnx_file.speech_tokenizer(tmp_path / "tokens.onnx")
    with pytest.raises(CheckpointError, match=r"gives the token \d+: backbone\.frontend\.codec\.tokens=5 does not fit"):
        SpeechTokenizer(str(path), tokens=5).encode(buzz(1.0, 150))
    with pytest.raises(TooLong, match=r"31\.0 s is longer than the 30 s"):
        SpeechTokenizer(str(path)).encode(torch.zeros(31 * 16000))
    with pytest.raises(CheckpointError, match=r"codec\.path=.*gone\.onnx: there is no such file"):
        SpeechTokenizer(str(tmp_path / "gone.onnx")).fit([])
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"cut\.onnx is not a whole onnx file") as told:
        SpeechTokenizer(str(tmp_path / "cut.onnx")).fit([])
    assert "\n" not in str(told.value)
    speaker = onnx_file.speaker_encoder(tmp_path / "speaker.onnx")
    with pytest.raises(CheckpointError, match=r"speaker\.onnx takes input: it is not the file that this key means"):
        SpeechTokenizer(str(speaker)).fit([])


def test_voices_are_means_over_recordings(tmp_path, utterances):
    encoder = CamPlus(str(onnx_file.speaker_encoder(tmp_path / "speaker.onnx")), size=80)
    voices = encoder.fit(utterances)
    assert set(voices) == {"anna", "bert"} and all(v.shape == (80,) for v in voices.values())
    assert torch.equal(encoder.vectors(utterances)["anna"], voices["anna"])
    assert not torch.allclose(voices["anna"], voices["bert"])
    with pytest.raises(DataError, match="too short to tell a voice by"):
        encoder.measure(torch.zeros(100))
    with pytest.raises(CheckpointError, match="gives 80 numbers, not 192"):
        CamPlus(str(tmp_path / "speaker.onnx")).measure(buzz(1.0, 150))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    words = {w: i for i, w in enumerate(["hello", "there", "you", "are", "[UNK]"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


def test_text_is_the_release_s_pieces(tokenizer, utterances):
    text = Pieces(tokenizer, rows=40, instructs={"neutral": "you are"}, otherwise="{emotion}" + END_OF_PROMPT)
    asked = replace(utterances[0], text=" hello there ")
    assert text.symbols(asked) == ("hello", "there") and text.ids(text.symbols(asked)).tolist() == [0, 1]
    assert text.instruct("neutral", "u0").tolist() == [2, 3]
    assert text.instruct("sad", "u0").tolist() == [4, 4 + 3], "an unknown word, then the third of the symbols that are added"
    assert pickle.loads(pickle.dumps(text)).ids(("there",)).tolist() == [1]
    with pytest.raises(DataError, match=r"u0: the text ' ' is empty"):
        text.symbols(replace(utterances[0], text=" "))


def test_wrong_tokenizers_are_told_in_one_line(tokenizer, tmp_path):
    with pytest.raises(ConfigError, match=r"24 symbols do not fit into rows=10 of the model"):
        Pieces(tokenizer, rows=10).fit([], [])
    with pytest.raises(CheckpointError, match=r"text\.path=.* holds no tokenizer") as told:
        Pieces(str(tmp_path)).fit([], [])
    assert "\n" not in str(told.value)
