"""GPT-SoVITS's own codec: chinese-hubert-base and the quantiser of an s2G file one way, its synthesiser the other."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import HubertModel

from ttsadapt.backbones.gpt_sovits.s2 import Quantizer, Synthesiser
from ttsadapt.backbones.gpt_sovits.s2_file import CODEBOOK, S2File
from ttsadapt.data.pcm import resample
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import CheckpointError, DataError
from ttsadapt.files import content_hash

HUBERT_RATE = 16000
N_FFT, HOP = 2048, 640
"""of the linear spectrogram that a voice is read from (configs/s2.json)"""
SHORTEST = 0.1
"""seconds: less is no two frames of HuBERT"""


class SovitsCodec:
    """32 kHz waveform <-> 25 semantic tokens a second; the voice is the style vector of a recording."""

    sample_rate, rate = 32000, 25.0

    def __init__(self, path: str, hubert: str = "TencentGameMate/chinese-hubert-base", noise: float = 0.5) -> None:
        """`path`: an s2G*.pth or a fine-tuned SoVITS file; of v1 and v2 it also decodes. `hubert`: a folder or hub id. `noise`: scale
        of what is drawn when speech is made. Nothing is read before it is needed; only this goes to worker processes.
        """
        self.path, self.hubert, self.noise = str(path), str(hubert), noise

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "hubert": self.hubert, "noise": self.noise}

    @cached_property
    def _parts(self) -> tuple[Quantizer, Synthesiser | None]:
        file = S2File(self.path)
        if file.version is None:
            whole = file.synthesiser()
            return whole.quantizer, whole
        codewords, semantic = file.tensor(CODEBOOK).shape
        quantizer = Quantizer(semantic, codewords)
        file.fill(quantizer, "quantizer")
        return quantizer, None

    @cached_property
    def _hubert(self) -> HubertModel:
        try:
            return HubertModel.from_pretrained(self.hubert).eval().requires_grad_(False)
        except (OSError, ValueError) as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"codec.hubert={self.hubert} cannot be read ({told[0][:120]}): give chinese-hubert-base as folder or hub id"
            ) from error

    @property
    def synthesiser(self) -> Synthesiser:
        """CheckpointError, of one line, for files whose decoder is another model."""
        return self._parts[1] or S2File(self.path).synthesiser()

    @property
    def tokens(self) -> int:
        return self._parts[0].codebook.num_embeddings

    @property
    def voice_size(self) -> int:
        return self._parts[1].sizes.voice if self._parts[1] else 0

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None:
        """Pretrained: there is nothing to learn."""

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """(samples,) -> (S,) long. DataError when it is too short."""
        self._check(audio)
        heard = torch.from_numpy(resample(audio.cpu().float().numpy(), self.sample_rate, HUBERT_RATE))
        return self._parts[0](self._hubert(heard[None]).last_hidden_state)

    @torch.no_grad()
    def voice(self, audio: Tensor) -> Tensor:
        """(samples,) -> (voice_size,); empty when the file's decoder is another model."""
        self._check(audio)
        synthesiser = self._parts[1]
        return synthesiser.ref_enc(spectrogram(audio.cpu())[None, : synthesiser.sizes.bins])[0] if synthesiser else torch.zeros(0)

    @torch.no_grad()
    def decode(self, tokens: Tensor, voice: Tensor, phones: Tensor | None = None, seed: int = 0) -> Tensor:
        """(S,), (voice_size,) and (P,) rows of the phones -> (samples,), 1280 a token; noise is drawn from `seed`.

        Without phones the tokens speak for themselves, which sounds less clear: there is no text to a recording's resynthesis.
        """
        synthesiser = self.synthesiser
        if not len(tokens):
            return torch.zeros(0)
        if phones is not None and int(phones.max()) >= synthesiser.sizes.phones:
            raise CheckpointError(
                f"{self.path} knows {synthesiser.sizes.phones} phones, backbone.frontend.symbols has more: s1 and s2 must be of one version"
            )
        generator = torch.Generator().manual_seed(seed)
        noise = self.noise * torch.randn(1, synthesiser.sizes.latent, 2 * len(tokens), generator=generator)
        return synthesiser(tokens, phones, voice, noise)

    def embedding(self) -> Tensor:
        return self._parts[0].codebook.weight.detach()

    def state(self) -> dict[str, Any]:
        return {"s2": content_hash(Path(self.path).expanduser()), "hubert": self.hubert}

    def restore(self, state: dict[str, Any]) -> None:
        if state != self.state():
            raise CheckpointError(
                f"the saved frontend was made with another s2 file or HuBERT than {self.path} and {self.hubert}: use those"
            )

    def _check(self, audio: Tensor) -> None:
        if len(audio) < SHORTEST * self.sample_rate:
            raise DataError(f"a recording of {len(audio) / self.sample_rate:.3f} s is too short to be coded: {SHORTEST:g} s is the least")


def spectrogram(audio: Tensor) -> Tensor:
    """(samples,) at 32 kHz -> (1025, frames) magnitudes (module/mel_processing.py)."""
    edge = (N_FFT - HOP) // 2
    padded = F.pad(audio[None, None], (edge, edge), mode="reflect")[0, 0]
    spectrum = torch.stft(padded, N_FFT, HOP, window=torch.hann_window(N_FFT), center=False, return_complex=True)
    return (spectrum.abs().square() + 1e-8).sqrt()
