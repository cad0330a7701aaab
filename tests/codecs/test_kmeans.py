"""The corpus-fitted codec: what it loses, what it refuses, and that it is a function of its seed."""

import pytest
import torch
from tqdm import tqdm

from ttsadapt.codecs.kmeans import KMeansCodec, cluster, nearest
from ttsadapt.errors import CheckpointError, ConfigError, DataError

SMALL = {"bands": [[0, 25], [0, 25], [25, 80]], "codewords": 32, "stack": 3, "iterations": 6}


def tone(seed: int, seconds: float = 0.6) -> torch.Tensor:
    """A buzz with gliding pitch under a random spectral slope."""
    generator = torch.Generator().manual_seed(seed)
    start, end, slope = torch.rand(3, generator=generator)
    time = torch.arange(int(16000 * seconds)) / 16000
    phase = 2 * torch.pi * torch.cumsum((100 + 150 * start + 100 * (end - start) * time / seconds) / 16000, 0)
    return 0.2 * sum(torch.sin(k * phase) / k ** (0.5 + slope) for k in range(1, 12))


@pytest.fixture(scope="module")
def recordings() -> list[torch.Tensor]:
    return [tone(seed) for seed in range(24)]


@pytest.fixture(scope="module")
def codec(recordings):
    codec = KMeansCodec(**SMALL)
    codec.fit(recordings)
    return codec


def test_tokens_take_turns_and_keep_to_their_levels(codec, recordings):
    tokens = codec.encode(recordings[0])
    assert len(tokens) % codec.levels == 0
    assert all(token in codec.allowed(p) for p, token in enumerate(tokens.tolist()))
    assert tokens.max() < codec.tokens == 3 * 32


def test_length_is_kept_to_within_a_step(codec):
    for samples in (800, 4095, 4096, 9600, 10007):
        audio = tone(3)[:samples] if samples <= 9600 else tone(3, 1.0)[:samples]
        assert abs(len(codec.decode_mel(codec.codes(audio))) - codec.mel.frames(samples)) <= 1
        assert abs(len(codec.decode(codec.encode(audio))) - samples) <= 2 * codec.mel.hop


def test_every_level_lowers_the_error(recordings):
    def error(bands):
        codec = KMeansCodec(**SMALL | {"bands": bands})
        codec.fit(recordings[:20])
        wanted = [codec.mel(audio).clamp_min(codec.floor) for audio in recordings[20:]]
        got = [codec.decode_mel(codec.codes(audio)) for audio in recordings[20:]]
        return torch.cat([(w[: len(g)] - g[: len(w)]).flatten() for w, g in zip(wanted, got)]).square().mean().item()

    errors = [error(bands) for bands in ([[0, 25]], [[0, 25], [25, 80]], [[0, 25], [0, 25], [25, 80]])]
    assert errors[0] > errors[1] > errors[2]


def test_a_coded_mel_codes_to_itself_in_one_band(recordings):
    """Without residual levels a codeword's nearest codeword is itself."""
    codec = KMeansCodec(**SMALL | {"bands": [[0, 80]]})
    codec.fit(recordings)
    book = codec.codebooks[0]
    assert torch.equal(nearest(book, book), torch.arange(len(book)))


def test_same_seed_same_codebooks(codec, recordings):
    again, other = KMeansCodec(**SMALL), KMeansCodec(**SMALL, seed=1)
    again.fit(recordings)
    other.fit(recordings)
    assert all(torch.equal(a, b) for a, b in zip(codec.codebooks, again.codebooks))
    assert not torch.equal(codec.codebooks[0], other.codebooks[0])


def test_embedding_has_a_row_for_every_token(codec):
    rows = codec.embedding()
    assert rows.shape == (codec.tokens, 3 * 80)
    lengths = rows.view(3, 32, -1).square().sum(-1).mean(-1)
    assert torch.allclose(lengths, torch.ones(3), atol=1e-4)
    low, _, high = rows.view(3, 32, -1)
    assert (low @ high.T).abs().max() == 0  # different bands


def test_state_survives_a_file(codec, recordings, tmp_path):
    torch.save(codec.state(), tmp_path / "codec.pt")
    restored = KMeansCodec(**SMALL)
    restored.restore(torch.load(tmp_path / "codec.pt", weights_only=True))
    tokens = codec.encode(recordings[1])
    assert torch.equal(restored.encode(recordings[1]), tokens)
    assert torch.equal(restored.decode(tokens), codec.decode(tokens))


def test_clustering_lowers_the_distortion_and_revives_dead_codewords():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = (centres[:, None] + 0.1 * torch.randn(3, 40, 2, generator=torch.Generator().manual_seed(0))).flatten(0, 1)

    def distortion(iterations: int) -> float:
        found = cluster(vectors, 8, iterations, torch.Generator().manual_seed(2), tqdm(disable=True))
        assert len(nearest(vectors, found).unique()) == 8
        return torch.cdist(vectors, found).min(1).values.square().mean().item()

    assert distortion(10) < distortion(2) < distortion(0)


@pytest.mark.parametrize(
    ("error", "words", "act"),
    [
        (ConfigError, "codec.bands", lambda codec: KMeansCodec(bands=[[0, 90]])),
        (DataError, "32 codewords", lambda codec: KMeansCodec(**SMALL).fit([tone(0)])),
        (DataError, "32 codewords", lambda codec: KMeansCodec(**SMALL).fit([])),
        (DataError, "no codebooks", lambda codec: KMeansCodec(**SMALL).encode(tone(0))),
        (DataError, "out of turn", lambda codec: codec.decode(torch.tensor([40, 0, 70]))),
        (CheckpointError, "saved codec", lambda codec: KMeansCodec(**SMALL | {"stack": 2}).restore(codec.state())),
        (CheckpointError, "saved codec", lambda codec: KMeansCodec(**SMALL | {"codewords": 16}).restore(codec.state())),
    ],
)
def test_refusals_are_one_line(codec, error, words, act):
    with pytest.raises(error) as caught:
        act(codec)
    assert words in str(caught.value) and "\n" not in str(caught.value)
