"""Sesame's CSM: a Llama over text and frames of codes says the semantic code, a small one says the acoustic codes of a frame.

transformers' classes hold the weights and the layers; labels, losses and generation are our own. The codec is the frontend's: it
is no part of what trains, so neither an adapter nor weight decay can reach it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CsmConfig, DynamicCache

from ttsadapt.backbones import official
from ttsadapt.backbones.base import Backbone, Batch, Request, Slot
from ttsadapt.backbones.csm_frontend import CsmFrontend
from ttsadapt.backbones.csm_parts import Llamas, check_fits, embed_codewords, layout, new_config
from ttsadapt.backbones.decoding import in_batches, least_risk
from ttsadapt.backbones.ending import tell
from ttsadapt.backbones.frames import causal, choose, level_tables, right_padded, uniforms, weights
from ttsadapt.backbones.knobs import Knob
from ttsadapt.backbones.official import Origin
from ttsadapt.backbones.parts import evaluating
from ttsadapt.backbones.pretrained import OfficialFolder, expect, write_folder
from ttsadapt.errors import CheckpointError, ConfigError
from ttsadapt.heads import Categorical, Heads

Watermark = Callable[[Tensor, int], Tensor]
"""(samples,), rate -> (samples,)"""


class Csm(Backbone):
    """Heads "semantic", every learnt frame, and "acoustic", the other codes of the frames that the frontend drew."""

    adaptable: ClassVar[tuple[str, ...]] = tuple(
        f"lm.{part}.layers.*.{kind}_proj"
        for part in ("backbone_model", "depth_decoder.model")
        for kind in (*(f"self_attn.{n}" for n in "qkvo"), *(f"mlp.{n}" for n in ("gate", "up", "down")))
    )
    components: ClassVar[dict[str, tuple[str, ...]]] = {
        "embedding": ("lm.embed_text_tokens.*", "lm.*.embed_tokens.*"),
        "backbone": ("lm.backbone_model.layers.*", "lm.backbone_model.norm.*", "lm.lm_head.*"),
        "decoder": (
            "lm.depth_decoder.model.layers.*", "lm.depth_decoder.model.norm.*", "lm.depth_decoder.model.inputs_embeds_projector.*",
            "lm.depth_decoder.codebooks_head.*",
        ),
    }  # fmt: skip

    frontend: CsmFrontend
    _origin: Origin | None = None
    _source: Path | None = None

    def __init__(
        self,
        frontend: CsmFrontend,
        hidden_size: int = 2048,
        intermediate_size: int = 8192,
        num_hidden_layers: int = 16,
        num_attention_heads: int = 32,
        num_key_value_heads: int = 8,
        depth_hidden_size: int = 1024,
        depth_intermediate_size: int = 8192,
        depth_num_hidden_layers: int = 4,
        depth_num_attention_heads: int = 8,
        depth_num_key_value_heads: int = 2,
        rope_theta: float = 5e5,
        semantic_weight: float = 31.0,
        acoustic_weight: float = 1.0,
        temperature: float = 0.9,
        acoustic_temperature: float = 0.9,
        top_k: int = 50,
        batch: int = 16,
        codec_embedding: bool = False,
        minimum_risk: bool = False,
        semantic_feedback: bool = False,
        watermark: Watermark | None = None,
        config: CsmConfig | None = None,
    ) -> None:
        """`frontend` is fitted or restored. Sizes are named as in transformers' CsmConfig and default to CSM-1B's.

        `semantic_weight`, `acoustic_weight`: of a single code; 31 to 1 gives either head half of the loss when there are 32 levels.
        `temperature`s of the two kinds of codes, 0: greedy. `top_k` 0: all codes. `batch`: utterances synthesised at once.
        `minimum_risk`: acoustic codes are the codewords nearest to the expected ones, instead of drawn; needs `reserve_end`,
        for a frame that ends the speech is one of codes 0 otherwise. `semantic_feedback`: of the frames that it says itself the
        model hears the semantic codes only, which it is surest of; of a context all. `codec_embedding`: a new model knows from
        the start which codewords sound alike. `watermark` is put on all that is synthesised; without one nothing is marked.
        `config`: a released model's own, the sizes above are then not looked at.
        """
        super().__init__()
        self.frontend, self.sample_rate = frontend, frontend.codec.sample_rate
        self.temperature, self.acoustic_temperature, self.top_k, self.batch = temperature, acoustic_temperature, top_k, batch
        self.watermark, self.minimum_risk, self.semantic_feedback = watermark, minimum_risk, semantic_feedback
        if minimum_risk and not frontend.shift:
            raise ConfigError("backbone.minimum_risk needs backbone.frontend.reserve_end=true")
        if config is None:
            depth = {
                "hidden_size": depth_hidden_size, "intermediate_size": depth_intermediate_size,
                "num_hidden_layers": depth_num_hidden_layers, "num_attention_heads": depth_num_attention_heads,
                "num_key_value_heads": depth_num_key_value_heads,
            }  # fmt: skip
            config = new_config(
                frontend, depth, rope_theta, hidden_size=hidden_size, intermediate_size=intermediate_size,
                num_hidden_layers=num_hidden_layers, num_attention_heads=num_attention_heads, num_key_value_heads=num_key_value_heads,
            )  # fmt: skip
        check_fits(config, frontend)
        self.lm = Llamas(config)
        self.levels = frontend.codec.levels
        self.sayable = frontend.codec.codewords + frontend.shift
        """ids from 0 that can be said: the codec's and the end; those beyond would break its decoder"""
        self.semantic_weight, self.acoustic_weight = weights(semantic_weight, acoustic_weight, self.levels)
        if codec_embedding:
            embed_codewords(self.lm, frontend)

    @property
    def knobs(self) -> dict[str, Knob]:
        drawn = {} if self.minimum_risk else {"acoustic_temperature": Knob("acoustic_temperature")}
        return {"temperature": Knob("temperature"), "top_k": Knob("top_k", whole=True), **drawn}

    @property
    def blocks(self) -> dict[str, dict[str, nn.Module]]:
        """The depth decoder's are not among them: they run over the codes of single frames."""
        return {"backbone": {str(i): layer for i, layer in enumerate(self.lm.backbone_model.layers)}}

    @property
    def slots(self) -> dict[str, Slot]:
        return {"backbone": Slot(self.lm.config.hidden_size, ("lm.backbone_model.layers.*.mlp",))}

    @property
    def peft_root(self) -> nn.Module:
        return self.lm

    def forward(self, batch: Batch) -> Heads:
        """The state before a frame says its semantic code, and with the codes so far, in the depth decoder, its acoustic ones."""
        states = self.lm.backbone_model(
            inputs_embeds=self.embedded(batch["text"], batch["codes"], self._heard(batch)),
            attention_mask=causal(batch["mask"]),
            position_ids=batch["positions"],
            use_cache=False,
        ).last_hidden_state.flatten(0, 1)  # (B * T, H)
        labels, length = batch["labels"].flatten(0, 1), batch["labels"].shape[1]
        at, deep = batch["semantic"], batch["acoustic"]
        spoken = Categorical(labels[at, 0], at // length, "semantic", self.semantic_weight, hidden=states[at - 1], project=self.lm.lm_head)
        codes = labels[deep]  # (F, K)
        row = (deep // length).repeat_interleave(self.levels - 1, output_size=len(deep) * (self.levels - 1))
        coloured = Categorical(
            codes[:, 1:].flatten(), row, "acoustic", self.acoustic_weight,
            hidden=self.deep_states(states[deep - 1], codes), project=self.project, together=self.levels - 1,
        )  # fmt: skip
        return {"semantic": spoken, "acoustic": coloured}

    def _heard(self, batch: Batch) -> Tensor | None:
        """Which codes are heard, (B, T, K) or (B, T, 1); None: all."""
        dropped = batch.get("heard") if self.training else None
        if not self.semantic_feedback:
            return dropped
        own = self.own(batch["labels"][..., :1] < 0)
        return own if dropped is None else own & dropped

    def own(self, context: Tensor) -> Tensor:
        """(B, T, 1) which frames are not the model's own -> (B, T, K) which codes it hears under `semantic_feedback`."""
        return context | (torch.arange(self.levels, device=context.device) == 0)

    def embedded(self, text: Tensor, codes: Tensor, heard: Tensor | None = None) -> Tensor:
        """(B, T), (B, T, K) -> (B, T, H): a row for a piece of text, the sum over levels for a frame, over those `heard` (B, T, K or 1)."""
        said = self.lm.embed_text_tokens(text.clamp_min(0))
        table = self.lm.backbone_model.embed_tokens
        if heard is None:
            sound = table(codes)
        else:
            sound = (table.embed_audio_tokens(codes + table.audio_tokens_offsets) * heard[..., None]).sum(2)
        return torch.where((text < 0)[..., None], sound, said)

    def deep_states(self, state: Tensor, codes: Tensor) -> Tensor:
        """(F, H) states before frames of (F, K) codes -> (F * (K - 1), D), state k of a frame predicts its code k + 1."""
        inputs = F.pad(codes[:, :-1], (1, 0))  # the first is a place for the backbone's state
        mask = causal(torch.ones_like(inputs[:1], dtype=torch.bool))
        output = self.lm.depth_decoder.model(input_ids=inputs, backbone_last_hidden_state=state, attention_mask=mask, use_cache=False)
        return output.last_hidden_state[:, 1:].flatten(0, 1)

    def project(self, hidden: Tensor) -> Tensor:
        """(F * (K - 1), D) of whole frames -> logits (F * (K - 1), V): every level has a head of its own."""
        by_level = hidden.unflatten(0, (-1, self.levels - 1)).transpose(0, 1)  # (K - 1, F, D)
        return torch.bmm(by_level, self.lm.depth_decoder.codebooks_head.weight).transpose(0, 1).flatten(0, 1)

    def block_mask(self, batch: Batch, group: str) -> Tensor:
        """Learnt frames, without the one that ends the speech."""
        labels = batch["labels"][..., 0]
        following = F.pad(labels[:, 1:], (0, 1), value=-1)
        return (labels >= 0) & (following >= 0)

    def resynthesize(self, audio: Tensor) -> Tensor:
        codec = self.frontend.codec
        return codec.decode_codes(codec.codes(audio.cpu()))

    def synthesize(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Tensor]:
        return in_batches(self, requests, self.batch, self.generate, lambda codes, _: self.sound(codes), progress)

    def sound(self, codes: Tensor) -> Tensor:
        """(frames, K) -> (samples,), marked when there is a watermark; a frame of silence when nothing was said."""
        codec = self.frontend.codec
        if len(codes) == 0:
            return torch.zeros(int(codec.sample_rate * codec.levels / codec.rate))
        audio = codec.decode_codes((codes - self.frontend.shift).clamp_min(0))
        return audio if self.watermark is None else self.watermark(audio, self.sample_rate)

    def generate(self, requests: Sequence[Request]) -> list[Tensor]:
        """(frames, K) codes for each request, sampled with key-value caches, without the frame that ends the speech.

        Every request draws its numbers from its own generator, so its draws do not depend on the others.
        """
        device = next(self.parameters()).device
        with evaluating(self), torch.inference_mode():
            prompts = [self.frontend.prompt(r) for r in requests]
            room = [self.most(len(r.phones), len(p["text"])) for r, p in zip(requests, prompts)]
            tables = level_tables(self.frontend.codec, device) if self.minimum_risk else None
            numbers = uniforms([r.seed for r in requests], max(room), self.levels, device)
            state, cache, mask, position = self._prefill(prompts, device)
            said: list[list[Tensor]] = [[] for _ in requests]
            active = list(range(len(requests)))
            for step in range(max(room)):
                frames = self.frame(state, numbers[active, step], tables)  # (B, K)
                ended = self.ends(frames).tolist()
                going = [k for k in range(len(active)) if not ended[k]]
                for k in going:
                    said[active[k]].append(frames[k])
                going = [k for k in going if step + 1 < room[active[k]]]
                if not going:
                    break
                if len(going) < len(active):
                    rows = torch.tensor(going, device=device)
                    cache.batch_select_indices(rows)
                    mask, frames, position, active = mask[rows], frames[rows], position[rows], [active[k] for k in going]
                mask, position = F.pad(mask, (0, 1), value=True), position + 1
                frames, speech = frames[:, None], torch.full_like(frames[:, :1], -1)
                heard = self.own(torch.zeros_like(frames[..., :1], dtype=torch.bool)) if self.semantic_feedback else None
                state = self.lm.backbone_model(
                    inputs_embeds=self.embedded(speech, frames, heard),
                    attention_mask=mask, position_ids=position[:, None], past_key_values=cache, use_cache=True,
                ).last_hidden_state[:, -1]  # fmt: skip
        tell(requests, map(len, said), room)
        none = torch.zeros(0, self.levels, dtype=torch.long)
        return [torch.stack(frames).cpu().clone() if frames else none for frames in said]

    def most(self, symbols: int, taken: int) -> int:
        """Frames that an utterance may get: half as slow again as anything that the frontend was fitted on, within the context."""
        return max(1, min(self.frontend.slowest(symbols), self.frontend.max_tokens - taken))

    def ends(self, frames: Tensor) -> Tensor:
        """(B, K) -> (B,) bool: all codes are 0; as in transformers, the last level is not looked at."""
        return (frames[:, : 1 if self.frontend.shift else -1] == 0).all(1)

    def frame(self, state: Tensor, numbers: Tensor, tables: Tensor | None = None) -> Tensor:
        """(B, H) states and (B, K) numbers -> (B, K) codes, one level after the other; `tables`: of `level_tables`, for minimum risk."""
        depth = self.lm.depth_decoder
        codes = [choose(self.lm.lm_head(state)[:, : self.sayable].float(), numbers[:, 0], self.temperature, self.top_k)]
        cache = DynamicCache(config=depth.config)
        inputs = F.pad(codes[0][:, None], (1, 0))
        for level in range(1, self.levels):
            first = state if level == 1 else None
            hidden = depth.model(
                input_ids=inputs, backbone_last_hidden_state=first, past_key_values=cache, use_cache=True
            ).last_hidden_state[:, -1]
            logits = (hidden @ depth.codebooks_head.weight[level - 1])[:, : self.sayable].float()
            if tables is not None:
                codes.append(least_risk(logits[:, self.frontend.shift :], tables[level]) + self.frontend.shift)
            else:
                codes.append(choose(logits, numbers[:, level], self.acoustic_temperature, self.top_k))
            inputs = codes[-1][:, None]
        return torch.stack(codes, 1)

    def _prefill(self, prompts: Sequence[dict[str, Tensor]], device: torch.device) -> tuple[Tensor, DynamicCache, Tensor, Tensor]:
        """States of the last prompt positions (B, H), the cache, which of its slots are filled (B, P), last positions (B,).

        Prompts are padded on the right, so slots between a prompt and its first frame stay empty and masked.
        """
        text, codes, positions = (right_padded([p[n] for p in prompts]).to(device) for n in ("text", "codes", "positions"))
        lengths = torch.tensor([len(p["text"]) for p in prompts], device=device)
        mask = torch.arange(text.shape[1], device=device) < lengths[:, None]
        cache = DynamicCache(config=self.lm.config)
        states = self.lm.backbone_model(
            inputs_embeds=self.embedded(text, codes), attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        last = torch.arange(len(prompts), device=device), lengths - 1
        return states[last], cache, mask, positions[last]

    @classmethod
    def load_official(  # type: ignore[override]
        cls,
        frontend: CsmFrontend,
        path: str,
        semantic_weight: float = 31.0,
        acoustic_weight: float = 1.0,
        temperature: float = 0.9,
        acoustic_temperature: float = 0.9,
        top_k: int = 50,
        batch: int = 16,
        watermark: Watermark | None = None,
    ) -> Self:
        """A folder in transformers' layout, such as sesame/csm-1b downloaded. The codec in it goes back as it came."""
        folder = Path(path).expanduser()
        config = CsmConfig.from_dict(expect(folder, "csm"))
        file = OfficialFolder(folder)
        speech: dict[str, Any] = {
            "semantic_weight": semantic_weight, "acoustic_weight": acoustic_weight, "temperature": temperature,
            "acoustic_temperature": acoustic_temperature, "top_k": top_k, "batch": batch, "watermark": watermark,
        }  # fmt: skip
        model = official.build(lambda: cls(frontend, config=config, **speech))
        model.lm.tie_weights()
        model._origin, model._source = official.load(model.lm, file, layout(file.shapes)), folder
        if watermark is None:
            print("csm: what this model says carries no watermark (Sesame's own generator marks its speech): backbone.watermark=<callable>")
        return model

    def save_official(self, path: Path) -> None:
        if self._origin is None:
            raise CheckpointError("only a CSM that came from a released folder goes back into one: this model's codec is no Mimi")
        state = official.save(self.lm, layout(self._origin.dtypes), self._origin)
        write_folder(state, self.lm.config, path, self._source)
