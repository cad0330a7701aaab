"""EnCodec (Défossez et al. 2022, arXiv 2210.13438): 24 kHz speech as 75 frames a second of residual codes, through transformers.

The codec is no part of the model that is adapted: it stays on the CPU, frozen and in eval mode, whatever is trained.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from ttsadapt.data.utterance import Phone
from ttsadapt.errors import CheckpointError, ConfigError, DataError


class EncodecCodec:
    """`levels` codes for every frame, each level what the ones before it left. Whole utterances, no loudness normalisation."""

    def __init__(self, path: str = "facebook/encodec_24khz", bandwidth: float = 6.0) -> None:
        """`path`: a folder in transformers' layout, or a hub id. `bandwidth`: kbit a second (6 of the 24 kHz model: 8 levels).

        Nothing is read before it is needed.
        """
        self.path, self.bandwidth = path, bandwidth

    def __getstate__(self) -> dict[str, Any]:
        """Only where the weights are goes to worker processes."""
        return {"path": self.path, "bandwidth": self.bandwidth}

    @cached_property
    def config(self) -> EncodecConfig:
        try:
            config = EncodecConfig.from_pretrained(self.path)
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from error
        if getattr(config, "model_type", "") != "encodec" or config.audio_channels != 1 or config.normalize or config.chunk_length_s:
            raise CheckpointError(f"{self.path}: VALL-E X speaks through the mono 24 kHz EnCodec, this is another model: give that one")
        if self.bandwidth not in config.target_bandwidths:
            known = ", ".join(map(str, config.target_bandwidths))
            raise ConfigError(f"codec.bandwidth={self.bandwidth}: the EnCodec in {self.path} has {known} kbit a second")
        return config

    @property
    def sample_rate(self) -> int:
        return self.config.sampling_rate

    @property
    def codewords(self) -> int:
        return self.config.codebook_size

    @property
    def levels(self) -> int:
        """What fits into the bandwidth: a code takes the binary logarithm of `codewords` bits."""
        bits = (self.codewords - 1).bit_length()
        return max(1, int(1000 * self.bandwidth / (self.config.frame_rate * bits)))

    @property
    def rate(self) -> float:
        """Codes a second, over all levels."""
        return self.config.frame_rate * self.levels

    @cached_property
    def module(self) -> EncodecModel:
        try:
            return EncodecModel.from_pretrained(self.path, config=self.config, dtype=torch.float32).eval().requires_grad_(False)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unreachable(error) from error

    @torch.no_grad()
    def codes(self, audio: Tensor) -> Tensor:
        """(samples,) -> (frames, levels) long, the last frame as long as it is."""
        if audio.numel() == 0:
            return torch.zeros(0, self.levels, dtype=torch.long)
        encoded: Any = self.module.encode(audio.float()[None, None], bandwidth=self.bandwidth)
        return encoded.audio_codes[0, 0].T.contiguous()

    @torch.no_grad()
    def decode_codes(self, codes: Tensor) -> Tensor:
        """(frames, levels) -> (samples,) in [-1, 1]"""
        if len(codes) == 0:
            return torch.zeros(0)
        if not (int(codes.min()) >= 0 and int(codes.max()) < self.codewords):
            raise DataError(f"codes must be in 0..{self.codewords - 1}, these run from {int(codes.min())} to {int(codes.max())}")
        module: Any = self.module
        return module.decode(codes.T[None, None], [None]).audio_values[0, 0].clamp(-1, 1)

    @torch.no_grad()
    def embedding(self) -> Tensor:
        """(levels * codewords, D): the codeword of every code, each level centred and scaled to length 1 on average."""
        module: Any = self.module
        tables = [layer.codebook.embed for layer in module.quantizer.layers[: self.levels]]
        centred = [table - table.mean(0) for table in tables]
        return torch.cat([table / table.square().sum(1).mean().sqrt().clamp_min(1e-6) for table in centred])

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None:
        """Nothing is learnt; the recordings are gone through, for whoever counts them on the way."""
        for _ in recordings:
            pass

    def state(self) -> dict[str, Any]:
        return {"weights": self._hash, "bandwidth": self.bandwidth}

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when what was saved had been made with another EnCodec."""
        if state != self.state():
            raise CheckpointError(
                f"{self.path} at {self.bandwidth} kbit a second is not the EnCodec that the base was trained on "
                f"({state.get('bandwidth')} kbit a second): set backbone.frontend.codec to that one"
            )

    @cached_property
    def _hash(self) -> str:
        found = hashlib.blake2b()
        for name, tensor in sorted(self.module.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()[:12]

    def _unreachable(self, error: Exception) -> CheckpointError:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        return CheckpointError(
            f"{self.path}: neither a folder of EnCodec in transformers' layout nor a hub id that can be reached ({told})"
        )
