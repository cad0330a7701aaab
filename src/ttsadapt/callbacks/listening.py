"""What the model says while it learns: fixed sentences, spoken and scored during validation, so that any metric can be monitored."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ttsadapt.backbones.base import Backbone
from ttsadapt.bars import Bar
from ttsadapt.callbacks.state import untouched
from ttsadapt.data.utterance import Utterance
from ttsadapt.learner import Learner
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.subset import subset


class Listening(L.Callback):
    """Logs `valid/<set>/<metric>`: the mean over the set's sentences, each spoken with one and the same seed.

    Rank 0 speaks and scores, and tells the others. Random generators and the modes of the modules are as they were afterwards: a
    run that is listened to ends with the weights of one that is not, bit for bit.
    """

    def __init__(
        self,
        sentences: Mapping[str, Sequence[Utterance]],
        metrics: Mapping[str, UtteranceMetric],
        corpus: Path,
        cache: Path,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        """`sentences` by set; `metrics` whose judges exist below `cache`; `every`: validations."""
        self.sentences = {name: list(utterances) for name, utterances in sentences.items()}
        self.metrics, self.corpus, self.cache = dict(metrics), corpus, cache
        self.every, self.seed = every, seed
        self.fresh = False
        """whether the validation that is under way has been listened to"""
        self.validations = self.times = 0
        self.seconds = 0.0

    @property
    def names(self) -> dict[str, UtteranceMetric]:
        """{logged name: its metric}"""
        return {f"valid/{where}/{name}": metric for where in self.sentences for name, metric in self.metrics.items()}

    def summary(self) -> dict[str, Any]:
        """For summary.json. Seconds are those of all attempts together."""
        what = {name: {"unit": m.unit, "better": m.better} for name, m in self.metrics.items()}
        spoken = {name: len(utterances) for name, utterances in self.sentences.items()}
        return {"metrics": what, "sentences": spoken, "times": self.times, "seconds_each": self.seconds / max(self.times, 1)}

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations, "times": self.times, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations, self.times, self.seconds = state_dict["validations"], state_dict["times"], state_dict["seconds"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            with untouched():  # a judge's weights are drawn before they are read
                for metric in self.metrics.values():
                    metric.open(self.corpus, self.cache)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self.validations += 1
        self.fresh = self.validations % self.every == 0
        if not self.fresh:
            return
        started = time.perf_counter()
        assert isinstance(pl_module, Learner)
        heard = self._heard(pl_module.backbone) if trainer.is_global_zero else {}
        values = trainer.strategy.broadcast(heard)
        pl_module.log_dict(values, rank_zero_only=False)
        self.times, self.seconds = self.times + 1, self.seconds + time.perf_counter() - started
        if trainer.is_global_zero:
            Bar.write(f"heard at step {trainer.global_step}: {self._told(values)}")
        if self.times == 1 and trainer.is_global_zero:
            count = sum(map(len, self.sentences.values()))
            Bar.write(f"listening to {count} sentences took {self.seconds:.1f} s; train_seconds leaves it out")

    def _told(self, values: Mapping[str, float]) -> str:
        """ "target per 45.7 %, speaker 83.2 cos x 100; source per ..." """
        each = {
            where: ", ".join(f"{name} {values[f'valid/{where}/{name}']:.4g} {m.unit}".rstrip() for name, m in self.metrics.items())
            for where in self.sentences
        }
        return "; ".join(f"{where} {said}" for where, said in each.items())

    def _heard(self, backbone: Backbone) -> dict[str, float]:
        values: dict[str, float] = {}
        modes = {module: module.training for module in backbone.modules()}
        with untouched():
            for where, utterances in self.sentences.items():
                clips = self._spoken(backbone, utterances, where)
                rate = backbone.sample_rate
                values |= {f"valid/{where}/{name}": mean(metric, utterances, clips, rate) for name, metric in self.metrics.items()}
        for module, mode in modes.items():
            module.training = mode
        return values

    def _spoken(self, backbone: Backbone, utterances: Sequence[Utterance], where: str) -> dict[str, Tensor]:
        """{utterance id: (samples,) at the backbone's own rate, which clipping must be looked for at}"""
        requests = [replace(backbone.frontend.request(u), seed=self.seed) for u in utterances]
        with Bar(total=len(requests), desc=f"listening to {where}", unit="utt", leave=False) as bar:
            waves = backbone.synthesize(requests, bar.update)
        return {u.id: wave.detach().float().cpu() for u, wave in zip(utterances, waves)}


def mean(metric: UtteranceMetric, utterances: Sequence[Utterance], clips: Mapping[str, Tensor], rate: int) -> float:
    """The metric's weighted mean over clips (by utterance id, at `rate`); NaN where it knows no value, or a clip is not finite.

    Not its `compute`, which under DDP would wait for the other ranks.
    """
    metric.reset()
    chosen = subset(utterances, metric.limit)
    if not all(clips[u.id].isfinite().all() for u in chosen):
        return float("nan")
    for utterance in chosen:
        metric.update(clips[utterance.id], rate, utterance)
    values, weights = torch.cat(list(metric.values)), torch.cat(list(metric.weights))
    known = values.isfinite() & (weights > 0)
    return float((values * weights)[known].sum() / weights[known].sum())
