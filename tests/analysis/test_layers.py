import pytest
import torch
from torch import nn
from toys import Planted, ToyLM, ToyMel, dataset

from ttsadapt.analysis.layers import default_group, rank, shared
from ttsadapt.analysis.outputs import averaged, block_outputs
from ttsadapt.analysis.probes import Probe
from ttsadapt.analysis.ranking import Ranking, Settings, stability
from ttsadapt.analysis.told import picture, table
from ttsadapt.errors import ConfigError, DataError, UserError

FAST = Settings(utterances=120, epochs=8, lr=5e-3, width=16, pool=6)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("planted"), 120)


@pytest.fixture(scope="module")
def ranking(features):
    return rank(Planted(), features, FAST)


@pytest.fixture(scope="module")
def thrice(features):
    return rank(Planted(), features, Settings(**vars(FAST) | {"seeds": 3}))


def test_probes_find_the_block_that_knows(ranking):
    assert ranking.group == "main" and ranking.blocks == ["b0", "b1", "b2", "b3"]
    for weights in (ranking.emotion, ranking.speaker, ranking.mean):
        assert sum(weights) == pytest.approx(1)
        assert max(range(4), key=weights.__getitem__) == 2
        assert weights[2] > 0.4
    for by in ("emotion", "speaker", "mean"):
        weights = getattr(ranking, by)
        assert ranking.order(by) == sorted(ranking.blocks, key=lambda b: -weights[ranking.blocks.index(b)])
        assert ranking.order(by)[0] == "b2"
    assert ranking.probe["emotion_accuracy"] > 0.7 and ranking.probe["speaker_accuracy"] > 0.7
    assert ranking.probe["emotion_chance"] < 0.5 and ranking.probe["held_out"] == 24
    assert ranking.mean == pytest.approx([(e + s) / 2 for e, s in zip(ranking.emotion, ranking.speaker)])
    assert ranking.stability == ranking.spread == {}, "one seed says nothing about another"
    assert Ranking.from_dict(ranking.to_dict()) == ranking


def test_the_same_seed_gives_the_same_ranking_and_leaves_the_random_state_alone(features, ranking):
    torch.manual_seed(123)
    model = Planted().train()
    before = torch.get_rng_state()
    again = rank(model, features, FAST)
    assert torch.equal(torch.get_rng_state(), before)
    assert again == ranking
    assert model.training and model.scale.grad is None and not model.layers[0]._forward_hooks


def test_several_seeds_take_one_set_of_block_outputs(features, ranking, thrice, monkeypatch):
    from ttsadapt.analysis import outputs

    passes = []
    monkeypatch.setattr(outputs, "block_outputs", lambda *given: passes.append(1) or block_outputs(*given))
    assert rank(Planted(), features, Settings(**vars(FAST) | {"seeds": 3})) == thrice and passes == [1]
    alone = [rank(Planted(), features, Settings(**vars(FAST) | {"utterances": 120, "seed": s})) for s in range(3)]
    assert alone[0].emotion == ranking.emotion
    # All utterances are drawn, so that probes of seed s see the same as those of an analysis whose own seed is s.
    for name in ("emotion", "speaker", "mean"):
        table = torch.tensor([getattr(a, name) for a in alone])
        assert getattr(thrice, name) == pytest.approx(table.mean(0).tolist(), abs=1e-6)
        assert thrice.spread[name] == pytest.approx(table.std(0).tolist(), abs=1e-6)
    assert thrice.probe["emotion_accuracy"] == pytest.approx(sum(a.probe["emotion_accuracy"] for a in alone) / 3)


def test_the_block_that_knows_is_the_same_for_every_seed_and_the_noise_is_not(thrice):
    """Block b2 is known to carry both labels; which of the three blocks of noise comes last is luck."""
    for name in ("emotion", "speaker", "mean"):
        found = thrice.stability[name]
        assert found["highest"] == {"b2": 3} and found["highest_changes"] == 0
        assert sum(found["lowest"].values()) == 3 and "b2" not in found["lowest"]
        assert found["spearman"] < 1
    assert thrice.order()[0] == "b2"


def test_stability_is_counted_over_pairs_of_seeds():
    agree = stability([[0.1, 0.2, 0.7], [0.2, 0.3, 0.5]], ["a", "b", "c"])
    assert agree == {"spearman": 1.0, "highest_changes": 0.0, "lowest_changes": 0.0, "highest": {"c": 2}, "lowest": {"a": 2}}
    differ = stability([[0.1, 0.2, 0.7], [0.2, 0.1, 0.7], [0.7, 0.2, 0.1]], ["a", "b", "c"])
    # rank correlations: 0.5 (a and b swapped), -1 (reversed), -0.5
    assert differ["spearman"] == pytest.approx(-1 / 3)
    assert differ["highest_changes"] == pytest.approx(2 / 3) and differ["highest"] == {"c": 2, "a": 1}
    assert differ["lowest_changes"] == 1 and differ["lowest"] == {"a": 1, "b": 1, "c": 1}


def test_what_nobody_can_read_off_is_one_clear_line_and_is_never_chosen_from(tmp_path):
    features = dataset(tmp_path, 120, emotions=4)  # three would follow from the lengths
    settings = Settings(**vars(FAST) | {"seeds": 2})
    ranking = shared(Planted(informed=-1), features, settings, tmp_path)
    assert ranking.probe["used"] == [] and ranking.mean == [] and len(ranking.emotion) == 4
    for by in ("mean", "emotion", "speaker"):
        with pytest.raises(UserError, match="no label can be read off the main blocks better than by chance") as error:
            ranking.order(by)
        assert "\n" not in str(error.value) and "emotion" in str(error.value) and "speaker" in str(error.value)
    assert shared(Planted(informed=2), features, settings, tmp_path) == ranking, "a refusal is cached too"
    assert "unrankable: layer analysis" in table(ranking) and "rank\n" not in table(ranking)


def test_one_emotion_leaves_the_speaker(tmp_path):
    ranking = rank(Planted(), dataset(tmp_path, 120, emotions=1), FAST)
    assert ranking.emotion == [] and ranking.probe["emotion_accuracy"] is None
    assert ranking.mean == ranking.speaker and ranking.probe["used"] == ["speaker"]
    assert ranking.order("speaker") == ranking.order()
    with pytest.raises(UserError, match=r"no emotion can be read off .* by=speaker can be$"):
        ranking.order("emotion")
    with pytest.raises(DataError, match="one speaker and one emotion"):
        rank(Planted(), dataset(tmp_path / "one", 8, emotions=1, speakers=1), FAST)


def test_an_analysis_is_shared_by_all_who_ask_alike(features, tmp_path, ranking):
    first = shared(Planted(), features, FAST, tmp_path, seed=5)
    assert first == Ranking.from_dict(ranking.to_dict() | {"settings": first.settings}), "whatever the run's seed"
    assert shared(Planted(), features, Settings(**vars(FAST) | {"group": "main"}), tmp_path, seed=6) == first
    assert len(list(tmp_path.glob("layers-*.json"))) == 1
    of_the_run = Settings(**vars(FAST) | {"seed": None})
    assert shared(Planted(), features, of_the_run, tmp_path, seed=5).settings["seed"] == 5
    assert len(list(tmp_path.glob("layers-*.json"))) == 2


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
    assert averaged(state, 5)[:, 0, 0].tolist() == [2.0, 5.5]
    assert averaged(state[:, :3], 5)[:, 0, 0].tolist() == [1.0]


def test_a_probe_does_not_see_padding():
    torch.manual_seed(0)
    probe = Probe(3, 8, 4, 16, 5).eval()
    assert torch.equal(probe.weights.softmax(0), torch.full((3,), 1 / 3))
    x = torch.randn(1, 7, 3, 8)
    padded = torch.cat([x, 100 * torch.randn(1, 24, 3, 8)], 1)
    both = probe(torch.cat([padded, padded.flip(1)]), torch.tensor([7, 31]))
    torch.testing.assert_close(both[:1], probe(x, torch.tensor([7])), atol=1e-5, rtol=1e-4)


class TwoWidths(Planted):
    """A group that should have been two."""

    def forward(self, batch):
        super().forward(batch)
        self.layers[3](torch.zeros(len(batch["ids"]), batch["tokens"].shape[1], 2 * self.channels))
        return {}


class TwoRates(Planted):
    def forward(self, batch):
        super().forward(batch)
        self.layers[0](torch.zeros(len(batch["ids"]), 2 * batch["tokens"].shape[1], self.channels))
        return {}


def test_groups(features):
    assert default_group(ToyMel()) == "decoder", "the last"
    with pytest.raises(ConfigError, match="has the groups few, main"):
        rank(Planted(), features, Settings(group="encoder"))
    for kind in (TwoWidths, TwoRates):
        with pytest.raises(ConfigError, match=r"group=main: its blocks are not of one rate and width \(\d+ x \d+ and \d+ x \d+"):
            rank(kind(), features, FAST)


def test_memory_is_bounded(features):
    with pytest.raises(ConfigError, match="lower utterances"):
        block_outputs(Planted(), features, "main", Settings(memory=1e-5))
    half = block_outputs(Planted(), features, "main", Settings(half=True))
    assert next(iter(half.values())).dtype == torch.float16
    with pytest.raises(UserError, match="seeds=0"):
        Settings(seeds=0)


def test_the_table_and_the_picture(ranking, thrice, tmp_path):
    ranking.chosen = ["b2"]
    lines = table(ranking).splitlines()
    assert lines[0].split() == ["block", "emotion", "speaker", "mean", "rank"]
    assert lines[3].split()[:2] == ["*", "main.b2"] and lines[3].split()[-1] == "1"
    assert lines[3].split()[2:5] == [f"{w[2]:.3f}" for w in (ranking.emotion, ranking.speaker, ranking.mean)]
    assert "24 held-out utterances: emotion" in lines[5]
    said = table(thrice)
    assert f"{thrice.mean[2]:.3f} ± {thrice.spread['mean'][2]:.3f}" in said
    assert "mean over 3 seeds: rank correlation" in said and "highest b2:3 (changes in 0% of pairs)" in said
    picture([ranking, thrice], tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_hooks_are_gone_even_after_a_failure(features):
    model = TwoWidths()
    with pytest.raises(ConfigError):
        block_outputs(model, features, "main", Settings())
    assert not any(m._forward_hooks for m in model.modules() if isinstance(m, nn.Identity))
