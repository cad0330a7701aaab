"""The switch in the config, and the real backbones behind it."""

import pytest
import torch

import test_every_pair
from ttsadapt.config.identity import run_folder, run_id
from ttsadapt.config.schema import check
from ttsadapt.errors import ConfigError
from ttsadapt.files import read_json
from ttsadapt.prefix import Memory, PrefixCache
from ttsadapt.run import train

STILL = {
    "qwen_tts_tiny": ("backbone.3", ["backbone.frontend.dropped=0", "backbone.num_hidden_layers=4"]),
    "gpt_sovits_tiny": ("decoder.3", ["backbone.token_dropout=0", "backbone.layers=4"]),
    "valle_x_tiny": ("ar.1", ["backbone.frontend.dropped=0"]),
    "fastspeech2_tiny": ("decoder.2", []),
}
"""a block that trains, and what makes the frontend draw nothing; padding lies behind, between and in two rates"""


@pytest.mark.parametrize("backbone", STILL)
def test_a_backbone_that_reads_learns_the_same(mini, monkeypatch, backbone):
    block, settings = STILL[backbone]
    tiny = test_every_pair.smaller(backbone)
    monkeypatch.setattr(test_every_pair, "smaller", lambda _: (*tiny, *settings))
    chosen = ["where@strategy.partial.where=explicit", f"strategy.partial.where.names=[{block}]"]
    losses, ran = [], []
    for kept in (False, True):
        assembly, learner = test_every_pair.learner_of(lambda *o, small: mini(*o, *chosen, small=small), backbone, ["partial"])
        (features,) = assembly.features("target.train")
        if kept:
            PrefixCache(Memory()).start(learner, [(features, features.ids)])
        first = next(iter(learner.backbone.blocks[block.split(".")[0]].values()))
        calls: list[int] = []
        next(m for m in first.modules() if isinstance(m, torch.nn.Linear)).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        losses.append(steps(learner, features))
        ran.append(len(calls))
    assert ran == [8, 0]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and losses[0][0] != losses[0][-1]


def steps(learner, features) -> list[float]:
    """Two passes in batches that are put together in different ways."""
    learner.train()
    for module in learner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.05)
    found, ids = [], features.ids[:12]
    for batches in ([ids[n : n + 3] for n in range(0, 12, 3)], [ids[n::4] for n in range(4)]):
        for names in batches:
            torch.manual_seed(len(found))
            loss = torch.stack(list(learner.terms(features.collate(names)).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("kind", ["memory", "disk", "auto"])
def test_the_switch_is_checked_and_makes_no_other_run(mini, kind):
    cfg = mini(f"prefix={kind}", "strategy=[partial]")
    check(cfg)
    plain = run_id(mini("strategy=[partial]"))
    assert run_id(cfg) == plain
    assert run_id(mini(f"prefix={kind}", "prefix.half=true", "strategy=[partial]")) != plain
    with pytest.raises(ConfigError, match=r"prefix\.limits is not a key of PrefixCache: did you mean 'limit'"):
        check(mini(f"prefix={kind}", "+prefix.limits=1"))


def test_a_whole_run_keeps_on_disk(mini, outputs, capsys):
    cfg = mini(
        "prefix=disk",
        "strategy=[partial]",
        "where@strategy.partial.where=explicit",
        "strategy.partial.where.names=[decoder.2]",
        "metric=[]",
        "study=kept",
    )
    train(cfg)
    assert read_json(run_folder(cfg) / "summary.json")["status"] == "finished"
    said = capsys.readouterr().out
    assert "prefix cache: 1 of 1 blocks of encoder, 2 of 3 blocks of decoder" in said and "GiB on disk" in said
    assert list((outputs / "cache" / "prefixes").glob("*/00000.safetensors"))
