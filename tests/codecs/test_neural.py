"""The fitted codecs: what comes back is close to what went in, closer with more levels, and no worse after a restart."""

import pytest
import torch

from metrics.sounds import voice
from ttsadapt.codecs.neural import NeuralCodec
from ttsadapt.codecs.semantic import SemanticCodec
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import CheckpointError, DataError

SMALL = {"width": 16, "codewords": 24, "steps": 60}
SPOKEN = [Phone("a", 0, 0.4), Phone("ˈb", 0.4, 0.9)]


@pytest.fixture(scope="module")
def recordings():
    return [torch.from_numpy(voice(90.0 + 12 * i, "aiua"[i % 2 :])) for i in range(8)]


@pytest.fixture(scope="module")
def codec(recordings):
    made = NeuralCodec(levels=4, semantic_steps=60, **SMALL)
    made.fit(recordings, [SPOKEN] * len(recordings))
    return made


@pytest.fixture(scope="module")
def semantic(recordings):
    made = SemanticCodec(**SMALL)
    made.fit(recordings, [SPOKEN] * len(recordings))
    return made


def distance(codec, audio, codes):
    mel = codec.mel(audio)
    decoded = codec.decode_mel(codes)
    length = min(len(mel), len(decoded))
    return (mel[:length].clamp_min(codec.floor) - decoded[:length]).abs().mean()


def test_every_level_brings_the_recording_closer(codec, recordings):
    audio = recordings[3]
    codes = codec.codes(audio)
    assert codes.shape[1] == 4 and codes.min() >= 0 and codes.max() < codec.codewords
    assert abs(len(codes) / 25 - len(audio) / codec.sample_rate) <= 0.04
    errors = [distance(codec, audio, codes[:, : n + 1]) for n in range(4)]
    assert errors == sorted(errors, reverse=True)


def test_the_decoder_undoes_part_of_the_quantisation(codec, recordings):
    plain = NeuralCodec(levels=4, semantic_steps=60, **SMALL | {"steps": 0})
    plain.fit(recordings, [SPOKEN] * len(recordings))
    assert all(torch.equal(a, b) for a, b in zip(plain.rest.codebooks, codec.rest.codebooks))
    assert sum(distance(codec, a, codec.codes(a)) for a in recordings) < sum(distance(plain, a, plain.codes(a)) for a in recordings)


def test_flat_tokens_and_codes_are_the_same_thing(codec, recordings):
    tokens, codes = codec.encode(recordings[0]), codec.codes(recordings[0])
    assert torch.equal(tokens.view(-1, 4), codes + torch.arange(4) * codec.codewords)
    assert torch.equal(codec.decode(tokens), codec.decode_codes(codes))
    assert codec.embedding().shape[0] == codec.tokens


def test_the_first_level_is_the_same_however_loud_the_recording_is(codec, recordings):
    audio = recordings[2]
    loud, quiet = codec.codes(audio), codec.codes(0.7 * audio)
    assert (loud[:, 0] == quiet[:, 0]).float().mean() > 0.9 and not torch.equal(loud[:, 1], quiet[:, 1])


def test_a_token_of_speech_does_not_say_how_loud_or_how_tilted_the_recording_is(semantic, recordings):
    audio = recordings[2]
    assert torch.equal(semantic.encode(audio), semantic.encode(0.5 * audio))
    assert not torch.allclose(semantic.voice(audio), semantic.voice(0.5 * audio))


def test_the_voice_is_the_decoders_business(semantic, recordings):
    tokens = semantic.encode(recordings[1])
    assert abs(len(tokens) / semantic.rate - len(recordings[1]) / semantic.sample_rate) <= 1 / semantic.rate
    own, other = (semantic.decode_mel(tokens, semantic.voice(recordings[i])) for i in (1, 7))
    assert own.shape == (2 * len(tokens), 80) and not torch.allclose(own, other)
    audio = semantic.decode(tokens, semantic.voice(recordings[1]))
    assert torch.isfinite(audio).all() and audio.abs().max() <= 1


@pytest.mark.parametrize("kind", [NeuralCodec, SemanticCodec])
def test_it_comes_back_from_its_state_and_is_fitted_the_same_twice(kind, recordings, tmp_path):
    settings = SMALL | {"steps": 3} | ({"semantic_steps": 3, "levels": 3} if kind is NeuralCodec else {})
    first, second = kind(**settings), kind(**settings)
    first.fit(recordings)
    torch.rand(3)  # another place in the global stream of random numbers
    second.fit(iter(recordings))
    torch.save(first.state(), tmp_path / "codec.pt")
    restored = kind(**settings)
    restored.restore(torch.load(tmp_path / "codec.pt", weights_only=True))
    said = [c.encode(recordings[4]) for c in (first, second, restored)]
    assert torch.equal(said[0], said[1]) and torch.equal(said[0], said[2])
    extra = () if kind is NeuralCodec else (first.voice(recordings[4]),)
    assert torch.equal(first.decode(said[0], *extra), restored.decode(said[0], *extra))


def test_refusals_are_one_line(semantic, recordings):
    for make, kind in [
        (lambda: SemanticCodec().encode(recordings[0]), DataError),
        (lambda: SemanticCodec().fit([]), DataError),
        (lambda: SemanticCodec(codewords=12, width=16).restore(semantic.state()), CheckpointError),
        (lambda: NeuralCodec().encode(recordings[0]), DataError),
    ]:
        with pytest.raises(kind) as error:
            make()
        assert "\n" not in str(error.value)
