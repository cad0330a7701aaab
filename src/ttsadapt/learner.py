"""The only LightningModule: heads in, named loss terms out."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ttsadapt.backbones.base import Backbone, Batch, supervised
from ttsadapt.errors import CheckpointError, ConfigError
from ttsadapt.heads import Heads, reduced_terms
from ttsadapt.strategies.base import Strategy, Study

Look = Callable[[str], Study]
"""name of a strategy -> what it may look at, with its own generator"""


def adapt(backbone: Backbone, strategies: Mapping[str, Strategy], look: Look) -> list[tuple[nn.Parameter, float | None]]:
    """Every `study`, then every `attach`, then `ready`: gives the parameters that train with their learning rates.

    Strategies go in name order, so the order in which they were asked for cannot matter.
    """
    named = sorted(strategies.items())
    for name, strategy in named:
        strategy.study(look(name))
    for _, strategy in named:
        strategy.attach(backbone)
    claims: dict[int, tuple[nn.Parameter, float | None]] = {}
    for _, strategy in named:
        for parameter in [*strategy.trainable(backbone), *strategy.parameters()]:
            claims.setdefault(id(parameter), (parameter, strategy.lr))
    if named and not claims:
        raise ConfigError(idle(strategies))
    for _, strategy in named:
        strategy.ready(backbone, set(claims))
    return list(claims.values())


def freeze(backbone: Backbone, strategies: Mapping[str, Strategy], claims: Iterable[tuple[nn.Parameter, float | None]]) -> None:
    """A run starts frozen; only what was claimed trains. Without any strategy it stays the untuned model."""
    for module in [backbone, *strategies.values()]:
        module.requires_grad_(False)
    for parameter, _ in claims:
        parameter.requires_grad_(True)
    if strategies and not any(p.requires_grad for module in [backbone, *strategies.values()] for p in module.parameters()):
        raise ConfigError(idle(strategies))


def idle(strategies: Iterable[str]) -> str:
    """The message about strategies that train nothing."""
    names = ",".join(strategies)
    return f"strategy=[{names}] trains nothing: add full, partial, csp or lora (strategy=[lora,{names}])"


class Learner(L.LightningModule):
    """Sums the terms of one batch: the task's heads and one term for each strategy that has something to add."""

    def __init__(
        self,
        backbone: Backbone,
        strategies: Mapping[str, Strategy],
        claims: list[tuple[nn.Parameter, float | None]],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any] | None = None,
        base_hash: str = "",
        valid_sets: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.backbone, self.strategies = backbone, nn.ModuleDict(dict(sorted(strategies.items())))
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.base_hash, self.valid_sets = base_hash, valid_sets
        freeze(backbone, strategies, claims)
        self._claims = [(p, lr) for p, lr in claims]
        self.train()

    def train(self, mode: bool = True) -> "Learner":
        """Frozen parts stay in eval mode: no dropout, no running statistics, so their activations are a function of the input."""
        super().train(mode)
        if mode:
            _rest(self.backbone)
        return self

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Named terms of the loss, each a () tensor."""
        for strategy in self.strategies.values():
            strategy.condition(batch)  # type: ignore[operator]
        heads = self.heads(batch)
        asked = {name: strategy.penalty(batch, heads) for name, strategy in self.strategies.items()}  # type: ignore[operator]
        terms, taught = reduced_terms(heads, {name: wanted for name, wanted in asked.items() if isinstance(wanted, list)})
        for name, added in asked.items():
            if isinstance(added, dict):
                terms |= {f"{name}/{k}": t for k, t in added.items()}
            elif isinstance(added, Tensor) or name in taught:
                terms[name] = taught.get(name, added)
        return terms

    def heads(self, batch: Batch) -> Heads:
        heads = self.backbone(batch)
        for head in heads.values():
            head.total = supervised(batch, head.unit)
        return heads

    def training_step(self, batch: Batch, index: int) -> dict[str, Any]:
        terms = self.terms(batch)
        loss = torch.stack(list(terms.values())).sum()
        named = {name: term.detach() for name, term in terms.items()}
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set, never declared
        if (self.global_step + 1) % every == 0 or self.global_step == 0:
            logged = {f"train/{name}": term for name, term in named.items()}
            self.log_dict(logged | {"train/loss": loss.detach(), "lr": self._lr()}, batch_size=1, sync_dist=self.trainer.world_size > 1)
        return {"loss": loss, "terms": named}

    def _lr(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        where = self.valid_sets[dataloader_idx]
        sums, counts = self._sums.setdefault(where, {}), self._counts.setdefault(where, {})
        for name, head in self.backbone(batch).items():
            sums[name] = sums.get(name, 0.0) + head.weight * head.per_position().sum()
            counts[name] = counts.get(name, 0) + head.count

    def on_validation_epoch_start(self) -> None:
        self._sums: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def on_validation_epoch_end(self) -> None:
        logged: dict[str, Tensor] = {}
        for where, sums in self._sums.items():
            means = {name: total / max(self._counts[where][name], 1) for name, total in sums.items()}
            logged |= {f"valid/{where}/{name}": value for name, value in means.items()}
            logged[f"valid/{where}/loss"] = torch.stack(list(means.values())).sum()
        self.log_dict(logged, rank_zero_only=False)

    def configure_optimizers(self) -> Any:
        groups: dict[float | None, list[nn.Parameter]] = {}
        for parameter, lr in self._claims:
            groups.setdefault(lr, []).append(parameter)
        wanted = [{"params": ps} | ({} if lr is None else {"lr": lr}) for lr, ps in groups.items()]
        optimizer = fused(self.make_optimizer(wanted))
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer, max_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def changed_state(self) -> dict[str, Tensor]:
        """What training changes: trained parameters, and buffers of the modules that hold them."""
        trained = {n: p for n, p in self.named_parameters(remove_duplicate=False) if p.requires_grad}
        state = self.state_dict()
        frozen = {n for n, _ in self.named_parameters(remove_duplicate=False)} - set(trained)
        return {n: t for n, t in state.items() if n not in frozen}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = self.changed_state()
        checkpoint["base"] = self.base_hash

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = self.completed(checkpoint)

    def completed(self, checkpoint: dict[str, Any], where: str = "the checkpoint") -> dict[str, Tensor]:
        """The whole state from what training changed; refuses a checkpoint of another base or another set of strategies."""
        if not {"state_dict", "base"} <= checkpoint.keys():
            raise CheckpointError(f"{where} was not written by ttsadapt: it has the keys {sorted(checkpoint)[:5]}")
        if checkpoint["base"] != self.base_hash:
            raise CheckpointError(
                f"{where} belongs to base {checkpoint['base'] or 'none'}, this run has {self.base_hash or 'none'}: use the same base"
            )
        own, saved = self.state_dict(), checkpoint["state_dict"]
        wrong = [n for n, t in saved.items() if n not in own or own[n].shape != t.shape]
        missing = [n for n in self.changed_state() if n not in saved]
        if wrong or missing:
            raise CheckpointError(
                f"{where} is of other strategies than this run's: it {'has' if wrong else 'lacks'} {(wrong + missing)[0]} "
                f"(and {len(wrong + missing) - 1} more): put the run's own checkpoint there, or remove it and train again"
            )
        return own | saved


def fused(optimizer: Optimizer) -> Optimizer:
    """One kernel for all parameters where the optimiser has one and nobody chose otherwise.

    Set on the groups: an optimiser that is constructed with `fused=True` claims to unscale gradients, and then they cannot be clipped.
    """
    for group in optimizer.param_groups:
        floats = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"])
        untouched = group.get("foreach") is None and group.get("fused", True) is None
        if untouched and floats and not group.get("differentiable") and not isinstance(group["lr"], Tensor):
            group["fused"] = True
    return optimizer


def _rest(module: nn.Module) -> None:
    """Eval mode for every part that has parameters and trains none of them."""
    for child in module.children():
        parameters = list(child.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            child.eval()
        else:
            _rest(child)
