"""Files of GPT-SoVITS's second stage: where their weights go, and how they are read without running the code inside them.

They pickle an object of the authors' `utils.HParams`, and newer ones begin with two digits in the place of a zip file's "PK".
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ttsadapt.backbones.gpt_sovits.s2 import S2Sizes, Synthesiser
from ttsadapt.backbones.official import count_blocks, recognise
from ttsadapt.errors import CheckpointError

FAMILY = "GPT-SoVITS s2"
SIGNATURES = {FAMILY: ("enc_p.text_embedding.weight", "quantizer.vq.layers.0._codebook.embed", "ssl_proj.weight")}
MAGIC = b"PK"
LATER = {"sv_emb.weight": "v2Pro", "bridge.0.weight": "v3 or v4"}
"""keys that give away a version whose decoder is another model"""
CODEBOOK = "quantizer.vq.layers.0._codebook.embed"


class Settings:
    """Stands for `utils.HParams`: attributes and nothing else."""


_RULES: tuple[tuple[str, str], ...] = (
    (r"quantizer\.ssl_proj\.", "ssl_proj."),
    (r"quantizer\.codebook\.weight", "quantizer.vq.layers.0._codebook.embed"),
    (r"token_proj\.", "enc_p.ssl_proj."),
    (r"(text_embedding|proj)\.", r"enc_p.\1."),
    (r"mrte\.(query|key|value|out)\.", r"enc_p.mrte.cross_attention.conv_\1."),
    (r"mrte\.", "enc_p.mrte."),
    (r"(encoder_ssl|encoder_text|encoder2)\.layers\.(\d+)\.attention\.(emb_rel_[kv])", r"enc_p.\1.attn_layers.\2.\3"),
    (r"(encoder_ssl|encoder_text|encoder2)\.layers\.(\d+)\.attention\.(\w+)_proj\.", r"enc_p.\1.attn_layers.\2.conv_\3."),
    (r"(encoder_ssl|encoder_text|encoder2)\.layers\.(\d+)\.layer_norm\.", r"enc_p.\1.norm_layers_1.\2."),
    (r"(encoder_ssl|encoder_text|encoder2)\.layers\.(\d+)\.final_layer_norm\.", r"enc_p.\1.norm_layers_2.\2."),
    (r"(encoder_ssl|encoder_text|encoder2)\.layers\.(\d+)\.feed_forward\.", r"enc_p.\1.ffn_layers.\2."),
    (r"flow\.flows\.(\d+)\.conv_(pre|post)\.", r"flow.flows.#\1.\2."),
    (r"flow\.flows\.(\d+)\.wavenet\.", r"flow.flows.#\1.enc."),
    (r"dec\.upsampler\.", "dec.ups."),
    (r"dec\.", "dec."),
    (r"ref_enc\.spectral\.0\.", "ref_enc.spectral.0.fc."),
    (r"ref_enc\.spectral\.1\.", "ref_enc.spectral.3.fc."),
    (r"ref_enc\.temporal\.(\d)\.", r"ref_enc.temporal.\1.conv1.conv."),
    (r"ref_enc\.(query|key|value)\.", r"ref_enc.slf_attn.w_\1s."),
    (r"ref_enc\.join\.", "ref_enc.slf_attn.fc."),
    (r"ref_enc\.out\.", "ref_enc.fc.fc."),
)
_LETTERS = {"query": "q", "key": "k", "value": "v", "out": "o"}


def theirs(name: str) -> str:
    """Our parameter's name -> the authors'."""
    for pattern, into in _RULES:
        found, n = re.subn(f"^{pattern}", into, name)
        if n:
            found = re.sub(r"(conv_|w_)(query|key|value|out)", lambda m: m[1] + _LETTERS[m[2]], found)
            if "norm_layers" in found:
                found = found.replace("weight", "gamma").replace("bias", "beta")
            return re.sub(r"#(\d+)", lambda m: str(2 * int(m[1])), found)  # flips stand between the flows
    raise KeyError(name)


class S2File:
    """An s2G file: its weights in half or single precision, its settings."""

    def __init__(self, path: str) -> None:
        """CheckpointError when there is no such file, when it is cut short or another family's."""
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise CheckpointError(
                f"{self.path}: there is no such file; backbone.frontend.codec.path is an s2G*.pth or a fine-tuned SoVITS file"
            )
        whole = self._whole()
        weights = whole.get("weight") if isinstance(whole, dict) else None
        if not isinstance(weights, dict):
            raise CheckpointError(f"{self.path}: no 'weight' in it: it is not a {FAMILY} file")
        self.weights: dict[str, Tensor] = {k: v for k, v in weights.items() if isinstance(v, Tensor)}
        self.settings = _plain(whole.get("config"))
        self.version = next((version for key, version in LATER.items() if key in self.weights), None)
        """of a decoder that is not this module's; None for v1 and v2"""

    def _whole(self) -> Any:
        with open(self.path, "rb") as file:
            renamed = file.read(len(MAGIC)).isdigit()
            rest = file.read() if renamed else b""
        source: Any = io.BytesIO(MAGIC + rest) if renamed else self.path
        try:
            with torch.serialization.safe_globals([(Settings, "utils.HParams")]):
                return torch.load(source, map_location="cpu", weights_only=True, mmap=None if renamed else _is_zip(self.path))
        except Exception as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"{self.path} cannot be read as tensors and settings ({told[0][:120]}): it is cut short or no {FAMILY} file"
            ) from error

    def require(self, names: Iterable[str]) -> None:
        missing = sorted(n for n in names if n not in self.weights)
        if missing:
            seen = recognise(self.weights)
            if seen and seen[0] != FAMILY:
                raise CheckpointError(f"{self.path}: this looks like a {seen[0]}, not a {FAMILY}: key {seen[1]}")
            raise CheckpointError(f"{self.path} is not a whole {FAMILY}: {len(missing)} keys are missing: {', '.join(missing[:5])}")

    def tensor(self, name: str) -> Tensor:
        """In single precision, length and direction of a normalised weight multiplied out."""
        stem = name.removesuffix(".weight")
        if name not in self.weights and f"{stem}.weight_v" in self.weights:
            self.require([f"{stem}.weight_g"])
            return torch._weight_norm(self.weights[f"{stem}.weight_v"].float(), self.weights[f"{stem}.weight_g"].float(), 0)
        self.require([name])
        return self.weights[name].float()

    def fill(self, module: nn.Module, prefix: str = "") -> None:
        """Parameters of `module`, which is called `prefix` in a Synthesiser."""
        for name, parameter in module.named_parameters(prefix):
            tensor = self.tensor(theirs(name))
            if tensor.numel() != parameter.numel():
                raise CheckpointError(
                    f"{self.path}: {theirs(name)} has the shape {list(tensor.shape)}, a {FAMILY} of this size {list(parameter.shape)}"
                )
            with torch.no_grad():
                parameter.copy_(tensor.view_as(parameter))  # a convolution of width 1 is a linear layer
        module.eval().requires_grad_(False)

    def sizes(self) -> S2Sizes:
        """CheckpointError for versions whose decoder is another model."""
        if self.version:
            raise CheckpointError(
                f"{self.path} is a {self.version} file: its tokens can be used, but only v1 and v2 files can be decoded; give an s2G of v2"
            )
        model = self.settings.get("model", {})
        default = S2Sizes(0, 0)
        return S2Sizes(
            phones=self._size("enc_p.text_embedding.weight", 0),
            bins=self._size("ref_enc.spectral.0.fc.weight", 1),
            width=self._size("enc_p.ssl_proj.weight", 0),
            semantic=self._size("enc_p.ssl_proj.weight", 1),
            latent=self._size("enc_p.proj.weight", 0) // 2,
            filter=self._size("enc_p.encoder_text.ffn_layers.0.conv_1.weight", 0),
            kernel=self._size("enc_p.encoder_text.ffn_layers.0.conv_1.weight", 2),
            layers=count_blocks(self.weights, r"enc_p\.encoder_text\.attn_layers\.(\d+)\."),
            voice=self._size("enc_p.mrte.c_pre.weight", 0),
            codewords=self._size(CODEBOOK, 0),
            upsample_width=self._size("dec.conv_pre.weight", 0),
            heads=int(model.get("n_heads", default.heads)),
            upsample_rates=tuple(model.get("upsample_rates", default.upsample_rates)),
            upsample_kernels=tuple(model.get("upsample_kernel_sizes", default.upsample_kernels)),
            resblock_kernels=tuple(model.get("resblock_kernel_sizes", default.resblock_kernels)),
            resblock_dilations=tuple(map(tuple, model.get("resblock_dilation_sizes", default.resblock_dilations))),
        )

    def _size(self, name: str, axis: int) -> int:
        self.require([name])
        return int(self.weights[name].shape[axis])

    def synthesiser(self) -> Synthesiser:
        made = Synthesiser(self.sizes())
        self.fill(made)
        return made


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _plain(value: Any) -> Any:
    """Settings as plain containers; {} for none."""
    if isinstance(value, Settings):
        value = vars(value)
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value if value is not None else {}
