"""GPT-SoVITS's first stage (RVC-Boss/GPT-SoVITS, AR/models/t2s_model.py): a prefix language model from phones to semantic tokens.

Phones see each other, tokens see all phones and the tokens before them. Positions are counted in every item by itself and
padding comes after them, so an item of a batch is computed as it would be alone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones import official
from ttsadapt.backbones.base import Backbone, Batch, Request, Slot
from ttsadapt.backbones.decoding import Sampling, in_batches
from ttsadapt.backbones.ending import tell
from ttsadapt.backbones.gpt_sovits.decoding import Row, decode
from ttsadapt.backbones.gpt_sovits.file import LAYOUT, Sizes, config_of, opened, sizes_of
from ttsadapt.backbones.gpt_sovits.frontend import GptSovitsFrontend
from ttsadapt.backbones.prefix_lm import Block, SinePosition, prefix_mask
from ttsadapt.errors import CheckpointError, ConfigError
from ttsadapt.heads import Categorical, Heads

BERT_SIZE = 1024
"""of chinese-roberta-wwm-ext-large, whose features the text can carry"""


class Embedding(nn.Module):
    """A table under the name that the authors gave it."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(rows, width)

    def forward(self, index: Tensor) -> Tensor:
        return self.word_embeddings(index)


class Layers(nn.Module):
    """A chain of post-norm blocks, without a norm after the last."""

    def __init__(self, count: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads, 4 * width, dropout, norm_first=False) for _ in range(count))


class GptSovits(Backbone):
    """Phones (of a reference recording, then of the text) and tokens (of the reference, then those to be said)."""

    adaptable: ClassVar[tuple[str, ...]] = (
        *(f"h.layers.*.self_attn.{name}" for name in ("query", "key", "value", "out")),
        *(f"h.layers.*.linear{n}" for n in (1, 2)),
    )
    components: ClassVar[dict[str, tuple[str, ...]]] = {
        "text": ("bert_proj.*", "ar_text_*"),
        "audio": ("ar_audio_*", "ar_predict_layer.*"),
        "decoder": ("h.*",),
    }

    frontend: GptSovitsFrontend

    def __init__(
        self,
        frontend: GptSovitsFrontend,
        width: int = 512,
        layers: int = 24,
        heads: int = 16,
        dropout: float = 0.1,
        token_dropout: float = 0.0,
        text_rows: int | None = None,
        bert_size: int = BERT_SIZE,
        codec_embedding: bool = False,
        temperature: float = 1.0,
        top_k: int = 15,
        top_p: float = 1.0,
        repetition_penalty: float = 1.35,
        batch: int = 16,
    ) -> None:
        """`frontend` is fitted or restored. `text_rows`: rows of the phone table, None for one a symbol; feed-forward layers are
        4 x `width` wide. `token_dropout`: share of the tokens before that training does not show (Bowman et al. 2016, section 3.1), so
        that the text is listened to. `codec_embedding`: new token rows start where their codewords lie. `temperature` 0: greedy; `top_k` 0:
        all tokens; `repetition_penalty` 1: none. `batch`: utterances synthesised at once.
        """
        super().__init__()
        if width % heads:
            raise ConfigError(f"backbone.width={width} is not a multiple of backbone.heads={heads}: change one of them")
        self.frontend, self.sample_rate = frontend, frontend.codec.sample_rate
        self.heads = heads
        self.sampling, self.batch = Sampling(temperature, top_k, top_p, repetition_penalty), batch
        self.end = frontend.codec.tokens
        self.bert_proj = nn.Linear(bert_size, width)
        self.ar_text_embedding = Embedding(_text_rows(frontend, text_rows), width)
        self.ar_text_position = SinePosition(width, dropout)
        self.ar_audio_embedding = Embedding(self.end + 1, width)
        self.ar_audio_position = SinePosition(width, dropout)
        self.unheard = nn.Dropout1d(token_dropout)
        self.h = Layers(layers, width, heads, dropout)
        self.ar_predict_layer = nn.Linear(width, self.end + 1, bias=False)
        self.origin: official.Origin | None = None
        if codec_embedding:
            self._embed_codewords()

    @property
    def blocks(self) -> dict[str, dict[str, nn.Module]]:
        return {"decoder": {str(i): layer for i, layer in enumerate(self.h.layers)}}

    @property
    def slots(self) -> dict[str, Slot]:
        return {"decoder": Slot(self.ar_predict_layer.in_features, ("h.layers.*.feed_dropout",))}

    def forward(self, batch: Batch) -> Heads:
        """{"tokens": those after the given ones, and the end}: the position before each of them predicts it.

        Before the first token stands the last phone (the current objective); with a token given, phones predict nothing
        (the legacy objective, and everything that goes on from a reference).
        """
        tokens, lengths, phones = batch["tokens"], batch["token_lengths"], batch["phones"].shape[1]
        states = self.states(batch)
        row, index = self._wanted(batch).nonzero(as_tuple=True)  # index 0 .. S of what is predicted
        before = torch.where(index == 0, batch["phone_lengths"][row], phones + index) - 1
        target = torch.where(index == lengths[row], self.end, F.pad(tokens, (0, 1))[row, index])
        return {"tokens": Categorical(target, row, "tokens", hidden=states[row, before], project=self.ar_predict_layer)}

    def states(self, batch: Batch) -> Tensor:
        """(B, P + S, D) after the last block; padding lies between phones and tokens, and at the end."""
        text, audio = self.embed_text(batch["phones"], batch.get("bert"), batch.get("positions")), self.embed_audio(batch["tokens"])
        mask = prefix_mask(_upto(batch["phone_lengths"], text.shape[1]), _upto(batch["token_lengths"], audio.shape[1]))
        x = torch.cat([text, audio], 1)
        for layer in self.h.layers:
            x = layer(x, mask)
        return x

    def embed_text(self, phones: Tensor, bert: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """(B, P) rows, (B, P, bert_size) features (none: zeros) and (B, P) positions (none: from 0 on) -> (B, P, D)"""
        context = self.bert_proj.bias if bert is None else self.bert_proj(bert)
        return self.ar_text_position(self.ar_text_embedding(phones) + context, positions=positions)

    def embed_audio(self, tokens: Tensor, start: int | Tensor = 0) -> Tensor:
        """(B, S) -> (B, S, D); `start`: position of the first, an int or (B,)."""
        return self.ar_audio_position(self.unheard(self.ar_audio_embedding(tokens)), start)

    def block_mask(self, batch: Batch, group: str) -> Tensor:
        index = torch.arange(batch["tokens"].shape[1], device=batch["tokens"].device)
        speech = (index >= batch["given"][:, None]) & (index < batch["token_lengths"][:, None])
        return F.pad(speech, (batch["phones"].shape[1], 0))

    def _wanted(self, batch: Batch) -> Tensor:
        """(B, S + 1) bool: which tokens, the end included, are predicted."""
        index = torch.arange(batch["tokens"].shape[1] + 1, device=batch["tokens"].device)
        return (index >= batch["given"][:, None]) & (index <= batch["token_lengths"][:, None])

    def resynthesize(self, audio: Tensor) -> Tensor:
        codec = self.frontend.codec
        return codec.decode(codec.encode(audio.cpu()), codec.voice(audio.cpu()))

    def synthesize(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Tensor]:
        return in_batches(self, requests, self.batch, self.generate, self.frontend.spoken, progress)

    def generate(self, requests: Sequence[Request]) -> list[Tensor]:
        """(S,) new semantic tokens for each request, the reference's left out."""
        rows = [Row.of(self.frontend, request, self.sampling) for request in requests]
        said = decode(self, rows)
        tell(requests, map(len, said), [row.most for row in rows])
        return said

    @torch.no_grad()
    def _embed_codewords(self) -> None:
        """Rows of tokens that sound alike start alike: principal axes of the codewords, turned at random into the width."""
        sound = self.frontend.codec.embedding()
        width = self.ar_predict_layer.in_features
        axes = torch.linalg.eigh(sound.T @ sound).eigenvectors.flip(1)[:, :width]
        table = sound @ axes @ torch.linalg.qr(torch.randn(width, width)).Q[: axes.shape[1]]
        table *= width**0.5 / table.square().sum(1).mean().sqrt()
        self.ar_audio_embedding.word_embeddings.weight[: self.end] = table
        self.ar_predict_layer.weight[: self.end] = 0.04 * table  # the first loss is near that of a uniform guess

    @classmethod
    def load_official(  # type: ignore[override]
        cls,
        frontend: GptSovitsFrontend,
        path: str,
        dropout: float = 0.1,
        temperature: float = 1.0,
        top_k: int = 15,
        top_p: float = 1.0,
        repetition_penalty: float = 1.35,
        batch: int = 16,
    ) -> Self:
        """An s1*.ckpt or a fine-tuned GPT file; fp16 weights are cast up, and back when written."""
        file = opened(path)
        sizes = sizes_of(file)
        if sizes.tokens != frontend.codec.tokens:
            raise CheckpointError(
                f"{file.path} speaks {sizes.tokens} semantic tokens, backbone.frontend.codec has {frontend.codec.tokens}: use its own codec"
            )
        model = official.build(
            lambda: cls(
                frontend,
                sizes.width,
                sizes.layers,
                sizes.heads,
                dropout,
                text_rows=sizes.phones,
                bert_size=sizes.bert,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                repetition_penalty=repetition_penalty,
                batch=batch,
            )
        )
        model.origin = official.load(model, file, LAYOUT)
        return model

    def save_official(self, path: Path) -> None:
        official.check_theirs({"backbone.frontend.paced_positions=false": self.frontend.pacing is not None})
        extras = self.origin.extras if self.origin else {"config": config_of(self.sizes), "info": "GPT-e0"}
        official.write({"weight": official.save(self, LAYOUT, self.origin), **extras}, path)

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            width=self.ar_predict_layer.in_features,
            layers=len(self.h.layers),
            heads=self.heads,
            phones=self.ar_text_embedding.word_embeddings.num_embeddings,
            tokens=self.end,
            bert=self.bert_proj.in_features,
        )


def _text_rows(frontend: GptSovitsFrontend, rows: int | None) -> int:
    """ConfigError when the table has fewer rows than there are symbols."""
    symbols = len(frontend.table)
    if rows is not None and rows < symbols:
        raise ConfigError(
            f"the phone table of the model has {rows} rows, backbone.frontend has {symbols} symbols: use the table made for it"
        )
    return symbols if rows is None else rows


def _upto(lengths: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size) bool, true where there is something."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]
