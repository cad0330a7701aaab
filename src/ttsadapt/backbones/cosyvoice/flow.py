"""Speech tokens -> mel by conditional flow matching (Lipman et al. 2023; CosyVoice, section 2.3): what versions 1 to 3 share.

A straight path leads from noise z at time 0 to the mel x at time 1, and an estimator predicts the velocity along it from the
point reached, the encoded tokens (mu), the voice, and the first frames of the mel as a prompt.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones import official
from ttsadapt.backbones.base import Slot
from ttsadapt.backbones.cosyvoice.estimator import Estimator
from ttsadapt.backbones.frames import codeword_table
from ttsadapt.backbones.official import Layout, Notice, OfficialFile, Origin, Place
from ttsadapt.backbones.parts import evaluating, sequence_mask
from ttsadapt.errors import DataError

SIGMA_MIN = 1e-6
"""what is left of the noise at time 1"""
LONGEST = 15000
"""frames of noise that the authors' code keeps: 300 s at 50 frames a second"""


def draw(
    mel_lengths: Tensor, n_mels: int = 80, drop: float = 0.2, prompted: float = 0.5, prompt: float = 0.3, stream: float = 0.5
) -> dict[str, Tensor]:
    """What a training batch of B utterances leaves to chance, from torch's global generator, on the CPU, for `Flow.forward`.

    `time` (B,) uniform; `noise` (B, T, n_mels) for the longest's T; `keep` (B,) bool: with probability `drop` all conditions are
    left out, for guidance; `prompt_frames` (B,): with probability `prompted` up to a share of `prompt` of the frames are shown;
    `streaming` (B,) bool: with probability `stream` nothing beyond a chunk's end is heard (version 1 does not look at it).
    """
    count, frames = len(mel_lengths), int(mel_lengths.max())
    longest = (prompt * mel_lengths.double()).long() + 1
    shown = (torch.rand(count) * longest).long().minimum(longest - 1)
    return {
        "time": torch.rand(count),
        "noise": torch.randn(count, frames, n_mels),
        "keep": torch.rand(count) >= drop,
        "prompt_frames": shown * (torch.rand(count) < prompted),
        "streaming": torch.rand(count) < stream,
    }


class Frames(NamedTuple):
    """The N real frames of a batch, of standardised mels."""

    velocity: Tensor
    """(N, n_mels) predicted"""
    wanted: Tensor
    """(N, n_mels)"""
    row: Tensor
    """(N,) of the batch"""
    mu: Tensor
    """(N, n_mels) encoded tokens"""
    mel: Tensor
    """(N, n_mels)"""


class Flow(nn.Module, ABC):
    """Subclasses add an encoder and `decoder["estimator"]`. Weights are named as in the authors' files."""

    family: ClassVar[str]
    """as a message calls it"""
    adaptable: ClassVar[tuple[str, ...]]
    """globs over names of the linears that an adapter may take the place of"""

    def __init__(
        self,
        tokens: int,
        token_width: int,
        voice_size: int,
        n_mels: int,
        estimator: Estimator,
        mel_mean: float = 0.0,
        mel_std: float = 1.0,
        guidance: float = 0.7,
        temperature: float = 1.0,
        spread: float = 0.0,
        padding_leaks: bool = False,
    ) -> None:
        """`tokens` speech tokens; voices are (voice_size,) vectors; mels have `n_mels` bands.

        `mel_mean`, `mel_std` (nats): the flow runs on (mel - mean) / std; 0 and 1 in the released models.
        `spread`: how far standardised mels are from mu, see `velocity`; 0 in the released models, whose mu means nothing by itself. With
        it a new model learns in a fraction of the steps, but the authors' code cannot run its weights.
        `guidance`: how far the velocity is pushed away from the one without conditions; `temperature`: scale of the noise.
        `padding_leaks`: as in the authors' training code an utterance's encoding depends on the padding around it (versions 1, 2).
        """
        super().__init__()
        self.n_mels, self.mel_mean, self.mel_std = n_mels, mel_mean, mel_std
        self.guidance, self.temperature = guidance, temperature
        self.spread, self.padding_leaks = spread, padding_leaks
        self.input_embedding = nn.Embedding(tokens, token_width)
        self.spk_embed_affine_layer = nn.Linear(voice_size, n_mels)
        self.decoder = nn.ModuleDict({"estimator": estimator})

    @torch.no_grad()
    def begin(self, codewords: Tensor) -> None:
        """For training from scratch: the table of tokens lies as their `codewords` (tokens, E) do."""
        self.input_embedding.weight.copy_(codeword_table(codewords, 1, self.input_embedding.embedding_dim)[0])

    @abstractmethod
    def encode(self, tokens: Tensor, lengths: Tensor, mel_lengths: Tensor, frames: int, streaming: Tensor) -> Tensor:
        """(B, S) long, lengths (B,) -> mu (B, frames, n_mels) of rows that have `mel_lengths` frames each."""

    @abstractmethod
    def encode_one(self, tokens: Tensor, prompt_tokens: Tensor, prompt_frames: int, streaming: Tensor, last: bool) -> Tensor:
        """(S,) and (P,) long, `streaming` (1,) -> mu (1, F, n_mels), the prompt's frames first.

        `last` false: more tokens are to come, and the last ones are look-ahead only.
        """

    def prompt(self, tokens: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (P,) and mel (F, n_mels) of a recording, cut to lengths that belong together."""
        return tokens, mel

    @property
    def estimator(self) -> Estimator:
        return cast(Estimator, self.decoder["estimator"])

    @property
    def blocks(self) -> dict[str, nn.Module]:
        """The estimator's blocks of one rate and width: (B, T, C) out."""
        return {str(i): block for i, block in enumerate(self.estimator.blocks)}

    @property
    def slot(self) -> Slot:
        """Names in this module."""
        inner = self.estimator.slot
        return Slot(inner.width, tuple(f"decoder.estimator.{glob}" for glob in inner.modules))

    def block_mask(self, mel_lengths: Tensor, frames: int) -> Tensor:
        """(B, T) bool: which positions of a block's output carry speech."""
        return self.estimator.block_mask(sequence_mask(mel_lengths, frames))

    def forward(
        self, tokens: Tensor, token_lengths: Tensor, mel: Tensor, mel_lengths: Tensor, embedding: Tensor, draws: Mapping[str, Tensor]
    ) -> Frames:
        """What is predicted and wanted at the real frames of a batch.

        tokens (B, S), mel (B, T, n_mels) nats, embedding (B, voice_size), `draws` from `draw`.
        """
        mask = sequence_mask(mel_lengths, mel.shape[1])
        mel = (mel - self.mel_mean) / self.mel_std * mask[..., None]
        time, noise, keep, streaming = draws["time"], draws["noise"], draws["keep"][:, None], draws["streaming"]
        encoded = self.encode(tokens, token_lengths, mel_lengths, mel.shape[1], streaming)
        mu = encoded * keep[..., None]
        shown = mel * (sequence_mask(draws["prompt_frames"], mel.shape[1]) & keep)[..., None]
        reached = time[:, None, None]
        point = (1 - (1 - SIGMA_MIN) * reached) * noise + reached * mel
        voice = self.voice(embedding) * keep
        velocity = self.velocity(point.to(mu.dtype), mask, mu, time, voice, shown.to(mu.dtype), streaming, keep[:, 0])
        row, frame = mask.nonzero(as_tuple=True)
        wanted = mel - (1 - SIGMA_MIN) * noise  # the derivative of `point`
        return Frames(velocity[row, frame], wanted[row, frame], row, encoded[row, frame], mel[row, frame])

    def velocity(
        self, x: Tensor, mask: Tensor, mu: Tensor, time: Tensor, voice: Tensor, prompt: Tensor, streaming: Tensor, told: Tensor
    ) -> Tensor:
        """What the estimator says at the point x (B, T, n_mels) and `time` (B,); `told` (B,) bool: mu and voice are given, not zeros.

        With `spread` mu is an estimate of the mel, as in Grad-TTS (Popov et al. 2021, section 3.3), and the estimator says how far the
        velocity is from what follows of a mel that is Gaussian around mu (Karras et al. 2022, section 5: the skip connection). Where
        nothing is told, mels are taken to be standard normal.
        """
        said = self.estimator(x, mask, mu, time, voice, prompt, streaming)
        if not self.spread:
            return said
        t, variance = time[:, None, None], torch.where(told, self.spread**2, 1.0)[:, None, None]
        missed = (x - t * mu) / ((1 - t).square() + t.square() * variance)  # of the noise (1 - t) z and of t (mel - mu)
        return said + (mu + (t * variance - (1 - t)) * missed).to(x.dtype)

    def voice(self, embedding: Tensor) -> Tensor:
        """(B, voice_size) -> (B, n_mels); only the embedding's direction counts."""
        return self.spk_embed_affine_layer(F.normalize(embedding.to(self.spk_embed_affine_layer.weight.dtype), dim=1))

    def generate(
        self,
        tokens: Tensor,
        embedding: Tensor,
        prompt_tokens: Tensor | None = None,
        prompt_mel: Tensor | None = None,
        seed: int = 0,
        steps: int = 10,
        streaming: bool = False,
        last: bool = True,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Mel (frames, n_mels) in nats of tokens (S,) in the voice `embedding` (voice_size,), going on from a prompt where given.

        prompt_tokens (P,), prompt_mel (F, n_mels) nats. `seed` 0 gives versions 2 and 3 the noise that the authors' code uses.
        `steps`: of Euler's method. `streaming`: hear no further than to the end of a chunk. `last`: false when more tokens follow.
        `noise` (frames, n_mels) in place of a drawn one. DataError when the speech is longer than 300 s.
        """
        device = self.input_embedding.weight.device
        before = tokens.new_zeros(0) if prompt_tokens is None else prompt_tokens
        heard = torch.zeros(0, self.n_mels) if prompt_mel is None else prompt_mel
        before, heard = self.prompt(before.to(device), heard.to(device))
        with evaluating(self):
            stream = torch.tensor([streaming], device=device)
            mu = self.encode_one(tokens.to(device), before, len(heard), stream, last)
            z = self.noise(mu.shape[1], seed) if noise is None else noise
            shown = F.pad((heard.to(mu) - self.mel_mean) / self.mel_std, (0, 0, 0, mu.shape[1] - len(heard)))
            mel = self.solve(z.to(mu)[None] * self.temperature, mu, self.voice(embedding.to(device)[None]), shown[None], stream, steps)
        return mel[0, len(heard) :].float() * self.mel_std + self.mel_mean

    def noise(self, frames: int, seed: int) -> Tensor:
        """(frames, n_mels). A longer utterance begins with the same noise: so do the chunks of a stream."""
        if frames > LONGEST:
            raise DataError(f"prompt and text make {frames} frames of speech, more than the {LONGEST} that the flow takes: split the text")
        return torch.randn(self.n_mels, LONGEST, generator=torch.Generator().manual_seed(seed))[:, :frames].T

    def solve(self, x: Tensor, mu: Tensor, voice: Tensor, prompt: Tensor, streaming: Tensor, steps: int) -> Tensor:
        """Euler's method with classifier-free guidance (Le et al. 2023, section 3.3): (1, T, n_mels) noise -> mel.

        Steps are short at first: times are 1 - cos(pi i / (2 steps)).
        """
        times = 1 - torch.cos(torch.linspace(0, 1, steps + 1, device=x.device) * 0.5 * torch.pi)
        mask = torch.ones(2, x.shape[1], dtype=torch.bool, device=x.device)
        conditioned = torch.tensor([True, False], device=x.device)
        mu, voice, prompt = (torch.cat([c, torch.zeros_like(c)]) for c in (mu, voice, prompt))
        for now, then in pairwise(times):
            told, untold = self.velocity(x.expand(2, -1, -1), mask, mu, now.expand(2), voice, prompt, streaming, conditioned)
            x = x + (then - now).to(x.dtype) * ((1 + self.guidance) * told - self.guidance * untold)[None]
        return x

    @classmethod
    @abstractmethod
    def sizes(cls, shapes: Mapping[str, tuple[int, ...]], **settings: Any) -> dict[str, Any]:
        """Constructor arguments of the model in a file. KeyError for a key that is missing."""

    @classmethod
    def from_file(
        cls, file: OfficialFile, dtype: torch.dtype = torch.float32, notice: Notice = print, **settings: Any
    ) -> tuple[Self, Origin]:
        """The flow in a released flow.pt, and what `save` needs to write it back. Sizes are read off the file, `settings` given.

        CheckpointError in one line when the file is another model's or incomplete.
        """
        try:
            sizes = cls.sizes(file.shapes, **settings)
        except KeyError as error:
            raise official.lacking(file, str(error.args[0]), cls.family) from error
        flow = official.build(lambda: cls(**{**sizes, **settings}))
        return flow, official.load(flow, file, cls.layout(), dtype, notice)

    @classmethod
    def layout(cls) -> Layout:
        return Layout(cls.family, Place)
