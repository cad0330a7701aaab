"""One test for every trap of CSM in transformers: what goes wrong there, and that it does not here."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from test_csm_official import full_frontend
from transformers import CsmConfig, CsmForConditionalGeneration

from frames_toys import MIMI, Buckets, mimi
from ttsadapt.adapters import match
from ttsadapt.backbones.csm import Csm
from ttsadapt.backbones.csm_frontend import CsmFrontend
from ttsadapt.backbones.frames import weights
from ttsadapt.backbones.frames_text import PhoneText
from ttsadapt.codecs.mimi import MimiCodec
from ttsadapt.errors import CheckpointError, DataError
from ttsadapt.heads import task_loss

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def test_a_context_is_heard_but_not_learnt(frontend, model, utterances):
    """Trap A: two-dimensional labels cannot leave out a turn that has audio; ours are three-dimensional."""
    turns = [frontend.turn(u) for u in utterances[:2]]
    last, both = (frontend.conversation(turns, "talk", learnt) for learnt in (None, [True, True]))
    batch = frontend.collate([last])
    context = (last["text"] < 0) & (last["learnt"] == 0)
    assert context.sum() == len(turns[0].codes) + 1 and (batch["labels"][0][context] == -100).all()
    head, whole = model(batch)["semantic"], model(frontend.collate([both]))["semantic"]
    assert head.count == len(turns[1].codes) + 1 == whole.count - context.sum()
    assert not torch.isclose(head.loss(), whole.loss()), "leaving a turn out changes the loss"
    unheard = batch | {"codes": batch["codes"].masked_fill(context[:, None], 7)}
    assert not torch.allclose(model(unheard)["semantic"].logits, head.logits, atol=1e-3), "the context is heard"


def test_losses_are_means_over_codes_whatever_the_batch(frontend, model, items):
    """Trap B: transformers' Trainer divides both sums by the count of two-dimensional labels."""
    batch = frontend.collate(items)
    output = model.lm(
        inputs_embeds=model.embedded(batch["text"], batch["codes"]), attention_mask=batch["mask"], position_ids=batch["positions"]
    )
    labels, levels = batch["labels"], 4
    semantic = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:, 0].flatten())
    row, at = (labels[..., 1] != -100).nonzero(as_tuple=True)
    deep = model.lm.depth_decoder(
        input_ids=F.pad(labels[row, at, :-1], (1, 0)), backbone_last_hidden_state=last_states(model, batch)[row, at - 1]
    )
    acoustic = F.cross_entropy(deep.logits.flatten(0, 1), labels[row, at, 1:].flatten())
    for w in (1.0, 20.0, 150.0):
        own = copy.copy(model)
        own.semantic_weight, own.acoustic_weight = weights(w, 1.0, levels)
        total = sum(task_loss(own(batch)).values())
        assert torch.allclose(total, (w * semantic + 3 * acoustic) / (w + 3), atol=1e-5)
    assert weights(31.0, 1.0, 32) == (0.5, 0.5) and weights(100.0, 1.0, 32)[0] == pytest.approx(0.763, abs=1e-3)
    heads = model(batch)
    for head in heads.values():  # half of the step's positions in another batch: its share of the loss, no more
        alone, head.total = head.loss(), 2 * head.count
        assert torch.allclose(head.loss(), alone / 2)


def last_states(model, batch) -> torch.Tensor:
    return model.lm.backbone_model(
        inputs_embeds=model.embedded(batch["text"], batch["codes"]), attention_mask=batch["mask"], position_ids=batch["positions"]
    ).last_hidden_state


def test_a_codec_without_codebooks_is_refused(make_frontend, utterances, tmp_path):
    """Trap C: a fresh Mimi says 0 everywhere, which is the end of speech in every frame."""
    fresh = mimi(filled=False)
    assert not fresh.encode(torch.randn(1, 1, 24000), num_quantizers=4).audio_codes.any()
    fresh.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="all zero") as caught:
        MimiCodec(str(tmp_path), 4).codes(torch.randn(24000))
    assert "\n" not in str(caught.value)
    silent = make_frontend()
    silent.codec = Buckets()
    silent.codec.codes = lambda audio: torch.zeros(9, 4, dtype=torch.long)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="mean the end of speech"):
        silent(utterances[0])
    mimi().save_pretrained(tmp_path / "filled")
    said = MimiCodec(str(tmp_path / "filled"), 4).codes(torch.randn(24000) * 0.1)
    assert said.unique().numel() > 4


def test_ids_that_the_codec_lacks_are_never_said(frontend, model, utterances):
    """Trap D: the vocabulary is larger than the codebooks by three."""
    tempted = copy.deepcopy(model)
    tempted.temperature = tempted.acoustic_temperature = 2.0
    tempted.lm.lm_head.register_forward_hook(lambda m, i, o: o + 50.0 * (torch.arange(o.shape[-1]) >= tempted.sayable))
    with torch.no_grad():
        tempted.lm.depth_decoder.codebooks_head.weight[..., tempted.sayable :] *= 100
    codes = torch.cat(tempted.generate([replace(frontend.request(u), seed=k) for k, u in enumerate(utterances)]))
    assert len(codes) > 50 and int(codes.max()) < tempted.sayable
    assert all(a.isfinite().all() for a in tempted.synthesize([frontend.request(u) for u in utterances[:2]]))


def test_lora_stays_out_of_the_codec():
    """Trap E: the usual seven names are Mimi's too: 64 modules and 1,048,576 weights more at rank 16 and full size."""
    with torch.device("meta"):
        model = Csm(full_frontend())
        theirs = CsmForConditionalGeneration(CsmConfig())
        names = [n.removeprefix("lm.") for n in match(model, model.adaptable)]
        inject_adapter_in_model(LoraConfig(r=16, target_modules=names), model.peft_root)
        inject_adapter_in_model(LoraConfig(r=16, target_modules=SEVEN), theirs)
    ours, leaking = (sum(p.numel() for n, p in m.named_parameters() if ".lora_" in n) for m in (model, theirs))
    assert ours == 13_467_648 and leaking == 14_516_224 and len(names) == 7 * 20
    assert not any("codec" in n for n, _ in model.named_modules())


def test_the_codec_is_no_part_of_what_trains(tmp_path):
    """Its parameters want gradients by default, and its mode follows the model's where it is inside."""
    mimi().save_pretrained(tmp_path)
    frontend = CsmFrontend(MimiCodec(str(tmp_path), MIMI["num_quantizers"]), PhoneText(), max_tokens=64)
    frontend.text.phones = ["a"]
    model = Csm(frontend, 32, 48, 1, 2, 1, 16, 32, 1, 2, 1)
    model.train().requires_grad_(True)
    codec = frontend.codec.module
    assert not codec.training and not any(p.requires_grad for p in codec.parameters())
    assert not {id(p) for p in codec.parameters()} & {id(p) for p in model.parameters()}
