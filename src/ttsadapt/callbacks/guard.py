"""A loss that turns NaN ends the run with one line, and the last good checkpoint stays."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ttsadapt.errors import UserError


class FiniteLoss(Callback):
    """Looks at what `training_step` returns: {"loss": (), "terms": {name: ()}} (terms may come and go from batch to batch).

    On a CPU each batch is checked. On a GPU the values are kept on the device, and read every log interval and before every
    checkpoint, so that no step waits. Weights are checked before a checkpoint, too: a gradient can be NaN where the loss is
    not. Under DDP all ranks look at the same moments and stop together.
    """

    def __init__(self, each_batch: bool | None = None) -> None:
        """`each_batch`: look at every batch rather than every log interval; None: on a CPU, where looking costs nothing."""
        self.each_batch = each_batch
        self._step = 0
        self._seen: list[tuple[int, str]] = []
        self._values: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._step = trainer.global_step + 1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if isinstance(outputs, Mapping) and "loss" in outputs:
            terms = {**outputs.get("terms", {}), "the sum": outputs["loss"]}
            self._seen += [(self._step, name) for name in terms]
            self._values += [torch.as_tensor(v, device=pl_module.device).detach().float() for v in terms.values()]
        each = pl_module.device.type == "cpu" if self.each_batch is None else self.each_batch
        if each or trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]  # set, never declared
            self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer)
        trained = {n: p.detach() for n, p in pl_module.named_parameters() if p.requires_grad}
        if not _finite(list(trained.values())):
            name = next(n for n, p in trained.items() if not p.isfinite().all())
            raise UserError(
                f"step {self._step}: weight {name} became NaN or infinite though the loss was finite: lower optimizer.lr or set "
                "trainer.gradient_clip_val; the last good checkpoint is kept"
            )

    def _check(self, trainer: Trainer) -> None:
        fault = None if _finite(self._values) else self._describe()
        self._seen, self._values = [], []
        if trainer.world_size > 1:
            faults: list[str | None] = [None] * trainer.world_size
            dist.all_gather_object(faults, fault)
            fault = next((f for f in faults if f), None)
        if fault:
            raise UserError(f"{fault}: lower optimizer.lr or the weight of that term; the last good checkpoint is kept")

    def _describe(self) -> str:
        bad = [(step, name, v.item()) for (step, name), v in zip(self._seen, self._values) if not v.isfinite()]
        first = bad[0][0]
        terms = [f"{name} ({value})" for step, name, value in bad if step == first]
        named = [t for t in terms if not t.startswith("the sum")] or terms  # the sum is bad whenever a term is
        return f"step {first}: the loss is not finite in {', '.join(dict.fromkeys(named))}"


def _finite(tensors: list[Tensor]) -> bool:
    """One wait for the device, however many tensors."""
    return not tensors or bool(torch.stack([t.isfinite().all() for t in tensors]).all())
