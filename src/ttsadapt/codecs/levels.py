"""What codecs of several levels share: codes (steps, levels) <-> one row of tokens, and mels <-> waveforms."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.errors import DataError


class LevelTokens(ABC):
    """Code c of level l is token l * codewords + c; the levels of a step follow each other."""

    codewords: int
    mel: MelSpectrogram
    vocoder: GriffinLim

    @property
    @abstractmethod
    def levels(self) -> int: ...

    @abstractmethod
    def codes(self, audio: Tensor) -> Tensor:
        """(samples,) -> (steps, levels) long, each in 0 .. codewords - 1."""

    @abstractmethod
    def decode_mel(self, codes: Tensor) -> Tensor:
        """(steps, levels) -> (frames, n_mels) nats; of fewer levels than there are, what the first ones say."""

    @property
    def sample_rate(self) -> int:
        return self.mel.sample_rate

    @property
    def tokens(self) -> int:
        """How many different tokens there are."""
        return self.levels * self.codewords

    def allowed(self, position: int) -> range:
        """Tokens that can stand at this position of an utterance."""
        level = position % self.levels
        return range(level * self.codewords, (level + 1) * self.codewords)

    def encode(self, audio: Tensor) -> Tensor:
        """(samples,) -> (steps * levels,) long; the length is rounded to the nearest whole step."""
        return (self.codes(audio) + torch.arange(self.levels) * self.codewords).flatten()

    def decode(self, tokens: Tensor) -> Tensor:
        """(steps * levels,) -> (samples,) in [-1, 1]; tokens after the last whole step are ignored.

        DataError when a token stands where one of another level must be.
        """
        codes = tokens[: len(tokens) // self.levels * self.levels].view(-1, self.levels) - torch.arange(self.levels) * self.codewords
        if len(codes) and not (int(codes.min()) >= 0 and int(codes.max()) < self.codewords):
            raise DataError(f"speech tokens are out of turn: position p must hold a token of level p % {self.levels}")
        return self.decode_codes(codes)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """(steps, levels) -> (samples,); silence when it is too short for one window of the vocoder."""
        mel = self.decode_mel(codes)
        samples = max(0, len(mel) - 1) * self.mel.hop
        return self.vocoder(mel) if samples > self.mel.n_fft // 2 else torch.zeros(samples)
