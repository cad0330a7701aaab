"""Low-rank adaptation (Hu et al. 2021), through peft."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save
from torch import nn

from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError
from ttsadapt.files import replacing
from ttsadapt.strategies.base import Strategy, Study
from ttsadapt.where.base import Where
from ttsadapt.where.inside import layers as layers_inside

ADAPTER = "default"
INITS = ("gaussian", "orthogonal", "olora", "pissa")
"""those of peft's that leave the model's predictions as they are, need no data, and are the same again when the adapter is read back"""


class LoRA(Strategy):
    """LoRA on the layers that the backbone calls adaptable: all of them, those in the blocks of `where`, those that match `layers`."""

    keeps_weights = True

    def __init__(
        self,
        rank: int = 16,
        alpha: float = 32.0,
        dropout: float = 0.0,
        rslora: bool = False,
        dora: bool = False,
        rank_pattern: dict[str, int] | None = None,
        alpha_pattern: dict[str, float] | None = None,
        init: bool | str = True,
        layers: list[str] | None = None,
        where: Where | None = None,
        lr: float | None = None,
    ) -> None:
        """`rank_pattern`, `alpha_pattern`: {glob over layer names: rank or alpha of those layers}; the first glob that matches counts.

        `init` of A and B. PiSSA and OLoRA move a part of every weight into its adapter: with adapters off the model is no longer the
        base (`adapters.keeps_base`), and they, as "orthogonal", are for linear layers only.
        """
        super().__init__()
        if init is not True and init not in INITS:
            raise ConfigError(
                f"strategy.lora.init={init}: give true, {', '.join(INITS)}; peft's others need data beforehand, change what the model "
                "says before it is trained, or cannot be merged or read back"
            )
        self.rank, self.alpha, self.dropout, self.rslora, self.dora = rank, alpha, dropout, rslora, dora
        self.ranks, self.alphas, self.init = dict(rank_pattern or {}), dict(alpha_pattern or {}), init
        self.layers, self.where, self.lr = layers, where, lr
        self._seed = 0
        self._adapted: list[str] = []
        self._config: dict[str, Any] = {}

    def study(self, study: Study) -> None:
        self._seed = int(torch.randint(2**31, (1,), generator=study.generator))
        if self.where is not None:
            self.where.study(study)
        blocks = None if self.where is None else self.where.blocks(study.backbone)
        try:
            self._adapted = layers_inside(study.backbone, blocks, self.layers)
        except ConfigError as error:
            raise ConfigError(f"strategy.lora: {error}") from error
        self._check_init(study.backbone)

    def _check_init(self, backbone: Backbone) -> None:
        if self.init in (True, "gaussian"):
            return
        ranks = self._picked(self._adapted, self.ranks, "rank_pattern")
        for name in self._adapted:
            layer, rank = backbone.get_submodule(name), ranks.get(name, self.rank)
            if not isinstance(layer, nn.Linear):
                raise ConfigError(
                    f"strategy.lora.init={self.init} is for linear layers, and {name} is none: choose others in strategy.lora.layers"
                )
            most = min(layer.weight.shape)
            if (rank > most and self.init != "orthogonal") or (rank % 2 and self.init == "orthogonal"):
                wanted = "an even rank" if self.init == "orthogonal" else f"a rank of at most {most}"
                raise ConfigError(f"strategy.lora.rank={rank}: init={self.init} takes {wanted} for {name}")

    def attach(self, backbone: Backbone) -> None:
        root = backbone.peft_root
        self._config = self._configured(backbone, root)
        with torch.random.fork_rng(devices=[]):  # its own draw of A, whatever else was drawn before
            torch.manual_seed(self._seed)
            inject_adapter_in_model(LoraConfig(**self._config), root, adapter_name=ADAPTER)
        got, wanted = sorted(n for n, m in root.named_modules() if isinstance(m, LoraLayer)), sorted(self._config["target_modules"])
        if got != wanted:
            raise ConfigError(f"strategy.lora.layers: peft adapted {got[:3]} ... where {wanted[:3]} ... was asked for")

    def _configured(self, backbone: Backbone, root: nn.Module) -> dict[str, Any]:
        """peft's own config; names of layers are relative to the module that peft sees."""
        prefix = next(f"{n}." if n else "" for n, m in backbone.named_modules() if m is root)
        names = [n.removeprefix(prefix) for n in self._adapted if n.startswith(prefix)]
        if not names:
            raise ConfigError(f"strategy.lora: {self._adapted[0]} lies outside of {prefix[:-1]}, which adapters are saved against")
        ranks, alphas = (
            {f"^{re.escape(n.removeprefix(prefix))}": v for n, v in self._picked(self._adapted, pattern, key).items()}
            for pattern, key in ((self.ranks, "rank_pattern"), (self.alphas, "alpha_pattern"))
        )
        return {
            "r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout, "use_rslora": self.rslora, "use_dora": self.dora,
            "rank_pattern": ranks, "alpha_pattern": alphas, "init_lora_weights": self.init, "target_modules": names, "bias": "none",
        }  # fmt: skip

    @staticmethod
    def _picked(names: Iterable[str], pattern: Mapping[str, Any], key: str) -> dict[str, Any]:
        """{layer: value of the first glob that matches it}; ConfigError for a glob that matches no adapted layer."""
        names = list(names)
        idle = [glob for glob in pattern if not any(fnmatchcase(name, glob) for name in names)]
        if idle:
            raise ConfigError(f"strategy.lora.{key}: {idle[0]!r} matches none of the {len(names)} adapted layers, such as {names[0]}")
        found = {name: next((v for glob, v in pattern.items() if fnmatchcase(name, glob)), None) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        return [p for n, p in backbone.named_parameters() if ".lora_" in n]

    def save(self, backbone: Backbone, folder: Path) -> None:
        """`adapter/` as `PeftModel.from_pretrained(base.peft_root, ...)` reads it.

        A wrong key would only warn there and leave a random adapter, so the keys are built from the names that were injected.
        """
        root = backbone.peft_root
        weights = {
            f"base_model.model.{name.replace(f'.{ADAPTER}', '')}": p.detach().cpu().contiguous()
            for name, p in root.named_parameters()
            if ".lora_" in name
        }
        place = folder / "adapter"
        place.mkdir(parents=True, exist_ok=True)
        with replacing(place / "adapter_model.safetensors") as temporary:
            temporary.write_bytes(save(weights, metadata={"format": "pt"}))
        LoraConfig(**self._config, inference_mode=True).save_pretrained(str(place))
        if self.where is not None:
            self.where.save(folder)
