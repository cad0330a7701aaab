"""The language model of CosyVoice 1: encoded text, a voice and speech tokens through Transformer blocks with relative positions."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.cosyvoice.conformer import ConformerEncoder, RelativeCache, causal_mask
from ttsadapt.backbones.cosyvoice.layout import CONTROL, SPEECH, TEXT, VOICE, Layout, Layout1
from ttsadapt.backbones.cosyvoice.speech_lm import Decoding, SpeechLM, looked_up, placed
from ttsadapt.backbones.official import Layout as Places
from ttsadapt.backbones.official import OfficialFile, Place, build, count_blocks
from ttsadapt.errors import CheckpointError

SIGNATURES = {Layout1.family: ("text_encoder.encoders.*", "text_embedding.weight", "llm.encoders.*", "speech_embedding.weight")}


class TransformerLM(SpeechLM):
    """Names are the authors' own. Both the text encoder and the language model are causal."""

    adaptable: ClassVar[tuple[str, ...]] = (
        *(f"*encoders.*.self_attn.linear_{name}" for name in ("q", "k", "v", "out")),
        "*encoders.*.feed_forward.w_*",
    )
    feeds: ClassVar[tuple[str, ...]] = ("llm.encoders.*.feed_forward",)
    places: ClassVar[dict[str, Places]] = {Layout1.family: Places(Layout1.family, Place)}

    def __init__(
        self,
        layout: Layout,
        text_rows: int = 51866,
        speaker_size: int = 192,
        text_width: int = 512,
        encoder_width: int = 1024,
        encoder_heads: int = 16,
        encoder_hidden: int = 4096,
        encoder_blocks: int = 6,
        width: int = 1024,
        heads: int = 16,
        hidden: int = 4096,
        blocks: int = 14,
        dropout: float = 0.1,
        smoothing: float = 0.0,
    ) -> None:
        """`encoder_*`: of the text encoder. Defaults are CosyVoice-300M's."""
        super().__init__()
        self.layout, self.smoothing = layout, smoothing
        self.text_embedding = nn.Embedding(text_rows, text_width)
        self.text_encoder = ConformerEncoder(
            text_width, encoder_width, encoder_heads, encoder_hidden, encoder_blocks, dropout, attention_dropout=0.0
        )
        self.text_encoder_affine_layer = nn.Linear(encoder_width, width)
        self.llm_embedding = nn.Embedding(layout.controls, width)
        self.llm = ConformerEncoder(width, width, heads, hidden, blocks, dropout, attention_dropout=0.0, legacy=True)
        self.llm_decoder = nn.Linear(width, layout.predicted)
        self.speech_embedding = nn.Embedding(layout.embedded, width)
        self.spk_embed_affine_layer = nn.Linear(speaker_size, width)

    @classmethod
    def of_file(cls, file: OfficialFile, layout: type[Layout], settings: dict[str, Any] | None = None) -> Self:
        """An empty model of the sizes in the file."""
        shapes = file.shapes
        try:
            encoder_heads = shapes["text_encoder.encoders.0.self_attn.pos_bias_u"][0]
            sizes = {
                "text_rows": shapes["text_embedding.weight"][0],
                "text_width": shapes["text_embedding.weight"][1],
                "encoder_width": shapes["text_encoder.after_norm.weight"][0],
                "encoder_heads": encoder_heads,
                "encoder_hidden": shapes["text_encoder.encoders.0.feed_forward.w_1.weight"][0],
                "encoder_blocks": count_blocks(shapes, r"text_encoder\.encoders\.(\d+)\."),
                "width": shapes["llm.after_norm.weight"][0],
                "heads": shapes["llm.encoders.0.self_attn.pos_bias_u"][0],
                "hidden": shapes["llm.encoders.0.feed_forward.w_1.weight"][0],
                "blocks": count_blocks(shapes, r"llm\.encoders\.(\d+)\."),
                "speaker_size": shapes["spk_embed_affine_layer.weight"][1],
            }
            speech = layout.of_rows(shapes["speech_embedding.weight"][0])
        except KeyError as error:
            raise CheckpointError(f"{file.path} is not a whole {layout.family}: {error.args[0]} is missing") from error
        return build(lambda: cls(speech, **sizes, **(settings or {})))

    @property
    def text_rows(self) -> int:
        return self.text_embedding.num_embeddings

    @property
    def blocks(self) -> dict[str, nn.Module]:
        return dict(self.llm.encoders.named_children())

    def embed(self, kinds: Tensor, ids: Tensor, text: Tensor, speaker: Tensor) -> Tensor:
        encoded = self.encode_text(text)  # (B, T, D)
        at = torch.where(kinds == TEXT, ids, 0)
        vectors = [
            (SPEECH, looked_up(kinds, ids, SPEECH, self.speech_embedding)),
            (CONTROL, looked_up(kinds, ids, CONTROL, self.llm_embedding)),
            (TEXT, encoded.gather(1, at[..., None].expand(-1, -1, encoded.shape[-1]))),
            (VOICE, self.spk_embed_affine_layer(F.normalize(speaker, dim=-1))[:, None]),
        ]
        return placed(kinds, *vectors)

    def encode_text(self, text: Tensor) -> Tensor:
        """(B, T) -> (B, T, D); causal, so padding on the right is seen by padding only."""
        length = text.shape[1]
        return self.text_encoder_affine_layer(self.text_encoder(self.text_embedding(text), causal_mask(length, length, text.device)))

    def embed_speech(self, tokens: Tensor) -> Tensor:
        return self.speech_embedding(tokens)

    def states(self, embedded: Tensor, positions: Tensor | None = None) -> Tensor:
        length = embedded.shape[1]
        return self.llm(embedded, causal_mask(length, length, embedded.device))

    def prefill(self, rows: Sequence[Tensor], positions: Sequence[Tensor]) -> "tuple[Tensor, RelativeDecoding]":
        """Prompts are padded on the left: only distances count, so all rows end, and go on, at the same slot."""
        embedded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_side="left")
        size, device = embedded.shape[1], embedded.device
        lengths = torch.tensor([len(r) for r in rows], device=device)
        real = torch.arange(size, device=device) >= (size - lengths)[:, None]  # (B, S)
        itself = torch.eye(size, dtype=torch.bool, device=device)  # so that no row of a softmax is empty
        caches = self.llm.caches()
        states = self.llm(embedded, (causal_mask(size, size, device) & real[:, None]) | itself, caches)
        return states[:, -1], RelativeDecoding(self.llm, caches, real)


class RelativeDecoding(Decoding):
    """`real` (B, S): which slots of the cache are filled."""

    def __init__(self, llm: ConformerEncoder, caches: Sequence[RelativeCache], real: Tensor) -> None:
        self.llm, self.caches, self.real = llm, caches, real

    def step(self, embedded: Tensor) -> Tensor:
        self.real = F.pad(self.real, (0, 1), value=True)
        return self.llm(embedded[:, None], self.real[:, None], self.caches)[:, 0]

    def select(self, rows: Tensor) -> None:
        for cache in self.caches:
            cache.select(rows)
        self.real = self.real[rows]
