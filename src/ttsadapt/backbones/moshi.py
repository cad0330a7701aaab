"""Kyutai's Moshi as a speaker: an inner monologue of text, then the codes of a frame, at every step (Défossez et al. 2024).

transformers' classes hold the weights and the layers; streams, labels, losses and generation are our own. (Its training loss pairs
the state of a step with the text and codes of that same step, which the state has already seen; here a state says the next ones.)
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, MoshiConfig

from ttsadapt.backbones import official
from ttsadapt.backbones.base import Backbone, Batch, Request, Slot
from ttsadapt.backbones.decoding import in_batches, least_risk
from ttsadapt.backbones.ending import tell
from ttsadapt.backbones.frames import causal, choose, level_tables, right_padded, uniforms, weights
from ttsadapt.backbones.knobs import Knob
from ttsadapt.backbones.moshi_frontend import MoshiFrontend
from ttsadapt.backbones.moshi_parts import LAYOUT, Speaker, Streams, check_fits, draw, embed_codewords, new_config
from ttsadapt.backbones.official import Origin
from ttsadapt.backbones.parts import evaluating
from ttsadapt.backbones.pretrained import OfficialFolder, expect, write_folder
from ttsadapt.errors import CheckpointError
from ttsadapt.heads import Categorical, Heads


class Moshi(Backbone):
    """Heads "text" and "padding" of the monologue, "semantic" and "acoustic" of the codes."""

    adaptable: ClassVar[tuple[str, ...]] = (
        *(f"lm.decoder.model.layers.*.self_attn.{n}_proj.linear" for n in "qkvo"),
        *(f"lm.decoder.model.layers.*.mlp.fc{n}" for n in (1, 2)),
    )
    components: ClassVar[dict[str, tuple[str, ...]]] = {
        "embedding": ("lm.embed_tokens.*", "lm.decoder.model.embed_tokens.*"),
        "backbone": ("lm.decoder.model.layers.*", "lm.decoder.model.norm.*", "lm.decoder.lm_head.*"),
        "decoder": ("lm.depth_decoder.*",),
    }

    frontend: MoshiFrontend

    def __init__(
        self,
        frontend: MoshiFrontend,
        hidden_size: int = 4096,
        ffn_dim: int = 22528,
        num_hidden_layers: int = 32,
        num_attention_heads: int = 32,
        depth_hidden_size: int = 1024,
        depth_ffn_dim: int = 5632,
        depth_num_hidden_layers: int = 6,
        depth_num_attention_heads: int = 16,
        rope_theta: float = 1e4,
        semantic_weight: float = 100.0,
        acoustic_weight: float = 1.0,
        text_weight: float = 1.0,
        padding_weight: float = 0.5,
        temperature: float = 0.8,
        acoustic_temperature: float = 0.8,
        top_k: int = 250,
        batch: int = 16,
        codec_embedding: bool = False,
        minimum_risk: bool = False,
        config: MoshiConfig | None = None,
    ) -> None:
        """`frontend` is fitted or restored. Sizes are named as in transformers' MoshiConfig and default to the released models'.

        `semantic_weight`, `acoustic_weight`: of a single code. `text_weight`, `padding_weight`: of the mean over the monologue's
        pieces, and over its padding. `temperature`s of the two kinds of codes, 0: greedy. `top_k` 0: all codes. `batch`: utterances
        synthesised at once. `minimum_risk`: acoustic codes are the codewords nearest to the expected ones, instead of drawn.
        `codec_embedding`: a new model knows from the start which codewords sound alike. `config`: a released
        model's own, the sizes above are then not looked at.
        """
        super().__init__()
        self.frontend, self.sample_rate = frontend, frontend.codec.sample_rate
        self.temperature, self.acoustic_temperature, self.top_k, self.batch = temperature, acoustic_temperature, top_k, batch
        self.minimum_risk = minimum_risk
        new = config is None
        if config is None:
            depth = {
                "hidden_size": depth_hidden_size, "ffn_dim": depth_ffn_dim, "num_hidden_layers": depth_num_hidden_layers,
                "num_attention_heads": depth_num_attention_heads,
            }  # fmt: skip
            config = new_config(
                frontend, depth, rope_theta, hidden_size=hidden_size, ffn_dim=ffn_dim,
                num_hidden_layers=num_hidden_layers, num_attention_heads=num_attention_heads,
            )  # fmt: skip
        check_fits(config, frontend)
        self.lm = Streams(config)
        self.levels, self.start = frontend.codec.levels, config.vocab_size
        self.text_weight, self.padding_weight = text_weight, padding_weight
        self.semantic_weight, self.acoustic_weight = weights(semantic_weight, acoustic_weight, self.levels)
        self._origin: Origin | None = None
        self._source: Path | None = None
        if new:
            draw(self.lm)
        if codec_embedding:
            embed_codewords(self.lm, frontend)

    @property
    def knobs(self) -> dict[str, Knob]:
        drawn = {} if self.minimum_risk else {"acoustic_temperature": Knob("acoustic_temperature")}
        return {"temperature": Knob("temperature"), "top_k": Knob("top_k", whole=True), **drawn}

    @property
    def blocks(self) -> dict[str, dict[str, nn.Module]]:
        """The depth decoder's are not among them: they run over the codes of single frames."""
        return {"backbone": {str(i): layer for i, layer in enumerate(self.lm.decoder.model.layers)}}

    @property
    def slots(self) -> dict[str, Slot]:
        return {"backbone": Slot(self.lm.config.hidden_size, ("lm.decoder.model.layers.*.mlp",))}

    @property
    def peft_root(self) -> nn.Module:
        return self.lm

    def forward(self, batch: Batch) -> Heads:
        """A state has seen all steps before its own: it says the text, and with that, in the depth decoder, the codes."""
        text, codes, length = batch["text"], batch["codes"], batch["text"].shape[1]
        states = self.lm.decoder.model(
            inputs_embeds=self.embedded(*self.before(text, codes)), attention_mask=causal(batch["mask"]), use_cache=False
        ).last_hidden_state.flatten(0, 1)  # (B * S, H)
        said, labels = text.flatten(), batch["labels"].flatten(0, 1)
        heads: Heads = {}
        for name, at, weight in (("text", batch["words"], self.text_weight), ("padding", batch["paddings"], self.padding_weight)):
            heads[name] = Categorical(said[at], at // length, name, weight, hidden=states[at], project=self.lm.decoder.lm_head)
        at, deep = batch["semantic"], batch["acoustic"]
        heads["semantic"] = Categorical(
            labels[at, 0], at // length, "semantic", self.semantic_weight,
            hidden=self.deep_states(states[at], said[at], labels[at, :0])[:, 0], project=self.first,
        )  # fmt: skip
        spoken, others = codes.flatten(0, 1)[deep, :-1], self.levels - 1
        heads["acoustic"] = Categorical(
            labels[deep, 1:].flatten(), (deep // length).repeat_interleave(others, output_size=len(deep) * others),
            "acoustic", self.acoustic_weight,
            hidden=self.deep_states(states[deep], said[deep], spoken)[:, 1:].flatten(0, 1), project=self.project, together=others,
        )  # fmt: skip
        return heads

    def before(self, text: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S), (B, S, K) said at every step -> what the steps before have said."""
        return F.pad(text[:, :-1], (1, 0), value=self.start), F.pad(codes[:, :-1], (0, 0, 1, 0), value=self.frontend.nothing)

    def embedded(self, text: Tensor, codes: Tensor) -> Tensor:
        """(B, S), (B, S, K) -> (B, S, H): the sum over all streams, the silent listener's included."""
        listener = sum(table(code) for table, code in zip(self.lm.embed_tokens[self.levels :], self.frontend.silence.to(text.device)))
        own = sum(table(codes[..., k]) for k, table in enumerate(self.lm.embed_tokens[: self.levels]))
        return self.lm.decoder.model.embed_tokens(text) + own + listener

    def deep_states(self, state: Tensor, text: Tensor, codes: Tensor, cache: DynamicCache | None = None, level: int = 0) -> Tensor:
        """(F, H) states, (F,) text and (F, N) codes of a step -> (F, N + 1, D); state k says the code of level k.

        With a `cache`, `codes` is the one of level `level` - 1 and only the state of `level` is given back.
        """
        depth = self.lm.depth_decoder
        pieces = [depth.embed_tokens[k + max(level - 1, 0)](codes[:, k]) for k in range(codes.shape[1])]
        inputs = torch.stack(pieces if level else [depth.text_embed_tokens(text), *pieces], 1)
        index = torch.arange(level, level + inputs.shape[1], device=state.device)
        hidden = inputs + depth.input_projections(state[:, None], index)
        for layer in depth.layers:
            hidden = layer(hidden, attention_mask=None, position_ids=index[None], past_key_values=cache, codebook_idx=index)
        return hidden

    def first(self, hidden: Tensor) -> Tensor:
        """(F, D) -> (F, V) logits of semantic codes."""
        return hidden @ self.lm.depth_decoder.lm_heads.weight[0].T

    def project(self, hidden: Tensor) -> Tensor:
        """(F * (K - 1), D) of whole frames -> logits (F * (K - 1), V): every level has a head of its own."""
        by_level = hidden.unflatten(0, (-1, self.levels - 1)).transpose(0, 1)  # (K - 1, F, D)
        return torch.bmm(by_level, self.lm.depth_decoder.lm_heads.weight[1:].mT).transpose(0, 1).flatten(0, 1)

    def block_mask(self, batch: Batch, group: str) -> Tensor:
        return batch["labels"][..., 0] >= 0

    def resynthesize(self, audio: Tensor) -> Tensor:
        codec = self.frontend.codec
        return codec.decode_codes(codec.codes(audio.cpu()))

    def synthesize(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Tensor]:
        return in_batches(self, requests, self.batch, self.generate, lambda codes, _: self.frontend.codec.decode_codes(codes), progress)

    def generate(self, requests: Sequence[Request]) -> list[Tensor]:
        """(frames, K) codes for each request, sampled with key-value caches.

        The model says when the next piece of text is due, the request which one it is. Every request draws its numbers from its
        own generator, so its draws do not depend on the others.
        """
        device = next(self.parameters()).device
        with evaluating(self), torch.inference_mode():
            prompts = [self.frontend.prompt(r) for r in requests]
            rows = [Speaker(self.frontend, r, len(p["text"])) for r, p in zip(requests, prompts)]
            most = max(row.most for row in rows)
            tables = level_tables(self.frontend.codec, device) if self.minimum_risk else None
            numbers = uniforms([r.seed for r in requests], most + self.frontend.lead + 1, self.levels, device)
            state, cache, mask, position = self._prefill(prompts, device)
            active = list(range(len(rows)))
            for step in range(numbers.shape[1]):
                padded = self._padding_is_due(state)
                said = [rows[i].say(due) for i, due in zip(active, padded)]
                text = torch.tensor(said, device=device)
                codes = self.frame(state, text, numbers[active, step], tables)
                heard = torch.tensor([rows[i].audible() for i in active], device=device)  # (B, 2): semantic, acoustic
                keep = torch.cat([heard[:, :1], heard[:, 1:].expand(-1, self.levels - 1)], 1)
                codes = torch.where(keep, codes, self.frontend.nothing)
                for k, i in enumerate(active):
                    rows[i].steps.append(codes[k])
                going = [k for k, i in enumerate(active) if not rows[i].done]
                if not going:
                    break
                if len(going) < len(active):
                    chosen = torch.tensor(going, device=device)
                    cache.batch_select_indices(chosen)
                    mask, position, text, codes = mask[chosen], position[chosen], text[chosen], codes[chosen]
                    active = [active[k] for k in going]
                mask, position = F.pad(mask, (0, 1), value=True), position + 1
                state = self.lm.decoder.model(
                    inputs_embeds=self.embedded(text[:, None], codes[:, None]), attention_mask=mask,
                    position_ids=position[:, None], past_key_values=cache, use_cache=True,
                ).last_hidden_state[:, -1]  # fmt: skip
        tell(requests, [(row.end or 0) + 1 for row in rows], [row.most for row in rows])
        return [row.frames() for row in rows]

    def _padding_is_due(self, state: Tensor) -> list[bool]:
        """(B, H) -> whether padding is likelier than all that could be said together."""
        logits = self.lm.decoder.lm_head(state).float()
        return (logits.softmax(-1)[:, self.frontend.text.padding] > 0.5).tolist()

    def frame(self, state: Tensor, text: Tensor, numbers: Tensor, tables: Tensor | None = None) -> Tensor:
        """(B, H) states, (B,) text and (B, K) numbers -> (B, K) codes, one level after the other; `tables`: for minimum risk."""
        heads, cache = self.lm.depth_decoder.lm_heads.weight, DynamicCache(config=self.lm.depth_decoder.config)
        codes: list[Tensor] = []
        for level in range(self.levels):
            last = codes[-1][:, None] if codes else text[:, None][:, :0]
            hidden = self.deep_states(state, text, last, cache, level)[:, -1]
            temperature = self.acoustic_temperature if level else self.temperature
            logits = (hidden @ heads[level].T).float()
            if tables is not None and level:
                codes.append(least_risk(logits[:, : tables.shape[1]], tables[level]))
            else:
                codes.append(choose(logits, numbers[:, level], temperature, self.top_k))
        return torch.stack(codes, 1)

    def _prefill(self, prompts: Sequence[dict[str, Tensor]], device: torch.device) -> tuple[Tensor, DynamicCache, Tensor, Tensor]:
        """States that say the first step (B, H), the cache, which of its slots are filled (B, P), last positions (B,).

        What comes before is padded on the right, so slots between it and the first step stay empty and masked.
        """
        text = right_padded([F.pad(p["text"], (0, 1), value=self.frontend.text.padding) for p in prompts]).to(device)
        codes = right_padded([F.pad(p["codes"], (0, 0, 0, 1), value=self.frontend.nothing) for p in prompts]).to(device)
        lengths = torch.tensor([len(p["text"]) + 1 for p in prompts], device=device)
        mask = torch.arange(text.shape[1], device=device) < lengths[:, None]
        cache = DynamicCache(config=self.lm.config)
        states = self.lm.decoder.model(
            inputs_embeds=self.embedded(*self.before(text, codes)), attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return states[torch.arange(len(prompts), device=device), lengths - 1], cache, mask, lengths - 1

    @classmethod
    def load_official(  # type: ignore[override]
        cls,
        frontend: MoshiFrontend,
        path: str,
        semantic_weight: float = 100.0,
        acoustic_weight: float = 1.0,
        text_weight: float = 1.0,
        padding_weight: float = 0.5,
        temperature: float = 0.8,
        acoustic_temperature: float = 0.8,
        top_k: int = 250,
        batch: int = 16,
    ) -> Self:
        """A folder in transformers' layout, such as kmhf/hf-moshiko downloaded. The codec in it goes back as it came."""
        folder = Path(path).expanduser()
        config = MoshiConfig.from_dict(expect(folder, "moshi"))
        file = OfficialFolder(folder)
        speech: dict[str, Any] = {
            "semantic_weight": semantic_weight, "acoustic_weight": acoustic_weight, "text_weight": text_weight,
            "padding_weight": padding_weight, "temperature": temperature, "acoustic_temperature": acoustic_temperature,
            "top_k": top_k, "batch": batch,
        }  # fmt: skip
        model = official.build(lambda: cls(frontend, config=config, **speech))
        model._origin, model._source = official.load(model.lm, file, LAYOUT), folder
        return model

    def save_official(self, path: Path) -> None:
        if self._origin is None:
            raise CheckpointError("only a Moshi that came from a released folder goes back into one: this model's codec is no Mimi")
        write_folder(official.save(self.lm, LAYOUT, self._origin), self.lm.config, path, self._source)
