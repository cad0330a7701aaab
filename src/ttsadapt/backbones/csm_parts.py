"""CSM's inner model: transformers' classes without the codec, its config, its place in a released file, its first tables of codes."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import CsmConfig, CsmForConditionalGeneration, CsmPreTrainedModel
from transformers.models.csm.modeling_csm import CsmBackboneModel, CsmDepthDecoderForCausalLM

from ttsadapt.backbones.csm_frontend import CsmFrontend
from ttsadapt.backbones.frames import codeword_table
from ttsadapt.backbones.official import Layout, Place
from ttsadapt.errors import ConfigError

SIGNATURES = {"CSM": ("backbone_model.layers.*", "depth_decoder.codebooks_head.weight")}
SPARE = 3
"""ids of a codebook that the codec does not have; the last of them pads"""
EMBEDDINGS = ("backbone_model.embed_tokens.embed_audio_tokens.weight", "depth_decoder.model.embed_tokens.weight")
"""one weight under two names"""


class Llamas(CsmForConditionalGeneration):
    """transformers' model without the codec inside."""

    def __init__(self, config: CsmConfig) -> None:
        CsmPreTrainedModel.__init__(self, config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.embed_text_tokens = nn.Embedding(config.text_vocab_size, config.hidden_size)
        self.backbone_model = CsmBackboneModel._from_config(config)
        self.depth_decoder = CsmDepthDecoderForCausalLM._from_config(config.depth_decoder_config)
        self.post_init()


def layout(names: Iterable[str]) -> Layout:
    """Their names are ours, but for the shared embedding, which most files hold once, under either name."""
    there = [n for n in EMBEDDINGS if n in set(names)] or [EMBEDDINGS[0]]
    tied = {there[1]: there[0]} if len(there) == 2 else {}
    return Layout("CSM", lambda name: Place(there[0] if name in EMBEDDINGS else name), tied, optional=("codec_model.*",))


def new_config(frontend: CsmFrontend, depth: dict[str, Any], rope_theta: float, **sizes: Any) -> CsmConfig:
    codec = frontend.codec
    vocabulary = codec.codewords + SPARE
    rope = {"rope_type": "default", "rope_theta": rope_theta}
    shared: dict[str, Any] = {"num_codebooks": codec.levels, "vocab_size": vocabulary}
    return CsmConfig(
        **shared,
        **sizes,
        text_vocab_size=frontend.text.size,
        max_position_embeddings=frontend.max_tokens,
        codebook_pad_token_id=vocabulary - 1,
        pad_token_id=0, bos_token_id=0, audio_token_id=0, audio_eos_token_id=0,  # for transformers' processor, which is not used
        rope_parameters=rope,
        depth_decoder_config={
            **shared,
            **depth, "backbone_hidden_size": sizes["hidden_size"], "rope_parameters": dict(rope),
            "max_position_embeddings": codec.levels + 1,
        },
    )  # fmt: skip


def check_fits(config: CsmConfig, frontend: CsmFrontend) -> None:
    """ConfigError when the model's codes or text are not those that the frontend makes."""
    codec = frontend.codec
    pairs = {
        "levels (backbone.frontend.codec.levels)": (config.num_codebooks, codec.levels),
        "codewords": (config.vocab_size - SPARE, codec.codewords),
    }
    for what, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise ConfigError(f"the model has {ours} {what}, the codec has {theirs}: give the codec that the model was trained with")
    if codec.levels < 2:
        raise ConfigError("CSM needs a codec of at least two levels: the first is the backbone's, the others the depth decoder's")
    if frontend.text.size > config.text_vocab_size:
        raise ConfigError(
            f"the tokenizer has {frontend.text.size} tokens, the model {config.text_vocab_size}: give the model's own tokenizer"
        )
    if frontend.max_tokens > config.max_position_embeddings:
        raise ConfigError(f"backbone.frontend.max_tokens={frontend.max_tokens}: the model knows {config.max_position_embeddings} positions")


INPUT_STD, OUTPUT_STD = 0.2, 0.04
"""of a weight; the input's is about what attention adds to the residual stream, the output's keeps the first loss near uniform"""


@torch.no_grad()
def embed_codewords(lm: Llamas, frontend: CsmFrontend) -> None:
    """Draw the tables of codes in which codewords lie as the codec has them."""
    codec, config = frontend.codec, lm.config
    rows = slice(frontend.shift, frontend.shift + codec.codewords)
    wide = codeword_table(codec.embedding(), codec.levels, config.hidden_size)
    deep = codeword_table(codec.embedding(), codec.levels, lm.depth_decoder.config.hidden_size)
    lm.embed_text_tokens.weight.normal_(std=INPUT_STD)
    inputs = lm.backbone_model.embed_tokens.embed_audio_tokens.weight
    inputs.normal_(std=INPUT_STD / codec.levels**0.5)
    inputs.unflatten(0, (codec.levels, -1))[:, rows] = INPUT_STD / codec.levels**0.5 * wide
    lm.lm_head.weight[rows] = OUTPUT_STD * (wide[0] + 0.25 * torch.randn_like(wide[0]))
    lm.depth_decoder.codebooks_head.weight[:, :, rows] = OUTPUT_STD * (deep[1:] + 0.25 * torch.randn_like(deep[1:])).mT
