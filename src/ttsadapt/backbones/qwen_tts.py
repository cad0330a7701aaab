"""A Qwen2 language model that goes on from phones to speech tokens (NeuTTS: Qwen2.5-0.5B over one stream of codec tokens)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from ttsadapt.backbones.base import Backbone, Batch, Request
from ttsadapt.backbones.qwen_tts_frontend import Codec, QwenTTSFrontend
from ttsadapt.errors import DataError
from ttsadapt.heads import Categorical, Heads

SHARPEST = 1e-3
"""temperatures below this pick the likeliest token"""


class QwenTTS(Backbone):
    """[voice] prompt speech end: one row of positions, loss on speech and end only."""

    adaptable: ClassVar[tuple[str, ...]] = (
        *(f"*.self_attn.{name}_proj" for name in "qkvo"),
        *(f"*.mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
    components: ClassVar[dict[str, tuple[str, ...]]] = {
        "embeddings": ("lm.model.embed_tokens.*", "lm.lm_head.*"),
        "voice": ("voice.*",),
        "backbone": ("lm.model.layers.*", "lm.model.norm.*"),
    }

    def __init__(
        self,
        frontend: QwenTTSFrontend,
        hidden_size: int = 896,
        intermediate_size: int = 4864,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 14,
        num_key_value_heads: int = 2,
        tie_word_embeddings: bool = True,
        rope_theta: float = 1e6,
        temperature: float = 1.0,
        top_k: int = 50,
        batch: int = 16,
        codec_embedding: bool = False,
    ) -> None:
        """`frontend` is fitted or restored. Sizes are named as in transformers' Qwen2Config and default to Qwen2.5-0.5B.

        `codec_embedding`: a new model knows from the start which tokens sound alike, see `embed_codewords`.
        `temperature` 0: greedy. `top_k` 0: all tokens. `batch`: utterances synthesised at once.
        """
        super().__init__()
        self.frontend, self.sample_rate = frontend, frontend.codec.sample_rate
        self.temperature, self.top_k, self.batch = temperature, top_k, batch
        vocabulary = frontend.vocabulary
        config = Qwen2Config(
            vocab_size=len(vocabulary),
            max_position_embeddings=frontend.max_tokens + 1,
            pad_token_id=vocabulary.pad,
            attn_implementation="sdpa",
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            num_key_value_heads=num_key_value_heads,
            tie_word_embeddings=tie_word_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        )
        self.lm = Qwen2ForCausalLM(config)
        self.voice = nn.Linear(frontend.speaker_size, config.hidden_size) if frontend.speaker_size else None
        self.targets = range(min(vocabulary.end, vocabulary.speech[0]), max(vocabulary.end, vocabulary.speech[-1]) + 1)
        if len(self.targets) != len(vocabulary.speech) + 1:
            raise DataError("the end token must stand right before or right after the speech tokens in the vocabulary")
        if codec_embedding:
            embed_codewords(self.lm, vocabulary.speech, frontend.codec)

    @property
    def blocks(self) -> dict[str, dict[str, nn.Module]]:
        return {"backbone": {str(i): layer for i, layer in enumerate(self.lm.model.layers)}}

    @property
    def peft_root(self) -> nn.Module:
        return self.lm

    @property
    def offset(self) -> int:
        """Positions before the first token: the soft prompt."""
        return 0 if self.voice is None else 1

    def forward(self, batch: Batch) -> Heads:
        """{"tokens": speech and end}: the state before each of them predicts it."""
        tokens = batch["tokens"]
        output = self.lm.model(
            inputs_embeds=self._embedded(tokens, batch["speaker"]),
            # Without a mask, positions that start again would be taken for packed sequences.
            attention_mask=F.pad(batch["mask"], (self.offset, 0), value=True),
            position_ids=self._shifted(batch["positions"]),
            use_cache=False,
        )
        states = output.last_hidden_state  # (B, offset + L, D)
        wanted = self._wanted(batch)
        row, position = wanted.nonzero(as_tuple=True)
        hidden = states[row, position + self.offset - 1]  # (N, D)
        target = tokens[row, position] - self.targets[0]
        return {"tokens": Categorical(target, row, "tokens", hidden=hidden, project=self.project)}

    def project(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, targets): logits of the tokens that can be said, out of all rows."""
        weight = self.lm.get_output_embeddings().weight
        return F.linear(hidden, weight[self.targets[0] : self.targets[-1] + 1])

    def block_mask(self, batch: Batch, group: str) -> Tensor:
        speech = self._wanted(batch) & (batch["tokens"] != self.frontend.vocabulary.end)
        return F.pad(speech, (self.offset, 0))

    def _wanted(self, batch: Batch) -> Tensor:
        """(B, L) bool: speech and end, no prompt, no padding."""
        position = torch.arange(batch["tokens"].shape[1], device=batch["tokens"].device)
        return batch["mask"] & (position >= batch["prompt"][:, None])

    def _shifted(self, positions: Tensor) -> Tensor:
        """(B, L) -> (B, offset + L): the soft prompt is position 0."""
        return F.pad(positions + self.offset, (self.offset, 0))

    def _embedded(self, tokens: Tensor, speaker: Tensor) -> Tensor:
        embedded = self.lm.get_input_embeddings()(tokens)
        return embedded if self.voice is None else torch.cat([self.voice(speaker)[:, None], embedded], dim=1)

    def resynthesize(self, audio: Tensor) -> Tensor:
        codec = self.frontend.codec
        return codec.decode(codec.encode(audio.cpu()))

    def synthesize(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Tensor]:
        audio: list[Tensor] = [torch.zeros(0)] * len(requests)
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].phones))  # like lengths end together
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            for i, tokens in zip(part, self.generate([requests[i] for i in part])):
                audio[i] = self.frontend.codec.decode(tokens)
            if progress:
                progress(len(part))
        return audio

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Speech tokens (S,) of the codec for each request, sampled with a key-value cache.

        Every request draws one uniform number a token from its own generator, so its draws do not depend on the others.
        """
        device = next(self.parameters()).device
        rows = [Row(self, request) for request in requests]
        with resting(self):
            states, cache, mask = self._prefill(rows, device)
            active = list(range(len(rows)))
            while True:
                chosen = [rows[i].choose(logits) for i, logits in zip(active, self.project(states).float().cpu())]
                going = [k for k, token in enumerate(chosen) if token is not None]
                if not going:
                    return [torch.tensor(row.tokens, dtype=torch.long) for row in rows]
                if len(going) < len(active):
                    keep = torch.tensor(going, device=device)
                    cache.batch_select_indices(keep)
                    mask, active = mask[keep], [active[k] for k in going]
                token = torch.tensor([chosen[k] for k in going], device=device) + self.targets[0]
                position = torch.tensor([rows[i].position for i in active], device=device) + self.offset
                mask = F.pad(mask, (0, 1), value=True)
                output = self.lm.model(
                    inputs_embeds=self.lm.get_input_embeddings()(token[:, None]),
                    attention_mask=mask,
                    position_ids=position[:, None],
                    past_key_values=cache,
                    use_cache=True,
                )
                states = output.last_hidden_state[:, -1]

    def _prefill(self, rows: "list[Row]", device: torch.device) -> tuple[Tensor, DynamicCache, Tensor]:
        """States of the last prompt positions (B, D), the cache, and which of its slots are filled (B, P).

        Prompts are padded on the right, so slots between a prompt and its first speech token stay empty and masked.
        """
        prompts = [row.prompt for row in rows]
        tokens = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True).to(device)
        lengths = torch.tensor([len(p) + self.offset for p in prompts], device=device)
        speaker = torch.stack([row.request.speaker for row in rows]).to(device)
        mask = torch.arange(tokens.shape[1] + self.offset, device=device) < lengths[:, None]
        positions = torch.nn.utils.rnn.pad_sequence([row.positions[: len(row.prompt)] for row in rows], batch_first=True).to(device)
        cache = DynamicCache(config=self.lm.config)
        output = self.lm.model(
            inputs_embeds=self._embedded(tokens, speaker),
            attention_mask=mask,
            position_ids=self._shifted(positions),
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state[torch.arange(len(rows), device=device), lengths - 1], cache, mask


INPUT_STD, OUTPUT_STD = 0.2, 0.04
"""of a weight; the input's is about what attention adds to the residual stream, the output's keeps the first loss near uniform"""


@torch.no_grad()
def embed_codewords(lm: Qwen2ForCausalLM, rows: range, codec: Codec) -> None:
    """Draw embeddings in which speech tokens lie as their codewords do: principal axes, turned at random into the model's width.

    A model of random rows has to learn a thousand codewords one by one; this one starts from what k-means knows about them.
    """
    sound = codec.embedding()  # (tokens, features)
    inputs, outputs = lm.get_input_embeddings().weight, lm.get_output_embeddings().weight
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


@contextmanager
def resting(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; every module gets its own mode back (parts of a model in training may be frozen, in eval mode)."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class Row:
    """One utterance while it is generated."""

    def __init__(self, model: QwenTTS, request: Request) -> None:
        frontend = model.frontend
        self.model, self.request, self.prompt = model, request, frontend.prompt(request)
        self.tokens: list[int] = []
        """of the codec"""
        (low, _, high), room = frontend.pace, frontend.max_tokens - len(self.prompt) - 1
        spoken = len(request.phones)
        if room < frontend.codec.levels:
            raise DataError(f"{request.id}: {spoken} phones fill all of backbone.frontend.max_tokens={frontend.max_tokens}: split the text")
        # Half as fast again and half as slow again as anything that pretraining heard.
        self.least, self.most = int(low * spoken / 1.5), min(int(high * spoken * 1.5) + frontend.codec.levels, room)
        self.positions = frontend.positions(len(self.prompt), len(self.prompt) + self.most)
        generator = torch.Generator().manual_seed(request.seed)
        self.uniform = torch.rand(self.most + 1, generator=generator).tolist()
        vocabulary = frontend.vocabulary
        self.first, self.end = vocabulary.speech[0] - model.targets[0], vocabulary.end - model.targets[0]

    @property
    def position(self) -> int:
        """Rotary position of the last token said, the soft prompt apart."""
        return int(self.positions[len(self.prompt) + len(self.tokens) - 1])

    def choose(self, logits: Tensor) -> int | None:
        """(targets,) logits -> the next target, or None at the end."""
        said, codec = len(self.tokens), self.model.frontend.codec
        whole = said % codec.levels == 0
        if whole and said + codec.levels > self.most:
            return None
        allowed = codec.allowed(said)
        scores = logits[self.first + allowed.start : self.first + allowed.stop]
        if whole and said >= self.least:
            scores = torch.cat([scores, logits[self.end : self.end + 1]])
        choice = self._draw(scores, self.uniform[said])
        if choice == len(allowed):
            return None
        self.tokens.append(allowed.start + choice)
        return self.first + self.tokens[-1]

    def _draw(self, scores: Tensor, uniform: float) -> int:
        """Inverse of the cumulative distribution over the `top_k` best, likeliest first."""
        if self.model.temperature < SHARPEST:
            return int(scores.argmax())
        best, index = scores.topk(min(self.model.top_k or len(scores), len(scores)))
        cumulative = (best.double() / self.model.temperature).softmax(0).cumsum(0)
        return int(index[int((cumulative < uniform).sum().clamp_max(len(index) - 1))])
