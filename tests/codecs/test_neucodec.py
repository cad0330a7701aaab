"""The pretrained codecs on instances of random weights: frames, rates, one clip at a time, mistakes."""

import pickle

import pytest
import torch
from transformers import AutoConfig, AutoModel, MimiConfig, NeuCodecConfig, NeuCodecFeatureExtractor, Xcodec2Config, Xcodec2FeatureExtractor

from ttsadapt.codecs.neucodec import NeuCodec
from ttsadapt.errors import CheckpointError, DataError

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
    "encoder_hidden_size": 4, "quantization_dim": 48,
    "semantic_model_config": {
        "model_type": "wav2vec2-bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "feature_projection_input_dim": 160,
    },
}  # fmt: skip
KINDS = {"neucodec": (NeuCodecConfig, NeuCodecFeatureExtractor), "xcodec2": (Xcodec2Config, Xcodec2FeatureExtractor)}


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request, tmp_path_factory):
    config, extractor = KINDS[request.param]
    place = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model = AutoModel.from_config(config(**SIZES))
    with torch.no_grad():  # at random every clip would be one code
        model.quantizer.project_in.weight *= 200
        model.fc_encoder.weight *= 20
    model.save_pretrained(place)
    extractor().save_pretrained(place)
    return place


def noise(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


def test_frames_are_those_of_the_recording(folder):
    codec = NeuCodec(str(folder))
    assert (codec.levels, codec.tokens, codec.rate, codec.input_rate, codec.hop) == (1, 65536, 50.0, 16000, 320)
    assert codec.sample_rate == (24000 if "neucodec" in folder.name else 16000) and codec.allowed(3) == range(65536)
    for samples in (16000, 16001, 15999, 9600, 5000):
        codes = codec.encode(noise(samples))
        assert codes.shape == (samples // 320,) and codes.dtype == torch.long
        assert codes.min() >= 0 and codes.max() < 65536 and len(codes.unique()) > 3
        assert len(codec.decode(codes)) == len(codes) * codec.sample_rate // 50


def test_codes_are_those_of_the_model_alone(folder):
    codec, audio = NeuCodec(str(folder)), noise(8000)
    inputs = codec.extractor(audio=audio.numpy(), sampling_rate=16000, return_tensors="pt")
    whole = AutoModel.from_pretrained(folder).eval().encode(**inputs).audio_codes[0, 0]
    assert torch.equal(codec.encode(audio), whole[:25].long())
    wave = codec.model.decode(audio_codes=whole[None, None, :25]).audio_values[0, 0]
    assert torch.allclose(codec.decode(whole[:25]), wave.clamp(-1, 1), atol=1e-6)


def test_nothing_and_one_frame_can_be_decoded(folder):
    codec = NeuCodec(str(folder))
    assert len(codec.decode(torch.zeros(0, dtype=torch.long))) == 0
    assert len(codec.decode(torch.tensor([7]))) == codec.sample_rate // 50


def test_codewords_lie_as_the_quantiser_has_them(folder):
    codec = NeuCodec(str(folder))
    table = codec.model.quantizer.quantizer.codebook.float()
    own = codec.embedding()
    assert own.shape == table.shape
    assert torch.corrcoef(torch.stack([own.flatten(), table.flatten()]))[0, 1] > 0.99


def test_only_the_path_is_pickled_and_saved(folder):
    codec = NeuCodec(str(folder))
    codes = codec.encode(noise(8000))
    assert len(pickle.dumps(codec)) < 500
    assert torch.equal(pickle.loads(pickle.dumps(codec)).encode(noise(8000)), codes)
    codec.restore(codec.state())
    with pytest.raises(CheckpointError, match="use that one"):
        NeuCodec("elsewhere").restore(codec.state())


def test_mistakes_are_one_line(folder, tmp_path):
    MimiConfig().save_pretrained(tmp_path / "mimi")
    AutoConfig.from_pretrained(folder).save_pretrained(tmp_path / "bare")
    mistakes = [
        (DataError, "too short", lambda: NeuCodec(str(folder)).encode(noise(700))),
        (CheckpointError, "looks like a mimi", lambda: NeuCodec(str(tmp_path / "mimi")).model),
        (CheckpointError, "no codec can be read", lambda: NeuCodec(str(tmp_path / "bare")).model),
        (CheckpointError, "no codec can be read", lambda: NeuCodec(str(tmp_path / "none")).tokens),
    ]
    for kind, words, act in mistakes:
        with pytest.raises(kind) as caught:
            act()
        assert words in str(caught.value) and "\n" not in str(caught.value)
