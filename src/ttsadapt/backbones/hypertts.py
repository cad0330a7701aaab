"""The backbone of HyperTTS (Li et al. 2024): FastSpeech 2 with learnt durations, wavelet pitch and binned energy.

The authors' code (declare-lab/HyperTTS) is followed in every size and in the order of operations. Not copied from it: what
makes an utterance depend on its neighbours (statistics and convolutions over padding), and phones of no frame in synthesis.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones import hypertts_official as released
from ttsadapt.backbones.aligner import Aligner, Alignment, Schedule
from ttsadapt.backbones.base import Batch, Frontend, Request
from ttsadapt.backbones.fastspeech2_frontend import PAD
from ttsadapt.backbones.hypertts_frontend import HyperTTSFrontend
from ttsadapt.backbones.official import Origin
from ttsadapt.backbones.parallel import ParallelBackbone, frames_of
from ttsadapt.backbones.parts import FFTStack, PlacedPredictor, PositionTable, PostNet, VariancePredictor, sequence_mask
from ttsadapt.backbones.pitch import CwtPitch, PitchPart, Spread, Term, bin_table, damped
from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.errors import DataError
from ttsadapt.heads import Categorical, Head, Heads, Objective


class BinnedEnergy(nn.Module):
    """The mean energy of each phone, predicted in deviations, embedded by bin."""

    bins: Tensor

    def __init__(self, width: int, hidden: int, kernel: int, dropout: float, low: float, high: float, count: int = 256) -> None:
        super().__init__()
        self.predictor = PlacedPredictor(width, hidden, kernel, dropout)
        self.embedding = bin_table(count, width)
        self.register_buffer("bins", torch.linspace(low, high, count - 1))

    def learn(self, phones: Tensor, spread: Spread, energy: Tensor) -> tuple[Tensor, dict[str, Term]]:
        """(B, P, C), (B, T) -> the embedding (B, T, C) of the true energy, and what was predicted.

        The authors mean to damp the gradient here as for durations and pitch, but drop the result: it is whole, and so here.
        """
        wanted = spread.means(energy)
        guess = self.predictor(phones, spread.phone_mask)
        return self._embedded(wanted, spread), {"energy": Term(guess[..., None], wanted[..., None], "phones", 1, 0.2)}

    def predict(self, phones: Tensor, spread: Spread) -> Tensor:
        return self._embedded(self.predictor(phones, spread.phone_mask), spread)

    def _embedded(self, energy: Tensor, spread: Spread) -> Tensor:
        return spread.over(self.embedding(torch.bucketize(energy, self.bins)))


class MelScale(nn.Module):
    """The decoder works in deviations, the mel is in nats: what a small model would spend its first steps on."""

    mean: Tensor
    std: Tensor

    def __init__(self, scales: Tensor) -> None:
        """`scales`: (2, n_mels) mean and deviation."""
        super().__init__()
        self.register_buffer("mean", scales[0].clone())
        self.register_buffer("std", scales[1].clone())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean


class HyperTTSBackbone(ParallelBackbone):
    """Phones -> encoder, voice -> durations, pitch, energy -> decoder -> mel -> postnet. The frontend is fitted before."""

    adaptable: ClassVar[tuple[str, ...]] = (
        "*coder.blocks.*.attention.query",
        "*coder.blocks.*.attention.key",
        "*coder.blocks.*.attention.value",
        "*coder.blocks.*.attention.out",
        "*coder.blocks.*.ffn.expand",
        "*coder.blocks.*.ffn.contract",
        "duration.convs.*",
        "pitch.predictor.convs.*",
        "energy.predictor.convs.*",
    )
    components: ClassVar[dict[str, tuple[str, ...]]] = {
        "embeddings": ("phone_embedding.*", "speaker_projection.*", "emotion_embedding.*"),
        "encoder": ("encoder.*",),
        "aligner": ("aligner.*",),
        "variance_adaptor": ("duration.*", "pitch.*", "energy.*", "place_projection.*"),
        "decoder": ("decoder.*",),
        "output": ("mel_linear.*", "postnet.*"),
    }
    frontend: HyperTTSFrontend

    def __init__(
        self,
        frontend: HyperTTSFrontend,
        width: int = 256,
        heads: int = 2,
        encoder_blocks: int = 4,
        decoder_blocks: int = 6,
        hidden: int = 1024,
        kernel: int = 9,
        dropout: float = 0.2,
        predictor_hidden: int = 256,
        duration_kernel: int = 3,
        energy_kernel: int = 5,
        predictor_dropout: float = 0.5,
        pitch: PitchPart | None = None,
        energy_bins: int = 256,
        positions: int = 3001,
        postnet: nn.Module | None = None,
        scaled_mel: bool = False,
        phone_places: bool = False,
        temperature: float = 5e-4,
        schedule: Schedule | None = None,
        vocoder: Callable[[Tensor], Tensor] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """`pitch`: CwtPitch or PhonePitch, None for the former; `postnet`: None for the authors' five convolutions;
        `scaled_mel`: see MelScale, and `phone_places`: the decoder is told where in its phone a frame lies, which lets narrow
        kernels learn what else takes wide ones; neither is in the authors' format. `temperature`: of the aligner, which is there when the
        frontend says `learn_durations`; `vocoder`: (T, n_mels) -> (samples,), None for Griffin-Lim; `weights`: of heads."""
        super().__init__()
        self.frontend, self.sample_rate = frontend, frontend.sample_rate
        n_mels, size = frontend.mel.n_mels, frontend.statistics.size
        self.phone_embedding = nn.Embedding(frontend.table.size, width, padding_idx=PAD)
        self.speaker_projection = nn.Linear(size, width)
        self.emotion_embedding = nn.Embedding(len(frontend.emotions), width) if frontend.emotions else None
        if self.emotion_embedding is not None:
            nn.init.normal_(self.emotion_embedding.weight, std=width**-0.5)
        self.encoder, self.decoder = (
            FFTStack(blocks, width, heads, hidden, kernel, dropout, bias=False, positions=PositionTable(positions, width))
            for blocks in (encoder_blocks, decoder_blocks)
        )
        self.duration = VariancePredictor(width, predictor_hidden, duration_kernel, predictor_dropout, eps=1e-12)
        self.pitch = pitch or CwtPitch(width, predictor_hidden, width // 2, dropout=predictor_dropout)
        low, high = frontend.scales["energy_range"].tolist()
        self.energy = BinnedEnergy(width, predictor_hidden, energy_kernel, predictor_dropout, low, high, energy_bins)
        self.aligner = Aligner(width, n_mels, n_mels, temperature) if frontend.learn_durations else None
        self.schedule = (schedule or Schedule()) if frontend.learn_durations else None
        self.place_projection = nn.Linear(2, width) if phone_places else None
        self.mel_linear = nn.Linear(width, n_mels)
        self.mel_scale = MelScale(frontend.scales["mel"]) if scaled_mel else nn.Identity()
        self.postnet = postnet or PostNet(n_mels, 512)
        self.vocoder = vocoder or GriffinLim(deepcopy(frontend.mel))  # its own: the frontend stays on the CPU
        self.weights, self.positions = dict(weights or {}), positions
        self.origin: Origin | None = None

    @property
    def duration_predictor(self) -> tuple[str, VariancePredictor]:
        return "duration", self.duration

    # Parts of a pass ---------------------------------------------------------------------------------------------------

    def voice(self, speaker: Tensor, emotion: Tensor) -> Tensor:
        """(B, E), (B,) -> (B, C)."""
        voice = self.speaker_projection(speaker)
        return voice if self.emotion_embedding is None else voice + self.emotion_embedding(emotion)

    def render(self, x: Tensor, spread: Spread) -> tuple[Tensor, Tensor]:
        """(B, T, C) -> (B, T, n_mels) nats, before and after the postnet."""
        if self.place_projection is not None:
            share = spread.shares()
            x = x + self.place_projection(torch.stack([share, 1 - share], -1))
        mel = self.mel_scale(self.mel_linear(self.decoder(x, spread.frame_mask)))
        return mel, self.postnet(mel, spread.frame_mask)

    # Training ----------------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Heads:
        phone_mask, frame_mask = self.block_mask(batch, "encoder"), self.block_mask(batch, "decoder")
        embedded, voice = self.phone_embedding(batch["phones"]), self.voice(batch["speaker"], batch["emotion"])
        x = (self.encoder(embedded, phone_mask) + voice[:, None]) * phone_mask[..., None]
        aligned = None if self.aligner is None else self.aligner(embedded, batch["mel"], voice, phone_mask, frame_mask)
        spread = Spread(batch["durations"] if aligned is None else aligned.durations, phone_mask, frame_mask)
        frames = self._upsampled(x, spread, aligned)
        melody, pitch_terms = self.pitch.learn(x, frames, spread, batch)
        loudness, energy_terms = self.energy.learn(x, spread, batch["energy"])
        mel, refined = self.render(frames + melody + loudness, spread)
        terms = {"mel": Term(mel, batch["mel"], "frames", 1, 0.5), "postnet": Term(refined, batch["mel"], "frames", 1, 0.5)}
        variances = self._durations(x, spread) | pitch_terms | energy_terms
        heads = {name: self._term(name, term, batch) for name, term in (terms | variances).items()}
        if aligned is not None and self.schedule is not None:
            for name in variances:
                heads[name].weight *= self.schedule.variances
            heads |= self._alignment(aligned, batch, self.schedule)
            if self.training:
                self.schedule.advance()
        return heads

    def _upsampled(self, x: Tensor, spread: Spread, aligned: Alignment | None) -> Tensor:
        """(B, P, C) -> (B, T, C): by the soft alignment while it is young, by durations afterwards."""
        if aligned is None or self.schedule is None or self.schedule.hard:
            return spread.over(x)
        return (aligned.soft() @ x) * spread.frame_mask[..., None]

    def _durations(self, x: Tensor, spread: Spread) -> dict[str, Term]:
        """Of each phone, and of the whole utterance: the sum of small errors is a wrong pace."""
        guess = self.duration(damped(x), spread.phone_mask)
        total = (guess.expm1().clamp_min(0) * spread.phone_mask).sum(1, keepdim=True)
        whole = spread.durations.sum(1, keepdim=True).float().log1p()
        return {
            "duration": Term(guess[..., None], spread.durations.float().log1p()[..., None], "phones", 2, 0.11),
            "pace": Term(total.log1p(), whole, "utterances", 2, 0.1),
        }

    def _alignment(self, aligned: Alignment, batch: Batch, schedule: Schedule) -> Heads:
        at = batch["frame_row"], batch["frame_place"]
        everyone = torch.arange(len(batch["phones"]), device=aligned.durations.device)
        nats = aligned.forward_sum(batch["phone_counts"], batch["frame_counts"])
        sharp = aligned.binarization()[at]
        weight = self.weights.get("binarization", 1.0) * schedule.binarization
        return {
            "alignment": Objective(nats.detach(), everyone, "utterances", self.weights.get("alignment", 1.0), value=nats),
            "binarization": Objective(sharp.detach(), at[0], "frames", weight, value=sharp),
        }

    def _term(self, name: str, term: Term, batch: Batch) -> Head:
        """A head of its real positions."""
        if term.unit == "utterances":
            row = torch.arange(len(term.value), device=term.value.device)
            return self._head(name, term.value, term.target, row, term.unit, term.norm, term.sigma)
        at = row, _ = (batch["phone_row"], batch["phone_place"]) if term.unit == "phones" else (batch["frame_row"], batch["frame_place"])
        value, target = term.value[at], term.target[at]
        if term.norm:
            return self._head(name, value, target, row, term.unit, term.norm, term.sigma)
        return Categorical(target[:, 0], row, term.unit, self.weights.get(name, 1.0), hidden=value, project=_yes_or_no)

    # Synthesis ---------------------------------------------------------------------------------------------------------

    def predict_mel(self, requests: Sequence[Request]) -> list[Tensor]:
        asked = self._asked(requests)
        mask = asked["mask"]
        self._fits(requests, mask.sum(1), "phones")
        emotion = torch.tensor([self.frontend.emotion(r.emotion) for r in requests], device=mask.device)
        voice = self.voice(asked["speaker"], emotion)
        x = (self.encoder(self.phone_embedding(asked["phones"]), mask) + voice[:, None]) * mask[..., None]
        durations = frames_of(self.duration(x, mask), mask)
        lengths = durations.sum(1)
        self._fits(requests, lengths, "frames")
        spread = Spread(durations, mask, sequence_mask(lengths, int(lengths.max())))
        frames = spread.over(x)
        frames = frames + self.pitch.predict(x, frames, spread) + self.energy.predict(x, spread)
        _, mel = self.render(frames, spread)
        return [one[:n] for one, n in zip(mel, lengths.tolist())]

    def _fits(self, requests: Sequence[Request], lengths: Tensor, what: str) -> None:
        for request, length in zip(requests, lengths.tolist()):
            if length > self.positions:
                raise DataError(f"{request.id}: {length} {what}, the model has positions for {self.positions}: split the text")

    # Released files ----------------------------------------------------------------------------------------------------

    @classmethod
    def load_official(cls, frontend: Frontend, path: str, heads: int = 2, **settings: Any) -> Self:
        """The authors' `600000.pth.tar`; `heads` is not to be seen in it, `settings` are the constructor's others."""
        return released.load(cls, cast(HyperTTSFrontend, frontend), Path(path), heads, settings)

    def save_official(self, path: Path) -> None:
        released.save(self, path)


def _yes_or_no(logit: Tensor) -> Tensor:
    """(N, 1) -> (N, 2): the softmax over them is the sigmoid of the logit."""
    return F.pad(logit, (1, 0))
