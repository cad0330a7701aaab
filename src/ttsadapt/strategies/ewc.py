"""Elastic weight consolidation (Kirkpatrick et al. 2017): hold each weight as hard as the old abilities need it."""

from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ttsadapt.adapters import adapter_of, base_parameters, changed_names
from ttsadapt.analysis.budget import Budget, divergence, on_device, predictions
from ttsadapt.analysis.fisher import drawn, estimated
from ttsadapt.analysis.held import Held
from ttsadapt.analysis.information import Diagonal, Factored, Information, Whole, read, store, write
from ttsadapt.analysis.quadratic import dense, low_rank
from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.data.features import FeatureSet
from ttsadapt.errors import ConfigError
from ttsadapt.files import digest
from ttsadapt.heads import Heads
from ttsadapt.strategies.base import Strategy, Study
from ttsadapt.strategies.kd import untuned

SAVED = Path("ewc") / "fisher.safetensors"
"""below a run's folder: what the next stage reads"""


class EWC(Strategy):
    """Adds strength / 2 * sum_i F_i (theta_i - start_i)^2, about `strength` times the nats per position lost on source data.

    theta is the weight in effect: under LoRA the change is the merged one, scaling * B A. (Fisher information of A and B
    themselves would be useless: B starts at 0, so A's is 0.) In a Laplace reading `strength` is N_old / N_new, the
    positions that the old abilities stand for over those of the new data.
    """

    def __init__(
        self,
        strength: float = 1.0,
        budget: float | None = None,
        every: int = 20,
        rate: float = 0.5,
        watched: int = 8,
        rank1: bool = False,
        decay: float | None = None,
        previous: str | None = None,
        utterances: int = 400,
        frames: int = 1000,
        seed: int = 0,
    ) -> None:
        """`utterances` of the source data in batches of `frames`: more batches, a less noisy estimate. `seed` is the estimate's.

        `budget`: nats per position that source data may lose, *measured* every `every` batches on `watched` utterances; `strength`
        is then where its multiplier starts, and `rate` its largest step. `rank1`: keep row and column sums of F.
        `decay`: one of several stages (online EWC, Schwarz et al. 2018, as in GMvandeVen/continual-learning): F comes from the run
        folder `previous`, in the first stage from the source, and decay * F + F of what was learnt is left for the next stage.
        """
        super().__init__()
        _check(strength, budget, every, decay, previous)
        self.strength, self.watched, self.decay = strength, watched, decay
        self.previous = None if previous is None else Path(previous).expanduser()
        self.kept: type[Information] = Factored if rank1 else Whole
        self.utterances, self.frames, self.seed = utterances, frames, seed
        self.budget = None if budget is None else Budget(budget, strength, every, rate)
        self._held = nn.ModuleList()
        self._nats = torch.zeros(())

    def study(self, study: Study) -> None:
        self._learnt = study.target
        if self.previous is not None:
            self._path = _saved(self.previous)
        else:
            settings = {"utterances": self.utterances, "frames": self.frames, "seed": self.seed}
            name = digest(settings | ({"kept": self.kept.__name__} if self.kept is not Whole else {}))
            self._path = study.cache / f"fisher-{name}.safetensors"
            store(self._path, lambda: self._estimate(study.backbone, study.source))
        if self.budget is not None:
            part = drawn(study.source, self.watched, torch.Generator().manual_seed(self.seed + 1))
            self._watched = list(part.batches(self.frames))
            self._before = predictions(study.backbone, self._watched)

    def _estimate(self, backbone: Backbone, features: FeatureSet) -> Diagonal:
        generator = torch.Generator().manual_seed(self.seed)
        part = drawn(features, self.utterances, generator)
        return estimated(backbone, part.batches(self.frames, generator), generator, self.kept)

    @torch.no_grad()
    def ready(self, backbone: Backbone, trained: set[int]) -> None:
        """Keep the information of the weights that can change; a copy of the start only of those that change in place."""
        self._backbone = (backbone,)  # a tuple: not this module's child, not saved with it
        changed = changed_names(backbone, trained)
        known = read(self._path, changed)
        if not known:
            raise ConfigError(
                f"strategy.ewc: what trains ({', '.join(changed[:2]) or 'modules of its own'}) adds to the model without changing a weight "
                "of it, so there is nothing to hold: use kd instead, which holds what the model says"
            )
        information = {n: i for n, i in known.items() if not i.empty}
        if not information:
            raise ConfigError(
                f"strategy.ewc: no Fisher information is known of any of the {len(changed)} weights that train "
                f"({', '.join(changed[:3])}): leave ewc out, or train weights of the base model"
            )
        own = base_parameters(backbone)
        self._held = nn.ModuleList(
            Held(own[name], name.rpartition(".")[2], adapter_of(backbone, name), id(own[name]) in trained, value)
            for name, value in information.items()
        )
        if self._only_adapters(backbone, trained):
            self._before = []

    @property
    def held(self) -> list[Held]:
        """Every weight that can change and matters."""
        return list(self._held)  # type: ignore[arg-type]  # a ModuleList forgets of what

    def _only_adapters(self, backbone: Backbone, trained: set[int]) -> bool:
        """Is the untuned model still there, under adapters that start at 0 and can be switched off?"""
        adapters = [m for m in backbone.modules() if isinstance(m, BaseTunerLayer)]
        inside = {id(p) for m in adapters for n, p in m.named_parameters() if n.startswith("lora_")}
        return trained <= inside and all(held.start is None for held in self.held)

    def penalty(self, batch: Batch, heads: Heads) -> Tensor:
        """() strength times nats per position, in the heads' mean as `analysis.fisher` states it."""
        with torch.autocast(batch["origin"].device.type, enabled=False):
            nats = self.nats()
        self._nats = nats.detach()
        return nats * (self.strength if self.budget is None else self.budget.step(self.drift))

    def nats(self) -> Tensor:
        """() 1/2 sum_i F_i (theta_i - start_i)^2."""
        factors = [(held, held.factors) for held in self.held]
        thin = [(held.information, *f) for held, f in factors if f is not None]
        rest = [held for held, f in factors if f is None]
        terms = [low_rank(*map(list, zip(*thin)))] if thin else []  # type: ignore[arg-type]
        if rest:
            terms.append(dense([h.information for h in rest], [h.start for h in rest], [h.now() for h in rest]))
        return torch.stack(terms).sum()

    def drift(self) -> Tensor:
        """() the measured KL(base || tuned) of the watched utterances, nats per position."""
        (backbone,) = self._backbone
        return divergence(backbone, self._watched, self._taught)

    def _taught(self, number: int, batch: Batch) -> Heads:
        if self._before:
            return on_device(self._before[number], batch["origin"].device)
        with untuned(self._backbone[0]) as base:
            return base(batch)

    def metrics(self) -> dict[str, Tensor]:
        """`nats`: the penalty without its strength; `kl` and `strength` where a budget is kept."""
        kept = {} if self.budget is None else {"kl": self.budget.kl, "strength": self.budget.multiplier}
        return {"nats": self._nats, **kept}

    def save(self, backbone: Backbone, folder: Path) -> None:
        """`ewc/fisher.safetensors` for the next stage: decay * F + F of what was learnt here, at the weights as they are now."""
        if self.decay is None:
            return
        new = self._estimate(backbone, self._learnt)
        old, decay = read(self._path, list(new)), self.decay
        both = {n: i.mapped(torch.Tensor.cpu).plus(old[n].mapped(lambda t: decay * t)) if n in old else i for n, i in new.items()}
        write(folder / SAVED, both)


def _saved(previous: Path) -> Path:
    path = previous / SAVED if previous.is_dir() else previous
    if not path.is_file():
        raise ConfigError(f"strategy.ewc.previous={previous}: no {SAVED} there: train that stage with strategy.ewc.decay=<0 to 1>")
    return path


def _check(strength: float, budget: float | None, every: int, decay: float | None, previous: str | None) -> None:
    if strength < 0 or (budget is not None and strength == 0):
        raise ConfigError(f"strategy.ewc.strength={strength}: give a number that is not negative, with a budget one above 0")
    if budget is not None and budget <= 0:
        raise ConfigError(f"strategy.ewc.budget={budget}: give the nats per position that may be lost, such as 0.05, or null")
    if every < 1:
        raise ConfigError(f"strategy.ewc.every={every}: give the number of batches between two measurements")
    if decay is not None and not 0 <= decay <= 1:
        raise ConfigError(f"strategy.ewc.decay={decay}: give a number between 0 and 1, or null for a run that is no stage")
    if previous is not None and decay is None:
        raise ConfigError("strategy.ewc.previous is given without strategy.ewc.decay: say how much of the earlier information to keep")
