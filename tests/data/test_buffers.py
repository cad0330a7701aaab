import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from ttsadapt.data.buffers import Balanced, Herding, Reservoir, described, herded
from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Study
from ttsadapt.strategies.rehearsal import Rehearsal

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from toys import ToyLM, dataset


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """24 utterances: two of each of four speakers in three emotions."""
    return dataset(tmp_path_factory.mktemp("source"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cells(source, ids):
    return Counter((source.utterances[i].speaker, source.utterances[i].emotion) for i in ids)


@pytest.mark.parametrize("keep", [Reservoir(), Balanced(), Herding()])
@pytest.mark.parametrize("size", [1, 7, 23, 24, 100])
def test_so_many_are_kept_and_the_seed_decides(source, keep, size):
    model = ToyLM().eval()
    ids = keep.choose(source, size, model, generator(1))
    assert len(set(ids)) == len(ids) == min(size, 24) and set(ids) <= set(source.ids)
    assert keep.choose(source, size, model, generator(1)) == ids
    if size == 7:
        assert keep.choose(source, size, model, generator(2)) != ids


def test_a_reservoir_keeps_each_with_the_same_chance(source):
    kept = Counter(i for seed in range(2000) for i in Reservoir().choose(source, 6, ToyLM(), generator(seed)))
    assert all(abs(kept[i] / 2000 - 6 / 24) < 0.05 for i in source.ids), "four standard errors are 0.04"


@pytest.mark.parametrize("keep", [Balanced(), Herding()])
def test_every_speaker_in_every_emotion_has_its_part(source, keep):
    assert set(cells(source, keep.choose(source, 12, ToyLM().eval(), generator())).values()) == {1}
    some = cells(source, keep.choose(source, 18, ToyLM().eval(), generator()))
    assert len(some) == 12 and set(some.values()) == {1, 2}


def test_herding_takes_those_whose_mean_stays_nearest():
    features = torch.tensor([[0.0, 0.0], [10.0, 0.0], [4.0, 1.0], [6.0, -1.0], [0.0, 0.5]])  # mean (4, 0.1)
    assert herded(features, 1) == [2]
    chosen = herded(features, 3)
    rest = [k for k in range(5) if k not in chosen[:2]]
    by_hand = min(rest, key=lambda k: (features[[*chosen[:2], k]].mean(0) - features.mean(0)).norm().item())
    assert chosen[2] == by_hand and len(set(herded(features, 5))) == 5
    random = [torch.randperm(5, generator=generator(s))[:3] for s in range(20)]
    distance = [(features[r].mean(0) - features.mean(0)).norm() for r in random]
    assert (features[chosen].mean(0) - features.mean(0)).norm() <= sorted(distance)[10]


def test_an_utterance_is_described_by_the_model_over_its_speech_alone(source):
    model = ToyLM().train()
    modes = [m.training for m in model.modules()]
    vectors = described(source, model)
    assert set(vectors) == set(source.ids) and [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks for m in model.modules())
    name, vector = next(iter(vectors.items()))
    batch = source.collate([name])  # without padding
    with torch.no_grad():
        x = model.eval().embed(batch["tokens"])
        for layer in model.layers:
            (x,) = layer(x)
    torch.testing.assert_close(vector, torch.nn.functional.normalize(x[0].mean(0), dim=0))


def test_the_strategy_chooses_on_the_untouched_model_and_says_what_to_draw(source, tmp_path):
    strategy = Rehearsal(share=0.3, buffer=12, keep=Balanced())
    strategy.study(Study(ToyLM(), source, source, tmp_path, 0, generator()))
    mix = strategy.mix(source, source, generator(5))
    assert mix.share == 0.3 and len(mix.ids) == 12 and set(cells(source, mix.ids).values()) == {1} and mix.source is None
    everything = Rehearsal()
    everything.study(Study(ToyLM(), source, source, tmp_path, 0, generator()))
    assert everything.mix(source, source, generator()).ids == source.ids
    with pytest.raises(ConfigError, match="generative_rehearsal in its place"):
        everything.study(Study(ToyLM(), [], source, tmp_path, 0, generator()))
    with pytest.raises(ConfigError, match=r"strategy\.rehearsal\.buffer=0"):
        Rehearsal(buffer=0)
    with pytest.raises(ConfigError, match=r"strategy\.rehearsal\.share=1"):
        Rehearsal(share=1)
