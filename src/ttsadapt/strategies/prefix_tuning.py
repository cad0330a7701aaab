"""Prefix tuning (Li & Liang 2021) through peft: keys and values that every block attends to before the first position."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from peft import PrefixTuningConfig
from peft.tuners.prefix_tuning import PrefixEncoder
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from ttsadapt.adapters import Follower
from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Strategy, Study

SMALL = 0.02
"""standard deviation of the keys at first; values start at zero"""


class Prefix(Follower):
    """Stands before a transformers decoder and fills the cache that it is called with, when that is empty.

    Positions count as they did: the first one after the prefix is 0, in training and in decoding alike.
    """

    def __init__(self, decoder: PreTrainedModel, prefixes: int, tokens: int, hidden: int | None) -> None:
        super().__init__()
        config = decoder.config
        self.layers, self.tokens = config.num_hidden_layers, tokens
        self.heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.encoder = PrefixEncoder(PrefixTuningConfig(
            num_virtual_tokens=prefixes * tokens, token_dim=self.heads * self.size, num_layers=self.layers,
            encoder_hidden_size=hidden or 0, prefix_projection=hidden is not None, init_weights="zero",
        ))  # fmt: skip
        if hidden is None:
            with torch.no_grad():
                table = self.encoder.embedding.weight.view(prefixes * tokens, self.layers, 2, -1)
                table[:, :, 0].normal_(std=SMALL)  # all alike, the prefix would stay one and the same token
        self._index = torch.zeros(1, dtype=torch.long)

    def __getstate__(self) -> dict[str, Any]:
        """A pass's voices are nobody's after it."""
        return self.__dict__ | {"_index": torch.zeros(1, dtype=torch.long)}

    def told(self, index: Tensor) -> None:
        """(B,) which prefix each row has, or (1,) of whatever rows there will be."""
        self._index = index

    def hang(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, decoder: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if self.off:
            return None
        assert isinstance(decoder, PreTrainedModel)
        if decoder.is_gradient_checkpointing and decoder.training:
            raise ConfigError("strategy.prefix_tuning: no keys are kept under trainer.gradient_checkpointing: switch one of them off")
        embedded, cache = named["inputs_embeds"], named.get("past_key_values")
        cache = DynamicCache(config=decoder.config) if cache is None else cache
        past = cache.get_seq_length()
        if past == 0:
            self._fill(cache, len(embedded))
        mask, place = named.get("attention_mask"), named.get("position_ids")
        if mask is not None:
            mask = F.pad(mask, (self.tokens, 0), value=True if mask.dtype == torch.bool else float(mask.dim() == 2))
        if place is None:
            first = max(past - self.tokens, 0)
            place = torch.arange(first, first + embedded.shape[1], device=embedded.device)[None]
        return given, named | {"past_key_values": cache, "attention_mask": mask, "position_ids": place}

    def _fill(self, cache: DynamicCache, rows: int) -> None:
        index = self._index.to(next(self.encoder.parameters()).device)
        tokens = index[:, None] * self.tokens + torch.arange(self.tokens, device=index.device)
        made = self.encoder(tokens).unflatten(-1, (self.layers, 2, self.heads, self.size))  # (B or 1, P, layers, 2, heads, size)
        made = made.permute(2, 3, 0, 4, 1, 5).expand(-1, -1, rows, -1, -1, -1)
        for layer, (key, value) in enumerate(made):
            cache.update(key, value, layer)


class PrefixTuning(Strategy):
    """`tokens` keys and values before the first position of every block of the decoder, for all alike or for each speaker.

    `hidden`: width of the perceptron that makes them in training (the paper's reparametrisation); None: they are learnt as they are.
    With `each_speaker` the speakers of the learnt data have a prefix each and all others share one more.
    """

    def __init__(self, tokens: int = 16, hidden: int | None = None, each_speaker: bool = False, lr: float | None = None) -> None:
        super().__init__()
        if tokens < 1:
            raise ConfigError(f"strategy.prefix_tuning.tokens={tokens}: choose 1 or more")
        self.tokens, self.hidden, self.each_speaker, self.lr = tokens, hidden, each_speaker, lr
        self.speakers: list[str] = []
        self._seed = 0

    def study(self, study: Study) -> None:
        self._seed = int(torch.randint(2**31, (1,), generator=study.generator))
        if self.each_speaker:
            self.speakers = sorted({study.target.utterances[i].speaker for i in study.target.ids})

    def attach(self, backbone: Backbone) -> None:
        decoder = _decoder(backbone)
        with torch.random.fork_rng(devices=[]), next(backbone.parameters()).device:
            torch.manual_seed(self._seed)
            self.prefix = Prefix(decoder, 1 + len(self.speakers), self.tokens, self.hidden)
        self.prefix.hang(decoder)

    def condition(self, batch: Batch) -> None:
        if not self.speakers:
            return
        index: Tensor = batch["voice_index"]
        own = {name: 1 + i for i, name in enumerate(self.speakers)}
        known = torch.tensor([own.get(batch["voices"][i], 0) for i in batch["voice_first"]], device=index.device)
        self.prefix.told(known[index] if len(known) > 1 else known)

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        return self.parameters()


def _decoder(backbone: Backbone) -> PreTrainedModel:
    """The innermost transformers model around the blocks of a group."""
    for blocks in reversed(backbone.blocks.values()):
        block = next(iter(blocks.values()))
        around = [m for m in backbone.modules() if isinstance(m, PreTrainedModel) and any(inner is block for inner in m.modules())]
        if around:
            return around[-1]
    raise ConfigError(
        f"strategy.prefix_tuning: {type(backbone).__name__} has no transformers decoder, whose cache could be filled: "
        "use adapter, lora or voice_added"
    )
