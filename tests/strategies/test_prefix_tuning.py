"""Prefix tuning: as peft's own model computes it, one step at a time as at once, a prefix for each row, and off."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from peft import PrefixTuningConfig, TaskType, get_peft_model
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from ttsadapt.adapters import followers, merged, switchable
from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.errors import CheckpointError, ConfigError
from ttsadapt.heads import task_loss
from ttsadapt.run import build_learner
from ttsadapt.strategies.prefix_tuning import Prefix, PrefixTuning

P, L, ROWS = 3, 7, 2
TINY = Path(__file__).parents[1] / "tiny"


@pytest.fixture
def lm():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    return Qwen2ForCausalLM(config).eval()


@pytest.fixture
def embedded():
    return torch.randn(ROWS, L, 16, generator=torch.Generator().manual_seed(1))


def prefixed(lm, prefixes=1, hidden=None):
    prefix = Prefix(lm.model, prefixes, P, hidden)
    for p in prefix.parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(2))
    prefix.hang(lm.model)
    return prefix


def states(lm, **named):
    with torch.no_grad():
        return lm.model(use_cache=False, **named).last_hidden_state


@pytest.mark.parametrize("hidden", [None, 5])
def test_states_are_those_of_pefts_model(lm, embedded, hidden):
    theirs = get_peft_model(copy.deepcopy(lm), PrefixTuningConfig(
        task_type=TaskType.CAUSAL_LM, num_virtual_tokens=P, prefix_projection=hidden is not None, encoder_hidden_size=hidden
    )).eval()  # fmt: skip
    prefix = prefixed(lm, hidden=hidden)
    theirs.prompt_encoder["default"].load_state_dict(prefix.encoder.state_dict())
    with torch.no_grad():
        wanted = theirs(inputs_embeds=embedded, attention_mask=torch.ones(ROWS, L)).logits
        ours = lm.lm_head(states(lm, inputs_embeds=embedded, position_ids=P + torch.arange(L)[None]))  # peft counts from P
    torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("mask", ["none", "plain", "square"])
def test_step_by_step_is_all_at_once(lm, embedded, mask):
    prefixed(lm)
    whole = {"none": None, "plain": torch.ones(ROWS, L, dtype=torch.bool), "square": torch.ones(1, 1, L, L).tril().bool()}[mask]
    wanted = states(lm, inputs_embeds=embedded, attention_mask=whole)
    cache, found = DynamicCache(config=lm.config), []
    for first, last in [(0, 4), *((i, i + 1) for i in range(4, L))]:
        seen = torch.ones(ROWS, last, dtype=torch.bool)
        output = lm.model(inputs_embeds=embedded[:, first:last], attention_mask=seen, past_key_values=cache, use_cache=True)
        found.append(output.last_hidden_state)
    torch.testing.assert_close(torch.cat(found, 1), wanted)


def test_each_row_has_its_prefix_and_padding_changes_none(lm, embedded):
    prefix = prefixed(lm, prefixes=3)
    alone = []
    for row, of in zip(embedded, (2, 1)):
        prefix.told(torch.tensor([of]))
        alone.append(states(lm, inputs_embeds=row[None]))
    prefix.told(torch.tensor([2, 1]))
    torch.testing.assert_close(states(lm, inputs_embeds=embedded), torch.cat(alone))
    mask = torch.tensor([[True] * L, [True] * 4 + [False] * 3])
    torch.testing.assert_close(states(lm, inputs_embeds=embedded, attention_mask=mask)[1, :4], alone[1][0, :4])


def test_off_it_is_the_base_and_on_it_learns(lm, embedded):
    bare = states(lm, inputs_embeds=embedded)
    prefix = prefixed(lm)
    assert followers(lm) == [prefix] and prefix in switchable(lm)
    assert not torch.allclose(states(lm, inputs_embeds=embedded), bare)
    lm.requires_grad_(False)
    lm.model(inputs_embeds=embedded, use_cache=False).last_hidden_state.square().sum().backward()
    assert all((p.grad != 0).any() for p in prefix.parameters())
    prefix.off = True
    assert torch.equal(states(lm, inputs_embeds=embedded), bare)
    with pytest.raises(CheckpointError, match="Prefix"):
        merged(lm)


def test_nothing_is_silent(lm, embedded):
    prefixed(lm)
    lm.model.gradient_checkpointing_enable()
    with pytest.raises(ConfigError, match="gradient_checkpointing"):
        lm.train().model(inputs_embeds=embedded, use_cache=False)
    with pytest.raises(ConfigError, match="tokens=0"):
        PrefixTuning(tokens=0)


def test_every_speaker_that_is_learnt_has_its_own(mini):
    asked = ["backbone=qwen_tts_tiny", "base=null", "strategy=[prefix_tuning]", "strategy.prefix_tuning.each_speaker=true"]
    cfg = mini(*asked, *yaml.safe_load((TINY / "qwen_tts_tiny.yaml").read_text()), small=False)
    assembly = Assembly(cfg)
    ensure(assembly.corpus)
    ensure(*assembly.needs())
    learner, _ = build_learner(assembly)
    (target,), (source,) = assembly.features("target.train"), assembly.features("source.train")
    mine, theirs = (features.collate(features.ids[:2]) for features in (target, source))
    before = [loss(learner, batch) for batch in (mine, theirs)]
    (strategy,) = [s for s in learner.strategies.values() if isinstance(s, PrefixTuning)]
    with torch.no_grad():
        strategy.prefix.encoder.embedding.weight[strategy.tokens :] += 1  # all but the shared one
    after = [loss(learner, batch) for batch in (mine, theirs)]
    assert before[0] != after[0] and before[1] == after[1]


@torch.no_grad()
def loss(learner, batch) -> float:
    return sum(task_loss(learner.eval().heads(batch)).values()).item()
