import pytest
import torch
from toys import Planted, ToyLM, ToyMel, dataset

from ttsadapt.analysis.layers import Probe, Ranking, Settings, _averaged, block_outputs, largest_group, rank
from ttsadapt.errors import ConfigError, DataError, UserError

FAST = Settings(utterances=120, epochs=8, lr=5e-3, width=16, pool=6)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("planted"), 120)


@pytest.fixture(scope="module")
def ranking(features):
    return rank(Planted(), features, FAST)


def test_probes_find_the_block_that_knows(ranking):
    assert ranking.group == "main" and ranking.blocks == ["b0", "b1", "b2", "b3"]
    for weights in (ranking.emotion, ranking.speaker, ranking.mean):
        assert sum(weights) == pytest.approx(1)
        assert max(range(4), key=weights.__getitem__) == 2
        assert weights[2] > 0.4
    assert ranking.block("highest") == ranking.block(0) == "b2"
    assert ranking.block("lowest") == ranking.block(-1) != "b2"
    assert ranking.probe["emotion_accuracy"] > 0.7 and ranking.probe["speaker_accuracy"] > 0.7
    assert ranking.probe["emotion_chance"] < 0.5 and ranking.probe["held_out"] == 24
    assert ranking.mean == pytest.approx([(e + s) / 2 for e, s in zip(ranking.emotion, ranking.speaker)])
    assert Ranking.from_dict(ranking.to_dict()) == ranking


def test_the_same_seed_gives_the_same_ranking_and_leaves_the_random_state_alone(features, ranking):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    model = Planted().train()
    before = torch.get_rng_state()
    again = rank(model, features, FAST)
    assert torch.equal(torch.get_rng_state(), before)
    assert again == ranking
    assert model.training and model.scale.grad is None and not model.layers[0]._forward_hooks


def test_what_nobody_can_read_off_is_one_clear_line(features):
    with pytest.raises(UserError, match="better than by chance") as error:
        rank(Planted(informed=-1), features, FAST)
    assert "\n" not in str(error.value) and "emotion" in str(error.value) and "speaker" in str(error.value)


def test_one_emotion_leaves_the_speaker(tmp_path):
    ranking = rank(Planted(), dataset(tmp_path, 120, emotions=1), FAST)
    assert ranking.emotion == [] and ranking.probe["emotion_accuracy"] is None
    assert ranking.mean == ranking.speaker and ranking.probe["used"] == ["speaker"]
    with pytest.raises(DataError, match="one speaker and one emotion"):
        rank(Planted(), dataset(tmp_path / "one", 8, emotions=1, speakers=1), FAST)


def test_only_speech_positions_are_kept(features):
    """Padding has no effect: an utterance alone gives what it gives in a batch."""
    model = ToyLM()
    alone = block_outputs(model, features, "backbone", Settings(frames=1, pool=1))
    together = block_outputs(model, features, "backbone", Settings(frames=2000, pool=1))
    assert alone.keys() == together.keys() == set(features.ids)
    for i in features.ids:
        assert alone[i].shape == (features.lengths[i]["frames"], 2, 6)
        torch.testing.assert_close(alone[i], together[i])
        torch.testing.assert_close(alone[i].mean(-1), torch.zeros(alone[i].shape[:2]), atol=1e-5, rtol=0)


def test_averages_are_over_what_is_there():
    state = torch.arange(7.0).repeat(2, 1)[..., None]
    assert _averaged(state, 5)[:, 0, 0].tolist() == [2.0, 5.5]
    assert _averaged(state[:, :3], 5)[:, 0, 0].tolist() == [1.0]


def test_a_probe_does_not_see_padding():
    torch.manual_seed(0)
    probe = Probe(3, 8, 4, 16, 5).eval()
    assert torch.equal(probe.weights.softmax(0), torch.full((3,), 1 / 3))
    x = torch.randn(1, 7, 3, 8)
    padded = torch.cat([x, 100 * torch.randn(1, 24, 3, 8)], 1)
    both = probe(torch.cat([padded, padded.flip(1)]), torch.tensor([7, 31]))
    torch.testing.assert_close(both[:1], probe(x, torch.tensor([7])), atol=1e-5, rtol=1e-4)


def test_groups(features):
    assert largest_group(ToyMel()) == "decoder", "the last of equals"
    with pytest.raises(ConfigError, match="has the groups few, main"):
        rank(Planted(), features, Settings(group="encoder"))


def test_memory_is_bounded(features):
    with pytest.raises(ConfigError, match="lower utterances"):
        block_outputs(Planted(), features, "main", Settings(memory=1e-5))
    half = block_outputs(Planted(), features, "main", Settings(half=True))
    assert next(iter(half.values())).dtype == torch.float16
