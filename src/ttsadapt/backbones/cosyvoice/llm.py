"""The language models of CosyVoice 2 and 3: a Qwen2 that reads text and speech tokens in one row and predicts speech tokens."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2Config, Qwen2Model

from ttsadapt.backbones.cosyvoice.layout import CONTROL, SPEECH, TEXT, Layout, Layout2, Layout3
from ttsadapt.backbones.cosyvoice.speech_lm import Decoding, SpeechLM, looked_up, placed
from ttsadapt.backbones.official import Layout as Places
from ttsadapt.backbones.official import OfficialFile, Place, build, count_blocks
from ttsadapt.errors import CheckpointError

SIGNATURES = {
    Layout2.family: ("llm_embedding.weight", "llm.model.model.layers.*"),
    Layout3.family: ("llm.model.model.layers.*", "speech_embedding.weight", "llm_decoder.weight", "!llm_embedding.weight"),
}
INNER = "llm.model.model."
TIED = {"llm.model.lm_head.weight": f"{INNER}embed_tokens.weight"}
"""the authors keep the text's output layer, which speech has no use for"""


def _places(family: str) -> Places:
    return Places(family, lambda name: Place(INNER + name.removeprefix("qwen.") if name.startswith("qwen.") else name), tied=TIED)


class QwenLM(SpeechLM):
    """Only the inner `Qwen2Model` runs: logits of text are never computed."""

    adaptable: ClassVar[tuple[str, ...]] = (
        *(f"qwen.layers.*.self_attn.{name}_proj" for name in "qkvo"),
        *(f"qwen.layers.*.mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
    feeds: ClassVar[tuple[str, ...]] = ("qwen.layers.*.mlp",)
    places: ClassVar[dict[str, Places]] = {family: _places(family) for family in SIGNATURES}

    def __init__(
        self,
        layout: Layout,
        text_rows: int = 151936,
        speaker_size: int = 0,
        hidden_size: int = 896,
        intermediate_size: int = 4864,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 14,
        num_key_value_heads: int = 2,
        rope_theta: float = 1e6,
        rms_norm_eps: float = 1e-6,
        decoder_bias: bool = True,
        smoothing: float = 0.0,
    ) -> None:
        """Sizes are named as in transformers' Qwen2Config and default to Qwen2.5-0.5B. `speaker_size` plays no part here.

        `decoder_bias`: of the output layer (CosyVoice 2 has one, 3 has none). `smoothing`: of labels in the loss.
        """
        super().__init__()
        self.layout, self.smoothing = layout, smoothing
        self.qwen = Qwen2Model(
            Qwen2Config(
                vocab_size=text_rows,
                hidden_size=hidden_size,
                intermediate_size=intermediate_size,
                num_hidden_layers=num_hidden_layers,
                num_attention_heads=num_attention_heads,
                num_key_value_heads=num_key_value_heads,
                rms_norm_eps=rms_norm_eps,
                rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
                attn_implementation="sdpa",  # type: ignore[call-arg]
                pad_token_id=None,
            )
        )
        self.llm_embedding = nn.Embedding(layout.controls, hidden_size) if layout.controls else None
        self.speech_embedding = nn.Embedding(layout.embedded, hidden_size)
        self.llm_decoder = nn.Linear(hidden_size, layout.predicted, bias=decoder_bias)

    @classmethod
    def of_file(cls, file: OfficialFile, layout: type[Layout], settings: dict[str, Any] | None = None) -> Self:
        """An empty model of the sizes in the file. `settings`: what shapes do not say, see `released_settings`."""
        shapes, head = file.shapes, (settings := dict(settings or {})).pop("head_size", 64)
        try:
            rows, width = shapes[f"{INNER}embed_tokens.weight"]
            first = f"{INNER}layers.0."
            sizes = {
                "text_rows": rows,
                "hidden_size": width,
                "intermediate_size": shapes[f"{first}mlp.up_proj.weight"][0],
                "num_hidden_layers": count_blocks(shapes, r"llm\.model\.model\.layers\.(\d+)\."),
                "num_attention_heads": shapes[f"{first}self_attn.q_proj.weight"][0] // head,
                "num_key_value_heads": shapes[f"{first}self_attn.k_proj.weight"][0] // head,
                "decoder_bias": "llm_decoder.bias" in shapes,
            }
            speech = layout.of_rows(shapes["speech_embedding.weight"][0])
        except KeyError as error:
            raise CheckpointError(f"{file.path} is not a whole {layout.family}: {error.args[0]} is missing") from error
        return build(lambda: cls(speech, **sizes, **settings))

    @property
    def text_rows(self) -> int:
        return self.qwen.config.vocab_size

    @property
    def blocks(self) -> dict[str, nn.Module]:
        return {str(i): layer for i, layer in enumerate(self.qwen.layers)}

    @property
    def inner(self) -> nn.Module:
        return self.qwen

    def embed(self, kinds: Tensor, ids: Tensor, text: Tensor, speaker: Tensor) -> Tensor:
        vectors = [
            (TEXT, looked_up(kinds, ids, TEXT, self.qwen.embed_tokens)),
            (SPEECH, looked_up(kinds, ids, SPEECH, self.speech_embedding)),
        ]
        if self.llm_embedding is not None:
            vectors.append((CONTROL, looked_up(kinds, ids, CONTROL, self.llm_embedding)))
        return placed(kinds, *vectors)

    def embed_speech(self, tokens: Tensor) -> Tensor:
        return self.speech_embedding(tokens)

    def states(self, embedded: Tensor, positions: Tensor | None = None) -> Tensor:
        # Padding stands on the right and attention is causal: no mask is needed, and without one the fast kernel runs. Positions that
        # start again would be taken for packed sequences then; a mask of four dimensions is taken as it is.
        if positions is None:
            return self.qwen(inputs_embeds=embedded, use_cache=False).last_hidden_state
        length = embedded.shape[1]
        mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=embedded.device).tril()
        return self.qwen(inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state

    def prefill(self, rows: Sequence[Tensor], positions: Sequence[Tensor]) -> "tuple[Tensor, QwenDecoding]":
        """Slots between a prompt and its first speech token stay empty and masked."""
        embedded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        lengths = torch.tensor([len(r) for r in rows], device=embedded.device)
        mask = torch.arange(embedded.shape[1], device=embedded.device) < lengths[:, None]
        cache = DynamicCache(config=self.qwen.config)
        numbered = nn.utils.rnn.pad_sequence(list(positions), batch_first=True)
        output = self.qwen(inputs_embeds=embedded, attention_mask=mask, position_ids=numbered, past_key_values=cache, use_cache=True)
        last = torch.arange(len(rows), device=embedded.device), lengths - 1
        return output.last_hidden_state[last], QwenDecoding(self.qwen, cache, mask, numbered[last] + 1)


class QwenDecoding(Decoding):
    """`mask` (B, S): which slots of the cache are filled; `position` (B,) of the next token."""

    def __init__(self, qwen: Qwen2Model, cache: DynamicCache, mask: Tensor, position: Tensor) -> None:
        self.qwen, self.cache, self.mask, self.position = qwen, cache, mask, position

    def step(self, embedded: Tensor) -> Tensor:
        self.mask = F.pad(self.mask, (0, 1), value=True)
        output = self.qwen(
            inputs_embeds=embedded[:, None],
            attention_mask=self.mask,  # of the whole length: a shorter one is taken for another layout of the cache
            position_ids=self.position[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.position = self.position + 1
        return output.last_hidden_state[:, 0]

    def select(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]


def released_settings(folder: Path, head_size: int = 64) -> dict[str, Any]:
    """What no shape says of a Qwen2, from the `config.json` of the Qwen directory beside the weights where there is one."""
    config = folder / "CosyVoice-BlankEN" / "config.json"
    if not config.is_file():
        return {"head_size": head_size}
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        size = values["hidden_size"] // values["num_attention_heads"]
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{config} is not a Qwen2 configuration ({error}): copy it from the release again") from error
    return {"head_size": size, "rope_theta": values.get("rope_theta", 1e6), "rms_norm_eps": values.get("rms_norm_eps", 1e-6)}
