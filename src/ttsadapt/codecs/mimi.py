"""Mimi (Défossez et al. 2024, section 3.3): 24 kHz speech as 12.5 frames a second of up to 32 residual codes, through transformers.

The codec is no part of the model that is adapted: it stays on the CPU, frozen and in eval mode, whatever is trained.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MimiConfig, MimiModel

from ttsadapt.backbones.pretrained import OfficialFolder, read_config
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import CheckpointError, ConfigError, DataError

INSIDE = {"csm": ("codec_config", "codec_model."), "moshi": ("audio_encoder_config", "audio_encoder.")}
"""models that have Mimi in them: where its config is in theirs, and how its tensors begin"""


class MimiCodec:
    """`levels` codes for every frame; level 0 is the semantic one, the others what it left."""

    def __init__(self, path: str, levels: int = 32) -> None:
        """`path`: a folder in transformers' layout that holds Mimi, CSM or Moshi, or a hub id of Mimi such as kyutai/mimi.

        Nothing is read before it is needed.
        """
        self.path, self.levels = path, levels

    def __getstate__(self) -> dict[str, Any]:
        """Only the path goes to worker processes."""
        return {"path": self.path, "levels": self.levels}

    @cached_property
    def config(self) -> MimiConfig:
        config = self._config()
        if not 1 <= self.levels <= config.num_quantizers:
            raise ConfigError(f"codec.levels={self.levels}: the Mimi in {self.path} has 1 to {config.num_quantizers}")
        return config

    @property
    def sample_rate(self) -> int:
        return self.config.sampling_rate

    @property
    def codewords(self) -> int:
        return self.config.codebook_size

    @property
    def rate(self) -> float:
        """Codes a second, over all levels."""
        return self.config.frame_rate * self.levels

    @cached_property
    def module(self) -> MimiModel:
        """CheckpointError when its codebooks are empty: every frame would then be the end of speech."""
        model = (self._whole() if self._kind in (None, "mimi") else self._part()).eval().requires_grad_(False)
        empty = [n for n, b in model.named_buffers() if n.endswith("codebook.embed_sum") and not b.any()]
        if empty:
            raise CheckpointError(f"{self.path}: the codebooks of Mimi are all zero ({empty[0]}): its weights were never loaded or trained")
        return model

    @torch.no_grad()
    def codes(self, audio: Tensor) -> Tensor:
        """(samples,) -> (frames, levels) long. One clip at a time: padding would change what the codec hears."""
        encoded = self.module.encode(audio.float()[None, None], num_quantizers=self.levels)
        return encoded.audio_codes[0].T.contiguous()

    @torch.no_grad()
    def decode_codes(self, codes: Tensor) -> Tensor:
        """(frames, levels) -> (samples,) in [-1, 1]. DataError when an id is none of Mimi's: models know a few more."""
        if len(codes) == 0:
            return torch.zeros(0)
        if not (int(codes.min()) >= 0 and int(codes.max()) < self.codewords):
            raise DataError(
                f"codes must be in 0..{self.codewords - 1}, these reach {int(codes.max())}: suppress the ids beyond while sampling"
            )
        return self.module.decode(codes.T[None]).audio_values[0, 0].clamp(-1, 1)

    def embedding(self) -> Tensor:
        """(levels * codewords, D): the codeword of every code."""
        quantizer = self.module.quantizer
        stacks = (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer)
        books: list[Any] = [level.codebook for stack in stacks for level in stack.layers]
        return torch.cat([book.embed for book in books[: self.levels]])

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None:
        """Nothing is learnt; the recordings are gone through, for whoever counts them on the way."""
        for _ in recordings:
            pass

    def state(self) -> dict[str, Any]:
        return {"weights": self._hash, "levels": self.levels}

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when what was saved had been made with another Mimi."""
        if state != self.state():
            raise CheckpointError(f"{self.path}: this is not the Mimi, or not the {state['levels']} levels, that the base was trained on")

    @cached_property
    def _hash(self) -> str:
        found = hashlib.blake2b()
        for name, tensor in sorted(self.module.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()[:12]

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    @cached_property
    def _kind(self) -> str | None:
        """`model_type` of the folder; None for a hub id."""
        if not self._folder.is_dir():
            return None
        kind = read_config(self._folder)["model_type"]
        if kind != "mimi" and kind not in INSIDE:
            raise CheckpointError(f"{self.path}: this looks like a {kind}, which has no Mimi in it: give a folder of Mimi, CSM or Moshi")
        return kind

    def _config(self) -> MimiConfig:
        if self._kind in INSIDE:
            return MimiConfig.from_dict(read_config(self._folder)[INSIDE[self._kind][0]])
        try:
            return MimiConfig.from_pretrained(self.path)
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from error

    def _whole(self) -> MimiModel:
        try:
            return MimiModel.from_pretrained(self.path, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from error

    def _part(self) -> MimiModel:
        file, prefix = OfficialFolder(self._folder), INSIDE[str(self._kind)][1]
        names = [n for n in file.shapes if n.startswith(prefix)]
        if not names:
            raise CheckpointError(f"{self.path}: no key begins with {prefix}: Mimi was left out of this {self._kind}")
        weights = {n.removeprefix(prefix): t.clone() for n, t in file.tensors(names)}
        return MimiModel.from_pretrained(None, config=self._config(), state_dict=weights, dtype=torch.float32)

    def _unreachable(self, error: Exception) -> CheckpointError:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        return CheckpointError(f"{self.path}: neither a folder of Mimi, CSM or Moshi nor a hub id that can be reached ({told})")
