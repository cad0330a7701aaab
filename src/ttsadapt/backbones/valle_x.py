"""VALL-E X: EnCodec codes of a voice that goes on from a recording of it (Zhang et al. 2023, arXiv 2303.03926).

The first of eight levels is said by an autoregressive decoder, the others by one decoder that takes them stage by stage.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ttsadapt.backbones import official
from ttsadapt.backbones.base import Backbone, Batch, Request, Slot
from ttsadapt.backbones.decoding import Sampling, in_batches
from ttsadapt.backbones.ending import tell
from ttsadapt.backbones.frames import codeword_table
from ttsadapt.backbones.prefix_lm import Attention, packed
from ttsadapt.backbones.valle_x_frontend import VALLEXFrontend
from ttsadapt.backbones.valle_x_generate import generate
from ttsadapt.backbones.valle_x_parts import AR, ENDS, NAR
from ttsadapt.errors import CheckpointError, ConfigError
from ttsadapt.heads import Categorical, Heads

SIGNATURES = {"VALL-E X": ("nar_stage_embeddings.0.word_embeddings.weight", "ar_language_embedding.word_embeddings.weight")}
PARTS = ("ar", "nar")
OUTPUT = 0.04
"""standard deviation of a new output layer that is made from codewords: the first loss is near that of a uniform guess"""


class VALLEX(Backbone):
    """Text, then audio, in one row of positions; heads "ar" (first codes and the end) and "nar" (codes of one later level)."""

    frontend: VALLEXFrontend
    components: ClassVar[dict[str, tuple[str, ...]]] = {
        "ar_embeddings": ("ar.*_embedding.*", "ar.*_position.*", "ar.predict_layer.*"),
        "ar_decoder": ("ar.decoder.*",),
        "nar_embeddings": ("nar.*_embedding.*", "nar.*_embeddings.*", "nar.*_position.*", "nar.predict_layers.*"),
        "nar_decoder": ("nar.decoder.*",),
    }

    def __init__(
        self,
        frontend: VALLEXFrontend,
        width: int = 1024,
        layers: int = 12,
        heads: int = 16,
        hidden: int = 4096,
        phones: int = 2048,
        codewords: int = 1024,
        levels: int = 8,
        dropout: float = 0.1,
        parts: Sequence[str] = PARTS,
        initial: float = 1.0,
        codec_embedding: bool = False,
        alike: float = 0.0,
        minimum_risk: bool = False,
        sampling: Sampling | None = None,
        batch: int = 16,
    ) -> None:
        """Sizes default to the released model. `phones`: rows of the text tables. `parts`: what is trained, ar, nar or both.

        `initial`: standard deviation of new embeddings. `codec_embedding`: new tables of codes know which codewords sound alike.
        `alike`: a new model's keys are its queries, both times this, so that it begins by attending to what has a near position, as
        phones and their frames have with the frontend's `paced_positions`; 0: drawn apart.
        `minimum_risk`: later levels say the codeword nearest to the expected one, instead of the likeliest.
        `sampling`: of the first level. `batch`: utterances synthesised at once.
        """
        super().__init__()
        self.frontend, self.sample_rate = frontend, frontend.codec.sample_rate
        if not parts or set(parts) - set(PARTS):
            raise ConfigError(f"backbone.parts={list(parts)}: give ar, nar or both")
        if levels < 2 or (levels, codewords) != (frontend.codec.levels, frontend.codec.codewords):
            codec = frontend.codec
            raise ConfigError(
                f"backbone.levels={levels} and backbone.codewords={codewords} do not fit the codec, which has "
                f"{codec.levels} levels of {codec.codewords} codewords: make them equal (at least 2 levels)"
            )
        if frontend.text.size > phones:
            raise ConfigError(f"backbone.phones={phones}: the frontend has {frontend.text.size} symbols, give at least as many rows")
        self.ar = AR(phones, codewords, width, layers, heads, hidden, dropout)
        self.nar = NAR(phones, codewords, levels, width, layers, heads, hidden, dropout)
        self.parts = tuple(p for p in PARTS if p in parts)
        # Of the instance: adapters in a part that is not run would never get a gradient.
        linears = ("self_attn.query", "self_attn.key", "self_attn.value", "self_attn.out", "linear1", "linear2")
        self.adaptable = tuple(f"{part}.decoder.layers.*.{name}" for part in self.parts for name in linears)  # type: ignore[misc]
        self.sampling, self.batch = sampling or Sampling(window=10, share=0.3), batch
        self.minimum_risk = minimum_risk
        self.origin: official.Origin | None = None
        self._begin(initial)
        if codec_embedding:
            self._embed_codewords(initial)
        if alike:
            self._align(alike)

    @torch.no_grad()
    def _begin(self, std: float) -> None:
        """New tables, drawn with standard deviation 1, get this one. Some of them predict, too: the norm before makes up for it.

        Stages stay small: a step of an optimiser like Adam changes every weight of their projections alike.
        """
        norm, width = self.nar.decoder.norm, self.ar.predict_layer.in_features
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                module.weight.mul_(width**-0.5 if "stage_embeddings" in name else std)
        norm.get_submodule("project_layer").get_parameter("bias")[:width] = 1 / (std * width**0.5)

    @torch.no_grad()
    def _embed_codewords(self, std: float) -> None:
        """Tables in which codes lie as their codewords do: a new model need not learn a thousand of them one by one."""
        codec, width = self.frontend.codec, self.ar.audio_embedding.embedding_dim
        tables = std * codeword_table(codec.embedding(), codec.levels, width)
        self.ar.audio_embedding.weight[: codec.codewords] = tables[0]
        self.ar.predict_layer.weight[: codec.codewords] = OUTPUT * tables[0] / std
        for table, embedding in zip(tables, self.nar.audio_embeddings):
            embedding.get_parameter("weight")[: codec.codewords] = table

    @torch.no_grad()
    def _align(self, gain: float) -> None:
        """The scores of a head are then products of one projection: largest for equal vectors, which are mostly position."""
        for attention in self.modules():
            if isinstance(attention, Attention):
                attention.query.weight.mul_(gain)
                attention.key.load_state_dict(attention.query.state_dict())

    @property
    def blocks(self) -> dict[str, dict[str, nn.Module]]:
        """Of the parts that are trained; the first decoder last, for timing and intonation are its own: analyses take it by default."""
        decoders = {"nar": self.nar.decoder, "ar": self.ar.decoder}
        return {name: {str(i): layer for i, layer in enumerate(d.layers)} for name, d in decoders.items() if name in self.parts}

    @property
    def slots(self) -> dict[str, Slot]:
        return {part: Slot(self.ar.predict_layer.in_features, (f"{part}.decoder.layers.*.feed_dropout",)) for part in self.blocks}

    def forward(self, batch: Batch) -> Heads:
        """{"ar": first codes and the end, "nar": codes of level batch["stage"]}; the parts that are trained."""
        predict = {"ar": self._first_level, "nar": self._later_level}
        return {part: predict[part](batch) for part in self.parts}

    def _first_level(self, batch: Batch) -> Categorical:
        """The state at position p predicts frame p; after the last frame it predicts the end."""
        first, frames = batch["codes"][..., 0], batch["frames"]
        position = torch.arange(first.shape[1] + 1, device=first.device)
        said = torch.cat([first.new_full((len(first), 1), self.ar.begin), first], 1)  # (B, T + 1)
        text = self.ar.text(batch["phones"], batch["languages"], batch["positions"])
        audio = self.ar.audio(said, seen=batch.get("seen") if self.training else None)
        states = self.ar(text, batch["spoken"], audio, position <= frames[:, None])[:, text.shape[1] :]
        wanted = (position >= batch["prompt"][:, None]) & (position <= frames[:, None])
        row, at = wanted.nonzero(as_tuple=True)
        following = torch.cat([first, first[:, :1]], 1)[row, at]
        target = torch.where(at == frames[row], self.ar.end, following)
        return Categorical(target, row, "steps", 1 / len(self.parts), hidden=states[row, at], project=self.ar.predict_layer)

    def _later_level(self, batch: Batch) -> Categorical:
        shown, stage = batch["shown"], batch["stage"]
        text = self.nar.text(batch["phones"], batch["languages"], batch["positions"])
        audio = self.nar.audio(shown, stage, batch["known"])
        states = self.nar(text, batch["spoken"], audio, batch["heard"], stage)[:, text.shape[1] :]
        row, at = batch["wanted"].nonzero(as_tuple=True)
        weight = batch["scale"] / len(self.parts)
        project = self.nar.predict_layers[stage - 1]
        return Categorical(shown[row, at, stage], row, "frames", weight, hidden=states[row, at], project=project)

    def block_mask(self, batch: Batch, group: str) -> Tensor:
        """Frames of the utterance itself: neither text nor prompt."""
        text = torch.zeros_like(batch["spoken"])
        if group == "nar":
            return torch.cat([text, batch["wanted"]], 1)
        position = torch.arange(batch["codes"].shape[1] + 1, device=text.device)
        own = (position > batch["prompt"][:, None]) & (position <= batch["frames"][:, None])
        return torch.cat([text, own], 1)

    def resynthesize(self, audio: Tensor) -> Tensor:
        codec = self.frontend.codec
        return codec.decode_codes(codec.codes(audio.cpu()))

    def synthesize(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Tensor]:
        def said(part: Sequence[Request]) -> list[Tensor]:
            prompts = [self.frontend.prompt(request) for request in part]
            codes = generate(self, prompts)
            tell(part, map(len, codes), [prompt.most for prompt in prompts])
            return codes

        codec = self.frontend.codec
        return in_batches(self, requests, self.batch, said, lambda codes, _: codec.decode_codes(codes).clamp(-1, 1), progress)

    @classmethod
    def load_official(cls, frontend: VALLEXFrontend, path: str, heads: int = 16, **settings: Any) -> Self:  # type: ignore[override]
        """A VALL-E X checkpoint, `{"model": state_dict}` or a .safetensors file of the state dict.

        The number of attention heads is not in the file; `settings`: `parts`, `dropout`, `sampling`, `batch`.
        """
        file = official.OfficialFile(path, inside="model")
        sizes: dict[str, Any] = _sizes(file)
        model = official.build(lambda: cls(frontend, heads=heads, **sizes, **settings))
        model.nar.tie()  # an empty model is built parameter by parameter, which unties
        model.origin = official.load(model, file, layout(sizes["levels"]))
        return model

    def save_official(self, path: Path) -> None:
        """As `load_official` reads it: both names of a tied weight are written."""
        official.check_theirs({"backbone.frontend.paced_positions=false": self.frontend.pacing is not None})
        weights: dict[str, Any] = official.save(self, layout(self.nar.levels), self.origin)
        extras = self.origin.extras if self.origin else {}
        official.write(weights if Path(path).suffix == ".safetensors" else {"model": weights} | extras, path)


def place(name: str) -> official.Place:
    """Ours -> the authors': `ar.text_embedding.weight` -> `ar_text_embedding.word_embeddings.weight`."""
    theirs = name.replace(".", "_", 1)
    return packed(re.sub(r"(_embeddings?(?:\.\d+)?)\.weight$", r"\1.word_embeddings.weight", theirs))


def layout(levels: int) -> official.Layout:
    tied = {f"nar_predict_layers.{j}.weight": f"nar_audio_embeddings.{j + 2}.word_embeddings.weight" for j in range(levels - 2)}
    return official.Layout("VALL-E X", place, tied)


def _sizes(file: official.OfficialFile) -> dict[str, int]:
    """Constructor arguments, read off the shapes; CheckpointError when the file lacks those that tell."""
    telling = [
        "ar_text_embedding.word_embeddings.weight",
        "ar_audio_embedding.word_embeddings.weight",
        "ar_decoder.layers.0.linear1.weight",
    ]
    official.check_keys(file, set(telling), set(file.shapes), "VALL-E X")
    (phones, width), (rows, _), (hidden, _) = (_matrix(file, name) for name in telling)
    return {
        "width": width,
        "phones": phones,
        "hidden": hidden,
        "codewords": rows - ENDS,
        "layers": official.count_blocks(file.shapes, r"ar_decoder\.layers\.(\d+)\."),
        "levels": official.count_blocks(file.shapes, r"nar_audio_embeddings\.(\d+)\."),
    }


def _matrix(file: official.OfficialFile, name: str) -> tuple[int, ...]:
    if len(file.shapes[name]) != 2:
        raise CheckpointError(f"{file.path}: {name} has the shape {list(file.shapes[name])}, a VALL-E X has a matrix there")
    return file.shapes[name]
