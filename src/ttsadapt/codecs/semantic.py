"""One token for 40 ms that says what is spoken and how, but not by whom.

The embedded stand-in for the supervised tokens of CosyVoice (S3) and the HuBERT tokens of GPT-SoVITS. Frames are taken
relative to their recording's mean and the decoder is told whose voice it is, so a token need not say it (a decoder that is not told
speaks relative to the mean); where the corpus has phone times, tokens are also made to tell the phones.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.bars import Bar
from ttsadapt.codecs.convolutions import ChannelNorm, ResidualUnit, cut
from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.codecs.vq import VectorQuantiser
from ttsadapt.codecs.warping import warped
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import CheckpointError, DataError
from ttsadapt.reproducible import reproducible
from ttsadapt.text.phones import split_stress

STRIDE = 2
"""frames of 20 ms in a token"""
SEGMENT, BATCH = 48, 32
"""frames of a training example, and examples of an optimiser step"""
COMMITMENT, PHONES = 0.25, 0.3
"""weights of the losses beside the mel's"""


class Network(nn.Module):
    """Relative mel -> latents of 25 Hz -> mel in a voice, and phones."""

    def __init__(self, n_mels: int, voice: int, codewords: int, latent: int, width: int, phones: int) -> None:
        """`voice`: size of the vector that the decoder is told; 0: it is told none."""
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(n_mels, width, 5, padding=2),
            ResidualUnit(width),
            nn.Conv1d(width, width, STRIDE + 2, stride=STRIDE, padding=1),
            ResidualUnit(width),
            ResidualUnit(width),
            ChannelNorm(width),
            nn.Conv1d(width, latent, 1),
        )
        self.symbols = phones
        self.quantiser = VectorQuantiser(codewords, latent)
        self.voice = nn.Linear(voice, width) if voice else None
        self.opening = nn.Conv1d(latent, width, 3, padding=1)
        self.body = nn.Sequential(*(ResidualUnit(width) for _ in range(3)))
        self.unfold = nn.Conv1d(width, width * STRIDE, 1)
        self.closing = nn.Sequential(ResidualUnit(width), ResidualUnit(width), ChannelNorm(width), nn.Conv1d(width, n_mels, 1))
        self.phones = nn.Sequential(nn.Conv1d(latent, width, 3, padding=1), nn.GELU(), nn.Conv1d(width, STRIDE * phones, 1))

    def encode(self, mel: Tensor) -> Tensor:
        """(B, T, n_mels), T even -> (B, T / 2, D)"""
        return self.encoder(mel.mT).mT

    def decode(self, latent: Tensor, voice: Tensor | None) -> Tensor:
        """(B, S, D), (B, E) -> (B, 2 S, n_mels)"""
        x = self.opening(latent.mT)
        if self.voice is not None:
            if voice is None:
                raise DataError("this codec's tokens do not say whose voice it is: decode(tokens, voice)")
            x = x + self.voice(voice)[..., None]
        return self.closing(_unfolded(self.unfold(self.body(x)))).mT

    def spoken(self, latent: Tensor) -> Tensor:
        """(B, S, D) -> (B, 2 S, phones) logits"""
        return _unfolded(self.phones(latent.mT)).mT


def _unfolded(x: Tensor) -> Tensor:
    """(B, 2 C, S) -> (B, C, 2 S)"""
    return x.unflatten(1, (-1, STRIDE)).transpose(2, 3).flatten(2)


class SemanticCodec:
    """Waveform -> tokens 0 .. codewords - 1 at 25 Hz; tokens and a voice -> waveform."""

    levels = 1

    def __init__(
        self,
        codewords: int = 1024,
        latent: int = 32,
        width: int = 128,
        steps: int = 1200,
        lr: float = 2e-3,
        seed: int = 0,
        mel: MelSpectrogram | None = None,
        vocoder: GriffinLim | None = None,
        voiced: bool = True,
    ) -> None:
        """`steps`, `lr`: how it is fitted. `mel` has frames of 20 ms. `voiced`: whether the decoder is told a voice."""
        self.mel = mel or MelSpectrogram(hop=320)
        if self.mel.hop * 50 != self.mel.sample_rate:
            raise DataError(f"codec.mel.hop={self.mel.hop} is not 20 ms at {self.mel.sample_rate} Hz: take {self.mel.sample_rate // 50}")
        self.vocoder = vocoder or GriffinLim(self.mel)
        self.codewords, self.latent, self.width, self.steps, self.lr, self.seed = codewords, latent, width, steps, lr, seed
        self.voice_size = 2 * self.mel.n_mels if voiced else 0
        self.mean, self.std = torch.zeros(self.mel.n_mels), torch.ones(self.mel.n_mels)
        self.network: Network | None = None

    @property
    def sample_rate(self) -> int:
        return self.mel.sample_rate

    @property
    def tokens(self) -> int:
        return self.codewords

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.sample_rate / self.mel.hop / STRIDE

    def allowed(self, position: int) -> range:
        """Tokens that can stand at this position of an utterance."""
        return range(self.codewords)

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None:
        """Train on recordings (samples,) and warped copies, with a progress bar; `phones` of each, where times are known."""
        with reproducible(self.seed):
            mels = [self.mel(audio) for audio in recordings]
            self.fit_frames(mels + warped(mels), phones)

    def fit_frames(self, mels: Sequence[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None:
        """As `fit`, of log-mel frames (T, n_mels) and the warped copies after them."""
        with reproducible(self.seed):
            if not mels:
                raise DataError("a codec cannot be fitted on nothing: give recordings")
            every = torch.cat([*mels])
            self.mean, self.std = every.mean(0), every.std(0).clamp_min(1e-3)
            symbols = sorted({split_stress(p.symbol)[0] for said in phones or () for p in said})
            labels = [self._labels(said, len(mel), symbols) for said, mel in zip([*(phones or ())] * 2, mels)] if symbols else []
            self.network = self._network(max(len(symbols), 1))
            self._train(self.network, [self._scaled(mel) for mel in mels], labels)

    def _network(self, phones: int) -> Network:
        return Network(self.mel.n_mels, self.voice_size, self.codewords, self.latent, self.width, phones)

    def _labels(self, said: Sequence[Phone], frames: int, symbols: Sequence[str]) -> Tensor:
        """(frames, 1) index of the phone in each frame, -100 where none is known."""
        labels = torch.full((frames, 1), -100)
        for phone in said:
            first, last = (round(time * self.sample_rate / self.mel.hop) for time in (phone.start, phone.end))
            labels[first : max(last, first + 1)] = symbols.index(split_stress(phone.symbol)[0])
        return labels

    def _train(self, network: Network, mels: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        relative = [_relative(m) for m in mels]
        voices = torch.stack([_voice(m) for m in mels]) if self.voice_size else None
        target = mels if self.voice_size else relative
        likely = torch.tensor([float(len(m)) for m in mels])
        optimizer = torch.optim.AdamW(network.parameters(), self.lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=max(self.steps, 4), pct_start=0.15)
        network.train()
        for step in Bar(range(self.steps), "semantic codec", unit="step", leave=False):
            rows = torch.multinomial(likely, BATCH, replacement=True).tolist()
            starts = [int(torch.rand(()) * max(len(mels[i]) - SEGMENT + 1, 1)) for i in rows]
            heard, wanted = (torch.stack([cut(x[i], s, SEGMENT) for i, s in zip(rows, starts)]) for x in (relative, target))
            latent = network.encode(heard)
            if step == 0:
                network.quantiser.start(latent.detach().flatten(0, 1))
            quantised, commitment = network.quantiser(latent)
            loss = F.l1_loss(network.decode(quantised, None if voices is None else voices[rows]), wanted) + COMMITMENT * commitment
            if labels:
                told = torch.stack([cut(labels[i], s, SEGMENT) for i, s in zip(rows, starts)])[..., 0]
                loss = loss + PHONES * F.cross_entropy(network.spoken(quantised).flatten(0, 1), told.flatten(), ignore_index=-100)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        network.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """(samples,) -> (steps,) long; the length is rounded to whole steps."""
        return self.quantise(self.mel(audio))

    @torch.no_grad()
    def quantise(self, mel: Tensor) -> Tensor:
        """(frames, n_mels) nats -> (steps,)"""
        network, frames = self._fitted(), max(STRIDE, (len(mel) + STRIDE // 2) // STRIDE * STRIDE)
        mel = self._scaled(mel)[torch.arange(frames).clamp_max(len(mel) - 1)]
        return network.quantiser.codes(network.encode(_relative(mel)[None])[0])

    def voice(self, audio: Tensor) -> Tensor:
        """(samples,) -> (E,): mean and deviation of the loud frames of a recording in every band."""
        return _voice(self._scaled(self.mel(audio)))

    @torch.no_grad()
    def decode_mel(self, tokens: Tensor, voice: Tensor | None = None) -> Tensor:
        """(steps,), (E,) -> (2 steps, n_mels) nats; of a codec that is told no voice, without one."""
        network = self._fitted()
        if not len(tokens):
            return torch.zeros(0, self.mel.n_mels)
        return network.decode(network.quantiser.codebook[tokens][None], None if voice is None else voice[None])[0] * self.std + self.mean

    def decode(self, tokens: Tensor, voice: Tensor | None = None) -> Tensor:
        """(steps,), (E,) -> (samples,) in [-1, 1]; silence when it is too short for one window of the vocoder."""
        mel = self.decode_mel(tokens, voice)
        samples = max(0, len(mel) - 1) * self.mel.hop
        return self.vocoder(mel) if samples > self.mel.n_fft // 2 else torch.zeros(samples)

    def embedding(self) -> Tensor:
        """(tokens, latent): the codeword of every token, centred, of length 1 on average."""
        centred = self._fitted().quantiser.codebook - self._fitted().quantiser.codebook.mean(0)
        return centred / centred.square().sum(1).mean().sqrt().clamp_min(1e-6)

    def state(self) -> dict[str, Any]:
        network = self._fitted()
        return {"network": network.state_dict(), "mean": self.mean, "std": self.std, "phones": network.symbols}

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when it was fitted under other settings."""
        network = self._network(int(state["phones"]))
        try:
            network.load_state_dict(state["network"])
        except RuntimeError as error:
            raise CheckpointError(
                f"the saved codec was fitted under other settings ({str(error).splitlines()[-1].strip()}): "
                "use those it was fitted with or fit it again"
            ) from error
        self.network = network.eval().requires_grad_(False)
        self.mean, self.std = state["mean"], state["std"]

    def _fitted(self) -> Network:
        if self.network is None:
            raise DataError("the codec is not fitted yet: fit it on recordings or restore it from a base")
        return self.network

    def _scaled(self, mel: Tensor) -> Tensor:
        return (mel - self.mean) / self.std


def _loud(mel: Tensor) -> Tensor:
    """Frames that are not among the quietest third: speech rather than pauses."""
    level = mel.mean(1)
    return mel[level >= level.quantile(0.33)]


def _relative(mel: Tensor) -> Tensor:
    return mel - _loud(mel).mean(0)


def _voice(mel: Tensor) -> Tensor:
    loud = _loud(mel)
    return torch.cat([loud.mean(0), loud.std(0, correction=0)])
