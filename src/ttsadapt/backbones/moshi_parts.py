"""Moshi's inner model: transformers' classes without the codec, its config, and one utterance while it is said."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import MoshiConfig, MoshiForConditionalGeneration
from transformers.models.moshi.modeling_moshi import MoshiDepthDecoder, MoshiFlexibleLinear, MoshiForCausalLM, MoshiPreTrainedModel

from ttsadapt.backbones.base import Request
from ttsadapt.backbones.frames import codeword_table
from ttsadapt.backbones.moshi_frontend import MoshiFrontend
from ttsadapt.backbones.official import Layout, Place
from ttsadapt.errors import ConfigError

SIGNATURES = {"Moshi": ("decoder.model.layers.*", "depth_decoder.lm_heads.weight")}
LAYOUT = Layout("Moshi", Place, optional=("audio_encoder.*",))


class PerLevelLinear(MoshiFlexibleLinear):
    """One product a level. transformers' own copies the weights of all levels for every frame: nine tenths of a training step."""

    def forward(self, x: Tensor, layer_idx: Tensor | None = None) -> Tensor:
        """(F, N or 1, D) -> (F, N, O), by the weights of the N levels of `layer_idx`"""
        weight = self.weight if layer_idx is None else self.weight.index_select(0, layer_idx)  # (N, O, D)
        return torch.bmm(x.expand(-1, len(weight), -1).transpose(0, 1), weight.mT).transpose(0, 1)


class Streams(MoshiForConditionalGeneration):
    """transformers' model without the codec inside."""

    embed_tokens: nn.ModuleList

    def __init__(self, config: MoshiConfig) -> None:
        MoshiPreTrainedModel.__init__(self, config)
        rows = (config.audio_vocab_size or 0) + 1  # the last one stands for no audio
        self.embed_tokens = nn.ModuleList(nn.Embedding(rows, config.hidden_size) for _ in range(2 * config.num_codebooks))
        self.decoder = MoshiForCausalLM(config)
        self.depth_decoder = MoshiDepthDecoder._from_config(config.depth_decoder_config)
        self.num_codebooks = config.num_codebooks
        self.post_init()
        for module in self.depth_decoder.modules():
            if isinstance(module, MoshiFlexibleLinear):
                module.__class__ = PerLevelLinear


class Speaker:
    """One utterance while it is generated: what is still to be said, and the steps so far."""

    def __init__(self, frontend: MoshiFrontend, request: Request, taken: int) -> None:
        self.frontend, self.waiting = frontend, frontend.queue(request)
        room = frontend.max_tokens - taken - frontend.lead - 1
        slow = int(1.5 * frontend.pace[2] * len(request.phones)) + 2
        self.most = max(min(slow, room), len(self.waiting))
        """steps until the end of the text is said whatever the model wants"""
        self.end: int | None = None
        """the step at which it was"""
        self.steps: list[Tensor] = []

    def say(self, padding_is_due: bool) -> int:
        """The text of the next step: padding while the model wants it, and room is left for the rest."""
        step, padding = len(self.steps), self.frontend.text.padding
        if not self.waiting or (padding_is_due and step + len(self.waiting) < self.most) or (step == 0 and len(self.waiting) == 1):
            return padding
        said = self.waiting.pop(0)
        if not self.waiting:
            self.end = step
        return said

    def audible(self) -> tuple[bool, bool]:
        """Whether the step that is being said has a semantic code, and whether it has acoustic ones."""
        frame = len(self.steps) - self.frontend.lead
        last = float("inf") if self.end is None else self.end
        return 0 <= frame < last, 1 <= frame <= last

    @property
    def done(self) -> bool:
        return self.end is not None and len(self.steps) > self.end + self.frontend.lead

    def frames(self) -> Tensor:
        """(frames, K): semantic and acoustic codes of a frame side by side again."""
        steps = torch.stack(self.steps).cpu().clone()[self.frontend.lead :]
        return torch.cat([steps[:-1, :1], steps[1:, 1:]], 1)


def new_config(frontend: MoshiFrontend, depth: dict[str, Any], rope_theta: float, **sizes: Any) -> MoshiConfig:
    codec = frontend.codec
    return MoshiConfig(
        **sizes,
        vocab_size=frontend.text.size,
        num_codebooks=codec.levels,
        audio_vocab_size=codec.codewords,
        max_position_embeddings=frontend.max_tokens,
        sliding_window=frontend.max_tokens,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        audio_encoder_config={"model_type": "mimi", "num_quantizers": max(codec.levels, 2), "codebook_size": codec.codewords},
        depth_decoder_config={**depth, "max_position_embeddings": codec.levels + 1, "sliding_window": codec.levels},
    )


def check_fits(config: MoshiConfig, frontend: MoshiFrontend) -> None:
    """ConfigError when the model's codes or text are not those that the frontend makes."""
    codec = frontend.codec
    pairs = {"levels": (config.num_codebooks, codec.levels), "codewords": (config.audio_vocab_size, codec.codewords)}
    for what, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise ConfigError(
                f"the model has {ours} {what}, backbone.frontend.codec has {theirs}: give the codec that the model was trained with"
            )
    if codec.levels < 2:
        raise ConfigError("Moshi needs a codec of at least two levels: a semantic one and what comes a step later")
    if frontend.text.size > config.vocab_size:
        raise ConfigError(f"the tokenizer has {frontend.text.size} tokens, the model {config.vocab_size}: give the model's own tokenizer")
    if frontend.max_tokens > config.max_position_embeddings:
        raise ConfigError(f"backbone.frontend.max_tokens={frontend.max_tokens}: the model knows {config.max_position_embeddings} positions")


@torch.no_grad()
def draw(lm: Streams) -> None:
    """New weights of the depth decoder at the size that keeps activations: transformers draws them with a deviation of 1."""
    for module in lm.depth_decoder.modules():
        if isinstance(module, MoshiFlexibleLinear):
            nn.init.normal_(module.weight, std=module.weight.shape[-1] ** -0.5)
    nn.init.normal_(lm.depth_decoder.lm_heads.weight, std=lm.config.initializer_range)


INPUT_STD, OUTPUT_STD = 0.2, 0.04
"""of a weight; the input's is about what attention adds to the residual stream, the output's keeps the first loss near uniform"""


@torch.no_grad()
def embed_codewords(lm: Streams, frontend: MoshiFrontend) -> None:
    """Draw the tables of codes in which codewords lie as the codec has them."""
    codec, depth = frontend.codec, lm.depth_decoder
    wide = codeword_table(codec.embedding(), codec.levels, lm.config.hidden_size)
    deep = codeword_table(codec.embedding(), codec.levels, depth.config.hidden_size)
    for table in (lm.decoder.model.embed_tokens, depth.text_embed_tokens, *lm.embed_tokens, *depth.embed_tokens):
        nn.init.normal_(table.weight, std=INPUT_STD)
    for table, codewords in zip(lm.embed_tokens, wide):
        table.get_parameter("weight")[: codec.codewords] = INPUT_STD / codec.levels**0.5 * codewords
    for head, codewords in zip(depth.lm_heads.weight, deep):
        head.copy_(OUTPUT_STD * (codewords + 0.25 * torch.randn_like(codewords)))
    for table, codewords in zip(depth.embed_tokens, deep):
        table.get_parameter("weight")[: codec.codewords] = INPUT_STD * codewords
