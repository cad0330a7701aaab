"""Low-rank adaptation (Hu et al. 2021), through peft."""

from collections.abc import Iterable
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save
from torch import nn

from ttsadapt.adapters import match
from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError
from ttsadapt.files import replacing
from ttsadapt.strategies.base import Strategy, Study

ADAPTER = "default"


class LoRA(Strategy):
    """LoRA on the layers that the backbone calls adaptable, or on those of them that match `layers`."""

    def __init__(
        self,
        rank: int = 16,
        alpha: float = 32.0,
        dropout: float = 0.0,
        rslora: bool = False,
        dora: bool = False,
        layers: list[str] | None = None,
        lr: float | None = None,
    ) -> None:
        super().__init__()
        self.rank, self.alpha, self.dropout, self.rslora, self.dora = rank, alpha, dropout, rslora, dora
        self.layers, self.lr = layers, lr
        self._seed = 0
        self._names: list[str] = []

    def study(self, study: Study) -> None:
        self._seed = int(torch.randint(2**31, (1,), generator=study.generator))

    def attach(self, backbone: Backbone) -> None:
        root = backbone.peft_root
        self._names = self._relative(backbone, root)
        config = LoraConfig(
            r=self.rank, lora_dropout=self.dropout, use_rslora=self.rslora, use_dora=self.dora,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft divides it by the rank: it need not be whole
            target_modules=self._names, bias="none",
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):  # its own draw of A, whatever else was drawn before
            torch.manual_seed(self._seed)
            inject_adapter_in_model(config, root, adapter_name=ADAPTER)
        got = sorted(n for n, m in root.named_modules() if isinstance(m, LoraLayer))
        if got != sorted(self._names):
            raise ConfigError(f"strategy.lora.layers: peft adapted {got[:3]} ... where {self._names[:3]} ... was asked for")

    def _relative(self, backbone: Backbone, root: nn.Module) -> list[str]:
        """Names of the layers to adapt, relative to the module that peft sees."""
        prefix = next(f"{n}." if n else "" for n, m in backbone.named_modules() if m is root)
        names = match(backbone, backbone.adaptable)
        if self.layers is not None:
            chosen = set(match(backbone, tuple(self.layers)))
            names = [n for n in names if n in chosen]
        inner = [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
        if not inner:
            raise ConfigError(f"strategy.lora.layers={self.layers}: none of the adaptable layers {list(backbone.adaptable)} matches")
        return inner

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
        config = LoraConfig(
            r=self.rank, lora_dropout=self.dropout, use_rslora=self.rslora, use_dora=self.dora,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft divides it by the rank: it need not be whole
            target_modules=self._names, bias="none", inference_mode=True,
        )  # fmt: skip
        config.save_pretrained(str(place))
