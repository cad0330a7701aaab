"""A causal language model that goes on from phones to speech tokens (NeuTTS: Qwen2.5-0.5B over one stream of codec tokens)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from ttsadapt.backbones import official
from ttsadapt.backbones.base import Backbone, Batch, Request, Slot
from ttsadapt.backbones.decoding import Sampling, in_batches
from ttsadapt.backbones.official import Layout, Origin, Place
from ttsadapt.backbones.parts import evaluating
from ttsadapt.backbones.qwen_tts_decoding import generate
from ttsadapt.backbones.qwen_tts_folder import open_folder, save_folder
from ttsadapt.backbones.qwen_tts_frontend import QwenTTSFrontend
from ttsadapt.backbones.qwen_tts_tokens import Codec, SpeechTokenFrontend
from ttsadapt.errors import CheckpointError, ConfigError
from ttsadapt.heads import Categorical, Heads
from ttsadapt.reduction import Rows

FAMILY = "NeuTTS language model"
SIGNATURES = {FAMILY: ("model.embed_tokens.weight", "model.layers.*.self_attn.q_proj.weight", "model.norm.weight")}


class QwenTTS(Backbone):
    """[voice] prompt speech end: one row of positions, loss on speech and end only.

    NeuTTS also trains the start of speech, the last token of the prompt; it is always given when speaking, so here it is not
    a target. The softmax is over speech and end: text tokens never follow, and a third of the rows is a third of the memory.
    """

    adaptable: ClassVar[tuple[str, ...]] = (
        *(f"*.self_attn.{name}_proj" for name in "qkvo"),
        *(f"*.mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
    components: ClassVar[dict[str, tuple[str, ...]]] = {
        "embeddings": ("lm.model.embed_tokens.*", "lm.lm_head.*"),
        "voice": ("voice.*",),
        "backbone": ("lm.model.layers.*", "lm.model.norm.*"),
    }

    frontend: SpeechTokenFrontend

    def __init__(
        self,
        frontend: SpeechTokenFrontend,
        hidden_size: int = 896,
        intermediate_size: int = 4864,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 14,
        num_key_value_heads: int = 2,
        tie_word_embeddings: bool = True,
        rope_theta: float = 1e6,
        sampling: Sampling | None = None,
        batch: int = 16,
        codec_embedding: bool = False,
        lm: PreTrainedModel | None = None,
    ) -> None:
        """`frontend` is fitted or restored. Sizes are named as in transformers' Qwen2Config and default to Qwen2.5-0.5B.

        `sampling`: NeuTTS's when not given: temperature 1, the 50 likeliest. `batch`: utterances synthesised at once.
        `codec_embedding`: a new model knows from the start which tokens sound alike, see `embed_codewords`.
        `lm`: a causal language model of transformers in place of one of these sizes.
        """
        super().__init__()
        self.frontend, self.sample_rate = frontend, frontend.codec.sample_rate
        self.sampling, self.batch = sampling or Sampling(temperature=1.0, top_k=50), batch
        vocabulary = frontend.vocabulary
        self.speech, self.end = vocabulary.speech, vocabulary.end
        config = Qwen2Config(
            vocab_size=len(vocabulary),
            max_position_embeddings=frontend.max_tokens + 1,
            pad_token_id=vocabulary.pad,
            eos_token_id=vocabulary.end,
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            num_key_value_heads=num_key_value_heads,
            tie_word_embeddings=tie_word_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        )
        self.lm = lm or AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        width, rows = self.lm.config.hidden_size, self.lm.config.vocab_size
        if max(self.speech[-1], self.end, vocabulary.pad) >= rows:
            raise CheckpointError(f"the tokenizer has {len(vocabulary)} rows, the model's embedding only {rows}: they are not of one model")
        if frontend.max_tokens > self.lm.config.max_position_embeddings:
            raise ConfigError(
                f"backbone.frontend.max_tokens={frontend.max_tokens}: this model has {self.lm.config.max_position_embeddings} positions"
            )
        self.voice = nn.Linear(frontend.speaker_size, width) if frontend.speaker_size else None
        self._released: tuple[Path, Origin] | None = None
        if codec_embedding:
            embed_codewords(self.lm, vocabulary.speech, frontend.codec)

    @classmethod
    def load_official(  # type: ignore[override]
        cls, frontend: SpeechTokenFrontend, path: str, sampling: Sampling | None = None, batch: int = 16, notice: official.Notice = print
    ) -> Self:
        """A folder as `save_pretrained` writes it: any causal language model of transformers built like Llama, tied or not.

        CheckpointError in one line when it is no such folder, another family's, incomplete, or not the tokenizer's.
        """
        config, file = open_folder(Path(path).expanduser(), FAMILY)

        def lm() -> PreTrainedModel:
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")

        model = official.build(lambda: cls(frontend, sampling=sampling, batch=batch, lm=lm()))
        model.lm.tie_weights()
        if not model.has_layers:
            raise CheckpointError(f"{path}: a {config.model_type} is not built like Llama or Qwen2, and is not a {FAMILY}")
        model._released = file.path, official.load(model, file, model.layout(set(file.shapes)), notice=notice)
        return model

    def save_official(self, path: Path) -> None:
        """A folder that transformers and NeuTTS read: the weights in one file, config and tokenizer as they came."""
        if isinstance(self.frontend, QwenTTSFrontend):
            raise CheckpointError(
                "a model with a symbol table of its own has no released format: backbone=qwen_tts is the same one under NeuTTS's tokenizer"
            )
        source, origin = self._released or (None, None)
        state = official.save(self, self.layout(set(origin.dtypes) if origin else None), origin)
        save_folder(state, self.lm.config, self.frontend.vocabulary.tokenizer, Path(path), source)  # type: ignore[attr-defined]

    def layout(self, names: set[str] | None = None) -> Layout:
        """Our names are theirs behind "lm."; a tied output layer stands in some files (`names`) as a copy, in others not at all."""
        tied = {}
        if self.lm.get_output_embeddings().weight is self.lm.get_input_embeddings().weight:
            tied = {"lm_head.weight": "model.embed_tokens.weight"}

        def place(name: str) -> Place:
            theirs = name.removeprefix("lm.")
            return Place(tied.get(theirs, theirs))

        return Layout(FAMILY, place, tied={k: v for k, v in tied.items() if k in (names or ())})

    @property
    def has_layers(self) -> bool:
        layers = getattr(getattr(self.lm, "model", None), "layers", None)
        return layers is not None and all(hasattr(getattr(block, "self_attn", None), "q_proj") for block in layers)

    @property
    def blocks(self) -> dict[str, dict[str, nn.Module]]:
        return {"backbone": {str(i): layer for i, layer in enumerate(self.lm.model.layers)}}

    @property
    def slots(self) -> dict[str, Slot]:
        return {"backbone": Slot(self.lm.config.hidden_size, ("lm.model.layers.*.mlp",))}

    @property
    def peft_root(self) -> nn.Module:
        return self.lm

    def voice_vector(self, speaker: Tensor) -> Tensor:
        """(B, E ...) -> (B, E): what the model is told, without what only a codec is."""
        return speaker[:, : self.frontend.speaker_size]

    @property
    def offset(self) -> int:
        """Positions before the first token: the soft prompt."""
        return 0 if self.voice is None else 1

    def forward(self, batch: Batch) -> Heads:
        """{"tokens": speech and end, as `classes` has them}: the state before each of them predicts it."""
        tokens = batch["tokens"]
        # Padding stands on the right, where no token that counts looks: without a mask attention costs half. But with positions of
        # their own and no mask, those that start again would be taken for packed sequences.
        straight = batch["straight"]
        output = self.lm.model(
            inputs_embeds=self.embedded(tokens, batch["speaker"], batch.get("heard") if self.training else None),
            attention_mask=None if straight else F.pad(batch["mask"], (self.offset, 0), value=True),
            position_ids=None if straight else self.shifted(batch["positions"]),
            use_cache=False,
        )
        states = output.last_hidden_state  # (B, offset + L, D)
        row, position = batch["row"], batch["position"]
        hidden = states[row, position + self.offset - 1]  # (N, D)
        target = tokens[row, position]
        if self.end == self.speech.start - 1:  # one stretch of rows: no list of them, no copy
            weight = self.lm.get_output_embeddings().weight[self.end : self.speech.stop]
            return {"tokens": Categorical(target - self.end, row, "tokens", hidden=hidden, project=Rows(weight))}
        target = torch.where(target == self.end, len(self.speech), target - self.speech.start)
        return {"tokens": Categorical(target, row, "tokens", hidden=hidden, project=self.project)}

    @property
    def classes(self) -> Sequence[int]:
        """Rows of the embedding that the head predicts, in its order: one piece of the table, uncopied, where the end stands before
        speech, as NeuTTS has it; else speech and then the end."""
        if self.end == self.speech.start - 1:
            return range(self.end, self.speech.stop)
        return [*self.speech, self.end]

    def project(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, tokens + 1): logits of the codec's tokens and, last, of the end."""
        weight = self.lm.get_output_embeddings().weight
        rows = weight[self.speech.start : self.speech.stop], weight[self.end : self.end + 1]
        return torch.cat([F.linear(hidden, part) for part in rows], dim=-1)

    def block_mask(self, batch: Batch, group: str) -> Tensor:
        position = torch.arange(batch["tokens"].shape[1], device=batch["tokens"].device)
        speech = batch["mask"] & (position >= batch["prompt"][:, None]) & (batch["tokens"] != self.end)
        return F.pad(speech, (self.offset, 0))

    def shifted(self, positions: Tensor) -> Tensor:
        """(B, L) -> (B, offset + L): the soft prompt is position 0."""
        return F.pad(positions + self.offset, (self.offset, 0))

    def embedded(self, tokens: Tensor, speaker: Tensor, heard: Tensor | None = None) -> Tensor:
        """(B, L), (B, E ...), (B, L) bool -> (B, offset + L, D); zeros where a token is not heard."""
        embedded = self.lm.get_input_embeddings()(tokens)
        if heard is not None:
            embedded = embedded * heard[..., None]
        if self.voice is None:
            return embedded
        return torch.cat([self.voice(speaker[:, : self.voice.in_features])[:, None], embedded], dim=1)

    def resynthesize(self, audio: Tensor) -> Tensor:
        return self.frontend.recode(audio)

    def synthesize(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Tensor]:
        return in_batches(self, requests, self.batch, self.generate, self.frontend.decode, progress)

    def generate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Speech tokens (S,) of the codec for each request, sampled with a key-value cache."""
        with evaluating(self):
            return generate(self, requests)


INPUT_STD, OUTPUT_STD = 0.2, 0.04
"""of a weight; the input's is about what attention adds to the residual stream, the output's keeps the first loss near uniform"""


@torch.no_grad()
def embed_codewords(lm: PreTrainedModel, rows: range, codec: Codec) -> None:
    """Draw embeddings in which speech tokens lie as their codewords do: principal axes, turned at random into the model's width.

    A model of random rows has to learn a thousand codewords one by one; this one starts from what the codec knows about them.
    """
    sound = codec.embedding()  # (tokens, features)
    inputs, outputs = (table.get_parameter("weight") for table in (lm.get_input_embeddings(), lm.get_output_embeddings()))
    width = inputs.shape[1]
    axes = torch.linalg.eigh(sound.T @ sound).eigenvectors.flip(1)[:, :width]  # the largest first
    turn = torch.linalg.qr(torch.randn(width, width)).Q[: axes.shape[1]]
    level = torch.arange(len(sound)) * codec.levels // len(sound)
    own = torch.randn(codec.levels, width) / width**0.5  # tells the levels apart
    table = sound @ axes @ turn + 0.5 * own[level]
    table *= width**0.5 / table.square().sum(1).mean().sqrt()
    inputs.normal_(std=INPUT_STD)
    if outputs is not inputs:
        outputs[rows.start : rows.stop] = OUTPUT_STD * table + 0.01 * torch.randn_like(table)
    inputs[rows.start : rows.stop] = INPUT_STD * table
