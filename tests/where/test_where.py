"""Every kind of choice on toys: the right blocks, the same for the same seed, one clear line when it cannot be."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from toys import Planted, ToyLM, ToyMel, dataset

from ttsadapt.analysis.ranking import Settings
from ttsadapt.errors import ConfigError, UserError
from ttsadapt.strategies.base import Study
from ttsadapt.where.all import All
from ttsadapt.where.base import Where, place
from ttsadapt.where.ends import First, Last
from ttsadapt.where.explicit import Explicit
from ttsadapt.where.inside import layers, parameters
from ttsadapt.where.random import Random
from ttsadapt.where.ranked import Bottom, HighestLowest, Ranks, Top, leave

ANALYSIS = Settings(utterances=120, epochs=8, lr=5e-3, width=16, pool=6)


class Halves(Planted):
    """Emotion is planted in block b2 and speaker in block b4, of seven."""

    def __init__(self):
        super().__init__(informed=-1, blocks=7)

    def forward(self, batch):
        t, heard = batch["tokens"].shape[1], {2: (0, 0), 4: (1, 1)}
        for i, layer in enumerate(self.layers):
            x = torch.stack(
                [torch.randn(t, self.channels, generator=torch.Generator().manual_seed(int(u[1:]) * 7 + i)) for u in batch["ids"]]
            )
            if i in heard:
                pattern, column = heard[i]
                x = x + self.patterns[pattern, batch["label"][:, column]][:, None]
            layer(x)
        return {}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("where"), 120, emotions=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One for all tests: what they choose differs, the analysis does not."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def chosen(features, cache):
    def choose(where: Where, backbone=None, seed=0):
        backbone = backbone or Halves()
        where.study(Study(backbone, features, features, cache, seed, torch.Generator().manual_seed(99)))
        return where.blocks(backbone)

    return choose


def main(*names):
    return [("main", f"b{n}") for n in names]


def test_all_of_every_group_or_of_one(chosen):
    assert chosen(All()) == [("few", "0"), *main(*range(7))]
    assert chosen(All("few")) == [("few", "0")]
    assert chosen(All(), ToyMel()) == [("encoder", "0"), ("decoder", "0")]


def test_explicit_names_of_any_group_each_once(chosen):
    assert chosen(Explicit(["main.b3", "few.0", "main.b3"])) == [("main", "b3"), ("few", "0")]


def test_both_ends(chosen):
    assert chosen(First()) == main(0, 1) and chosen(Last()) == main(5, 6)
    assert chosen(First(3)) == main(0, 1, 2) and chosen(Last(1)) == main(6)
    assert chosen(First(7)) == chosen(Last(7)) == main(*range(7))
    assert chosen(Last(1, "few")) == [("few", "0")]


def test_random_follows_its_seed_and_disturbs_no_other_draw(chosen, features, cache):
    drawn = {seed: chosen(Random(3), seed=seed) for seed in range(12)}
    assert all(len(set(blocks)) == 3 and blocks == sorted(blocks) for blocks in drawn.values())
    assert drawn[4] == chosen(Random(3), seed=4) == chosen(Random(3, seed=4), seed=7)
    assert len({tuple(blocks) for blocks in drawn.values()}) > 6
    assert {name for blocks in drawn.values() for _, name in blocks} == {f"b{i}" for i in range(7)}
    of_the_strategy = torch.Generator().manual_seed(1)
    before = of_the_strategy.get_state()
    Random().study(Study(Halves(), features, features, cache, 0, of_the_strategy))
    assert torch.equal(of_the_strategy.get_state(), before)


def order_of(by, cache):
    (file,) = cache.glob("layers-*.json")
    weights = json.loads(file.read_text())[by]
    return sorted(range(7), key=lambda i: -weights[i])


RANKED = {
    "highest": (lambda by: Ranks(["highest"], by, ANALYSIS), [0]),
    "lowest": (lambda by: Ranks(["lowest"], by, ANALYSIS), [6]),
    "CSP-FT": (lambda by: HighestLowest(0, by, ANALYSIS), [0, 6]),
    "second choices": (lambda by: Ranks([1, -2], by, ANALYSIS), [1, 5]),
    "the same place twice": (lambda by: Ranks([0, "highest", -7], by, ANALYSIS), [0]),
    "top": (lambda by: Top(3, by, ANALYSIS), [0, 1, 2]),
    "bottom": (lambda by: Bottom(3, by, ANALYSIS), [4, 5, 6]),
    "two and one of the middle": (lambda by: HighestLowest(1, by, ANALYSIS), [0, 6, 3]),
    "two and two of the middle": (lambda by: HighestLowest(2, by, ANALYSIS), [0, 6, 2, 3]),
    "a third of seven more": (lambda by: HighestLowest(1 / 3, by, ANALYSIS), [0, 6, 2, 3]),
    "all but none": (lambda by: HighestLowest(5, by, ANALYSIS), [0, 6, 1, 2, 3, 4, 5]),
}


@pytest.mark.parametrize("by", ["mean", "emotion", "speaker"])
@pytest.mark.parametrize("kind", RANKED)
def test_ranked_blocks(chosen, cache, kind, by):
    make, ranks = RANKED[kind]
    blocks = chosen(make(by))
    order = order_of(by, cache)
    assert blocks == main(*(order[r] for r in ranks))
    assert chosen(make(by), seed=3) == blocks, "the analysis has a seed of its own"


def test_the_characteristic_decides(chosen):
    assert chosen(Ranks(["highest"], "emotion", ANALYSIS)) == main(2)
    assert chosen(Ranks(["highest"], "speaker", ANALYSIS)) == main(4)
    assert set(chosen(Top(2, "mean", ANALYSIS))) == set(main(2, 4))


def test_more_of_the_middle_only_ever_adds():
    class Plain(HighestLowest):
        pass

    for count in range(2, 25):
        names = [str(i) for i in range(count)]
        seen = [set(Plain(more).ranks("g", names)) for more in range(count - 1)]
        assert [len(s) for s in seen] == list(range(2, count + 1))
        assert all(a < b for a, b in pairwise(seen)) and seen[-1] == set(range(count))
    assert [len(Plain(k / 6).ranks("g", [str(i) for i in range(24)])) for k in range(5)] == [2, 6, 10, 14, 18], "Ours + k/6"


WRONG = {
    "too many at the front": (First(8), "n=8: the group main has 7 blocks"),
    "none": (Last(0), "n=0: the group main has 7 blocks"),
    "too many drawn": (Random(8), "n=8: the group main has 7 blocks"),
    "too many at the top": (Top(8, analysis=ANALYSIS), "n=8: the group main has 7 blocks"),
    "too many at the bottom": (Bottom(9, analysis=ANALYSIS), "n=9"),
    "too many in the middle": (HighestLowest(6, analysis=ANALYSIS), r"2 \+ middle=8: the group main has 7 blocks"),
    "half a block": (HighestLowest(1.5, analysis=ANALYSIS), "middle=1.5: give a whole number"),
    "fewer than none": (HighestLowest(-1, analysis=ANALYSIS), "middle=-1"),
    "a group of one": (HighestLowest(analysis=Settings(group="few")), "the group few has 1 blocks"),
    "no such rank": (Ranks([7], analysis=ANALYSIS), r"rank 7: give highest, lowest or a rank from 0 \(the highest\) to 6"),
    "no such word": (Ranks(["middle"], analysis=ANALYSIS), "rank 'middle': give highest, lowest"),
    "no such name": (Explicit(["main.b9", "few.0"]), r"names=\['main.b9'\]: Halves has the blocks few.0, main.b0"),
    "a bare name": (Explicit(["b0"]), r"names=\['b0'\]"),
    "no such group": (First(1, "encoder"), "group=encoder: Halves has the groups few, main"),
    "no such group of all": (All("encoder"), "group=encoder"),
    "no such group to draw from": (Random(1, "encoder"), "group=encoder"),
    "no such group to rank": (Top(1, analysis=Settings(group="encoder")), "group=encoder: Halves has the groups few, main"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_clear_line(chosen, case):
    where, words = WRONG[case]
    with pytest.raises(ConfigError, match=words) as error:
        chosen(where)
    assert "\n" not in str(error.value)


def test_no_names_at_all():
    with pytest.raises(ConfigError, match=r"names=\[\]: give at least one"):
        Explicit([])


def test_blocks_that_nobody_can_rank_are_never_chosen_from(features, tmp_path):
    where = Ranks(["highest"], analysis=ANALYSIS)
    with pytest.raises(UserError, match="no label can be read off the main blocks"):
        where.study(Study(Planted(informed=-1), features, features, tmp_path, 0, torch.Generator()))
    with pytest.raises(AssertionError, match="study comes first"):
        where.blocks(Planted())


def test_what_several_strategies_of_a_run_chose_is_kept(chosen, tmp_path):
    one, two = Ranks(["highest"], "emotion", ANALYSIS), Ranks(["highest"], "speaker", ANALYSIS)
    chosen(one), chosen(two)
    for where in (one, two, one):
        where.save(tmp_path)
    saved = json.loads((tmp_path / "layers.json").read_text())
    assert sorted(saved["chosen"]) == ["b2", "b4"] and saved["group"] == "main"
    one.ranking.settings["seed"] = 1
    leave(tmp_path / "layers.json", one.ranking)
    again = json.loads((tmp_path / "layers.json").read_text())
    assert [(e["settings"]["seed"], len(e["chosen"])) for e in again] == [(0, 2), (1, 1)]


def test_inside_a_block_are_its_weights_and_its_layers():
    model = ToyLM()
    assert place(model, ("backbone", "1")) == "layers.1"
    got = parameters(model, [("backbone", "1")])
    assert {id(p) for p in got} == {id(p) for p in model.layers[1].parameters()} and len(got) == 4
    assert layers(model, [("backbone", "1")]) == ["layers.1.linear", "layers.1.conv"]
    assert layers(model, [("backbone", "0"), ("backbone", "1")], ["*.conv"]) == ["layers.0.conv", "layers.1.conv"]
    assert layers(model, None) == ["layers.0.linear", "layers.0.conv", "layers.1.linear", "layers.1.conv"]
    with pytest.raises(ConfigError, match=r"inside backbone.0 matches \['layers.1.\*'\]"):
        layers(model, [("backbone", "0")], ["layers.1.*"])


def test_blocks_with_like_names_are_told_apart():
    """layers.1 is no part of layers.10."""

    class Many(ToyLM):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(type(self.layers[0])(6) for _ in range(11))

    assert layers(Many(), [("backbone", "1")]) == ["layers.1.linear", "layers.1.conv"]
