"""Log-mel frames -> waveform by a released HiFi-GAN (Kong et al. 2020), through speechbrain."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ttsadapt.codecs.speechbrain_hub import from_speechbrain
from ttsadapt.errors import CheckpointError


class HiFiGAN:
    """Not a module of the backbone: it is neither trained nor saved with it. Loaded when it is first needed.

    HyperTTS speaks through speechbrain/tts-hifigan-libritts-16kHz, whose mel is that of `codecs.mel` (80 Slaney bands of the
    magnitude up to 8 kHz, natural logarithm, floor 1e-5).
    """

    def __init__(self, source: str = "speechbrain/tts-hifigan-libritts-16kHz", n_mels: int = 80) -> None:
        """`source`: a hub id or a folder with hyperparams.yaml; `n_mels`: of the frames it takes."""
        self.source, self.n_mels = source, n_mels

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "generator"}

    @cached_property
    def generator(self) -> Any:
        model = from_speechbrain("speechbrain.inference.vocoders", "HIFIGAN", self.source)
        generator = model.hparams.generator.eval().requires_grad_(False)
        if (taken := generator.conv_pre.conv.in_channels) != self.n_mels:
            raise CheckpointError(f"{self.source} takes frames of {taken} bands, the backbone makes {self.n_mels}: choose another vocoder")
        generator.remove_weight_norm()
        return generator

    @torch.no_grad()
    def __call__(self, mel: Tensor) -> Tensor:
        """(frames, n_mels) nats -> (samples,) in [-1, 1] on the frames' device. Frames are spoken one clip at a time: the
        convolutions at its ends would hear the padding of a batch."""
        generator = self.generator.to(mel.device)
        return generator.inference(mel.T[None].float(), padding=False)[0, 0].clamp(-1, 1)
