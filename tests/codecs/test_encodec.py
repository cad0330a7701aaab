"""EnCodec through transformers: a small one with random weights, from a folder."""

import pickle

import pytest
import torch
from transformers import EncodecConfig, EncodecModel

from ttsadapt.codecs.encodec import EncodecCodec
from ttsadapt.errors import CheckpointError, ConfigError, DataError

SMALL = {"num_filters": 4, "hidden_size": 16, "num_lstm_layers": 1, "codebook_dim": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig(**SMALL))
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_(std=0.1)
    path = tmp_path_factory.mktemp("encodec")
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def codec(folder):
    return EncodecCodec(str(folder))


def test_six_kilobits_are_eight_levels_of_75_frames(codec):
    assert (codec.sample_rate, codec.levels, codec.codewords, codec.rate) == (24000, 8, 1024, 600.0)


@pytest.mark.parametrize("samples", [24000, 320 * 20 + 1, 400])
def test_codes_and_back(codec, samples):
    audio = 0.3 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    codes = codec.codes(audio)
    assert codes.dtype == torch.long and codes.shape == (-(-samples // 320), 8)
    assert len(codes.unique()) > 8
    again = codec.decode_codes(codes)
    assert again.shape == (320 * len(codes),) and again.abs().max() <= 1
    with torch.no_grad():
        raw = codec.module.encode(audio[None, None], torch.ones(1, 1, samples), bandwidth=6.0).audio_codes[0, 0].T
    assert torch.equal(codes, raw)


def test_the_folder_travels_and_not_the_weights(codec, folder):
    codec.codes(torch.randn(3200))
    packed = pickle.dumps(codec)
    assert len(packed) < 2000
    audio = torch.randn(3200)
    assert torch.equal(pickle.loads(packed).codes(audio), codec.codes(audio))
    fitted = EncodecCodec(str(folder))
    fitted.fit(iter([audio]))
    fitted.restore(codec.state())


def test_codewords_are_those_of_the_levels_in_use(codec, folder):
    table = codec.embedding().unflatten(0, (8, -1))
    assert torch.allclose(table.square().sum(-1).mean(-1), torch.ones(8), atol=1e-5)
    raw = codec.module.quantizer.layers[3].codebook.embed
    assert (
        torch.corrcoef(torch.stack([torch.cdist(table[3, :9], table[3, :9]).flatten(), torch.cdist(raw[:9], raw[:9]).flatten()]))[0, 1]
        > 0.999
    )
    fewer = EncodecCodec(str(folder), 3.0)
    assert fewer.levels == 4 and len(fewer.embedding()) == 4 * 1024


def test_nothing_of_it_trains(codec):
    assert not any(p.requires_grad for p in codec.module.parameters()) and not codec.module.training


def test_refusals_are_one_line(codec, folder, tmp_path):
    def told(error: type[Exception], act) -> str:
        with pytest.raises(error) as caught:
            act()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "neither a folder of EnCodec" in told(CheckpointError, lambda: EncodecCodec(str(tmp_path / "none")).sample_rate)
    assert "codec.bandwidth=5.0" in told(ConfigError, lambda: EncodecCodec(str(folder), 5.0).levels)
    assert "is not the EnCodec" in told(CheckpointError, lambda: codec.restore({"weights": "0", "bandwidth": 6.0}))
    assert "codes must be in" in told(DataError, lambda: codec.decode_codes(torch.full((3, 8), 1024)))
    EncodecConfig(audio_channels=2, normalize=True, chunk_length_s=1.0, overlap=0.01).save_pretrained(tmp_path / "stereo")
    assert "mono 24 kHz" in told(CheckpointError, lambda: EncodecCodec(str(tmp_path / "stereo")).levels)
