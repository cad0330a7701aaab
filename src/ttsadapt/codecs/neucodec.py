"""NeuCodec and X-codec 2 through transformers: 50 codes a second from one finite scalar quantiser (Mentzer et al. 2024).

One clip at a time in both directions: in a padded batch the GroupNorm of their ResNet blocks sees the padding, and the last
frames come out differently.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PreTrainedConfig

from ttsadapt.data.utterance import Phone
from ttsadapt.errors import CheckpointError, DataError

KINDS = ("neucodec", "xcodec2")
SHORTEST = 0.05
"""seconds: less is not even two filterbank frames"""


class NeuCodec:
    """Waveform <-> codes of one level."""

    levels = 1

    def __init__(self, path: str = "neuphonic/neucodec") -> None:
        """`path`: a folder in transformers' layout or a hub id; also "HKUSTAudio/xcodec2-hf". Nothing is read before it is needed."""
        self.path = str(path)

    def __getstate__(self) -> dict[str, Any]:
        """Only the path goes to worker processes."""
        return {"path": self.path}

    @cached_property
    def config(self) -> PreTrainedConfig:
        config = self._read(AutoConfig.from_pretrained)
        if config.model_type not in KINDS:
            raise CheckpointError(f"{self.path}: this looks like a {config.model_type}, not a {' or '.join(KINDS)}")
        return config

    @cached_property
    def model(self) -> Any:
        _ = self.config  # refuses another kind of model before its weights are read
        return self._read(AutoModel.from_pretrained).eval().requires_grad_(False)

    @cached_property
    def extractor(self) -> Any:
        return self._read(AutoFeatureExtractor.from_pretrained)

    @property
    def input_rate(self) -> int:
        return self.extractor.sampling_rate

    @property
    def sample_rate(self) -> int:
        return getattr(self.config, "output_sampling_rate", None) or self.config.sampling_rate

    @property
    def tokens(self) -> int:
        return prod(self.config.quantization_levels)

    @property
    def rate(self) -> float:
        return self.input_rate / self.hop

    @property
    def hop(self) -> int:
        """Samples of a code at the input rate."""
        return prod(self.config.downsampling_ratios)

    def allowed(self, position: int) -> range:
        return range(self.tokens)

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None:
        """Pretrained: there is nothing to learn, and no recording is looked at."""

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """(samples,) at `input_rate` -> (samples // hop,) long: the frame that the extractor pads at the end is cut off.

        A model that is trained on that frame learns to end every sentence with it. DataError when the clip is too short.
        """
        if len(audio) < SHORTEST * self.input_rate:
            raise DataError(f"a recording of {len(audio) / self.input_rate:.3f} s is too short to be coded: {SHORTEST:g} s is the least")
        inputs = self.extractor(audio=audio.cpu().float().numpy(), sampling_rate=self.input_rate, return_tensors="pt")
        return self.model.encode(**inputs).audio_codes[0, 0, : len(audio) // self.hop].long()

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """(S,) -> (samples,) in [-1, 1] at `sample_rate`."""
        if len(tokens) == 0:
            return torch.zeros(0)
        codes = tokens if len(tokens) > 1 else tokens.repeat(2)  # one frame alone cannot be normalised
        audio = self.model.decode(audio_codes=codes[None, None].to(torch.int32)).audio_values[0, 0]
        return audio[: round(len(tokens) * self.sample_rate / self.rate)].float().clamp(-1, 1)

    def embedding(self) -> Tensor:
        """(tokens, dimensions): the quantiser's level in each dimension, from -1 to 1; the first dimension counts fastest."""
        rest, columns = torch.arange(self.tokens), []
        for levels in self.config.quantization_levels:
            columns.append((rest % levels) * 2 / (levels - 1) - 1)
            rest = rest // levels
        return torch.stack(columns, dim=1)

    def state(self) -> dict[str, Any]:
        return {"path": self.path}

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when codes were made by another codec than the config names."""
        if state["path"] != self.path:
            raise CheckpointError(
                f"the base was trained on codes of {state['path']}, backbone.frontend.codec.path is {self.path}: use that one"
            )

    def _read(self, how: Any) -> Any:
        try:
            return how(self.path)
        except Exception as error:  # OSError, ValueError, ImportError, the hub's own
            told = str(error).strip().splitlines()
            raise CheckpointError(
                f"{self.path}: no codec can be read there ({told[0][:120] if told else type(error).__name__}): "
                "give the folder of a NeuCodec in transformers' layout, or its hub id"
            ) from error
