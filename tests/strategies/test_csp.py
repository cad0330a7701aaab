import json
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from peft import LoraConfig, inject_adapter_in_model

from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Study
from ttsadapt.strategies.csp import CSP

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from toys import Block, Planted, dataset


class Trained(Planted):
    """Planted blocks with weights, which the noise passes by."""

    def __init__(self):
        super().__init__()
        self.weighty = torch.nn.ModuleList(Block(4) for _ in range(4))
        for planted, block in zip(self.layers, self.weighty):
            planted.add_module("inner", block)


def study_of(tmp_path, backbone, seed=0):
    features = dataset(tmp_path, 120)
    return Study(backbone, features, features, tmp_path / "cache", seed, torch.Generator().manual_seed(seed))


def csp(**options):
    return CSP(utterances=120, epochs=8, **options)


def test_highest_and_lowest_blocks_train_whole(tmp_path):
    backbone, strategy = Trained(), csp()
    strategy.study(study_of(tmp_path, backbone))
    ranking = strategy.where.ranking
    assert ranking.chosen[0] == "b2" and len(ranking.chosen) == 2
    chosen = [backbone.blocks["main"][name] for name in ranking.chosen]
    wanted = {id(p) for block in chosen for p in block.parameters()}
    assert {id(p) for p in strategy.trainable(backbone)} == wanted and len(wanted) == 8
    strategy.save(backbone, tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "layers.json").read_text())
    known = {"group", "blocks", "emotion", "speaker", "mean", "chosen", "probe", "spread", "stability", "settings"}
    assert saved.keys() == known
    assert saved["chosen"] == ranking.chosen and saved["settings"]["epochs"] == 8
    assert saved["mean"].index(max(saved["mean"])) == 2

    again = csp(choose=OmegaConf.create([1, "highest"]))
    again.study(study_of(tmp_path, Trained(), seed=1))
    assert len(list((tmp_path / "cache").glob("layers-*.json"))) == 1
    assert again.where.ranking.mean == ranking.mean, "read from the cache, whatever is chosen and whatever the run's seed"
    order = sorted(range(4), key=lambda i: -saved["mean"][i])
    assert again.where.ranking.chosen == [f"b{order[1]}", "b2"]

    torch.manual_seed(0)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["linear"]), backbone)
    assert {id(p) for p in strategy.trainable(backbone)} == wanted, "adapters in the blocks are another strategy's"

    with pytest.raises(ConfigError, match="rank 'middle'") as error:
        csp(choose=["middle"]).study(study_of(tmp_path, Trained()))
    assert "\n" not in str(error.value)


def test_wrong_groups_are_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match="few has 1 blocks"):
        csp(group="few").study(study_of(tmp_path, Trained()))
    with pytest.raises(ConfigError, match="has the groups few, main"):
        csp(group="none").study(study_of(tmp_path, Trained()))
