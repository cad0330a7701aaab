"""What trades time for memory changes no number, and leaves the model as it was."""

import lightning as L
import pytest
import torch

from ttsadapt.bench.speech import Layout, setting
from ttsadapt.callbacks.economy import Compiled, GradientCheckpointing, blocks_of
from ttsadapt.learner import fused
from ttsadapt.strategies.full import Full
from ttsadapt.strategies.kd import KD
from ttsadapt.strategies.lora import LoRA
from ttsadapt.strategies.partial import Partial
from ttsadapt.where.explicit import Explicit

SMALL = Layout(hidden=32, intermediate=48, blocks=2, heads=2, kv_heads=1, rows=80, targets=50, text=(3, 6), speech=(8, 20), utterances=12)


class Losses(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(float(outputs["loss"].detach()))


def losses(how, *callbacks, precision="32-true", steps=4):
    made = setting(SMALL)
    learner, seen = made.learner(how, lr=1e-2), Losses()
    L.Trainer(
        max_steps=steps, accelerator="cpu", devices=1, gradient_clip_val=1.0, logger=False, enable_checkpointing=False, precision=precision,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0, callbacks=[seen, *callbacks],
        use_distributed_sampler=False,
    ).fit(learner, made.data(1, seed=0))  # fmt: skip
    return seen.seen, learner


HOW = {"full": lambda: {"full": Full()}, "lora+kd": lambda: {"lora": LoRA(rank=2), "kd": KD(rows="target")}}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("switch", [GradientCheckpointing, lambda: Compiled("aot_eager")])
def test_losses_are_the_same_and_nothing_stays(how, switch):
    want, _ = losses(HOW[how]())
    got, learner = losses(HOW[how](), switch())
    assert want[0] != want[-1] and got == pytest.approx(want, rel=1e-5)
    assert all("forward" not in b.__dict__ and b._compiled_call_impl is None for b in blocks_of(learner))


def test_blocks_are_run_again_in_the_backward_pass():
    calls = []

    class Counting(L.Callback):
        def on_fit_start(self, trainer, pl_module):
            for block in blocks_of(pl_module):
                block.self_attn.register_forward_pre_hook(lambda *_: calls.append(1))

    losses(HOW["full"](), Counting(), steps=1)
    plain = len(calls)
    losses(HOW["full"](), Counting(), GradientCheckpointing(), steps=1)
    assert len(calls) - plain == 2 * plain


def test_bfloat16_trains_and_starts_where_float32_does():
    want, _ = losses(HOW["lora+kd"]())
    got, learner = losses(HOW["lora+kd"](), precision="bf16-mixed")
    assert got == pytest.approx(want, rel=0.05) and all(p.dtype == torch.float32 for p in learner.parameters())


def test_nothing_is_differentiated_below_the_lowest_trained_block():
    made = setting(SMALL)
    learner = made.learner({"partial": Partial(Explicit(["backbone.1"]))})
    seen = {}
    for name, block in made.backbone.blocks["backbone"].items():
        block.register_forward_hook(lambda m, a, out, name=name: seen.update({name: out if isinstance(out, torch.Tensor) else out[0]}))
    batch = made.target.collate(made.target.ids[:4])
    sum(learner.terms(batch).values()).backward()
    assert not seen["0"].requires_grad and seen["1"].requires_grad
    assert all((p.grad is not None) == n.startswith("lm.model.layers.1.") for n, p in made.backbone.named_parameters())


def test_an_optimiser_is_fused_unless_somebody_chose():
    layer = torch.nn.Linear(2, 2)
    optimizer = fused(torch.optim.AdamW(layer.parameters()))
    assert optimizer.param_groups[0]["fused"] and not getattr(optimizer, "_step_supports_amp_scaling", False)
    chosen = fused(torch.optim.AdamW(layer.parameters(), foreach=True))
    assert not chosen.param_groups[0]["fused"]
    assert "fused" not in fused(torch.optim.RMSprop(layer.parameters())).param_groups[0]
