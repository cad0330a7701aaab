"""CosyVoice as one backbone: the language model and the flow are trained and adapted together or one at a time."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones import official
from ttsadapt.backbones.base import Backbone, Batch, Request, Slot
from ttsadapt.backbones.cosyvoice.flow import Flow
from ttsadapt.backbones.cosyvoice.frontend import CosyVoiceFrontend
from ttsadapt.backbones.cosyvoice.frontend import Prompt as Reference
from ttsadapt.backbones.cosyvoice.hift import HiFT
from ttsadapt.backbones.cosyvoice.loading import Came, read, write
from ttsadapt.backbones.cosyvoice.speech_lm import Prompt, SpeechLM, without_long_silence
from ttsadapt.backbones.decoding import Sampling, in_batches, uniforms
from ttsadapt.backbones.ending import tell
from ttsadapt.backbones.knobs import Knob
from ttsadapt.backbones.parts import evaluating
from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.errors import CheckpointError, ConfigError
from ttsadapt.heads import Continuous, Heads

SIGMA = 0.6
"""of the velocity's Gaussian likelihood, near the residual of a trained flow"""
PARTS = ("llm", "flow")


class CosyVoice(Backbone):
    """`parts` says which of the two give losses; synthesis takes both."""

    components: ClassVar[dict[str, tuple[str, ...]]] = {"llm": ("llm.*",), "flow": ("flow.*",), "vocoder": ("vocoder.*",)}
    frontend: CosyVoiceFrontend
    llm: SpeechLM | None
    flow: Flow | None

    def __init__(
        self,
        frontend: CosyVoiceFrontend,
        llm: Callable[..., SpeechLM] | None = None,
        flow: Callable[..., Flow] | None = None,
        vocoder: nn.Module | None = None,
        parts: Sequence[str] = PARTS,
        sampling: Sampling | None = None,
        silent: Sequence[int] = (),
        longest_silence: int = 5,
        llm_prompt: bool = True,
        flow_prompt: bool = True,
        steps: int = 10,
        batch: int = 16,
        weights: Mapping[str, float] | None = None,
        codec_embedding: bool = False,
    ) -> None:
        """`llm`, `flow`: made with the sizes that the frontend gives; None: not there. `vocoder`: None is Griffin-Lim.

        `sampling`: None is the authors'. `silent`: speech tokens of which more than `longest_silence` in a row are left out.
        `llm_prompt`, `flow_prompt`: go on from a reference where the request has one. `steps`: of the flow's solver. `batch`:
        utterances synthesised at once. `weights`: of the heads "tokens" and "mel" in the task loss, 1 where not given.
        """
        super().__init__()
        self.frontend, self.sample_rate, self.parts = frontend, frontend.mel.sample_rate, tuple(parts)
        self.sampling = sampling or Sampling(top_k=25, top_p=0.8, window=10, share=0.1)
        self.silent, self.longest_silence = tuple(silent), longest_silence
        self.llm_prompt, self.flow_prompt, self.steps, self.batch = llm_prompt, flow_prompt, steps, batch
        self.weights = dict(weights or {})
        tokens, voice, n_mels = frontend.codec.tokens, frontend.speakers.size, frontend.mel.n_mels
        self.llm = llm(layout=frontend.layout, text_rows=frontend.text.rows, speaker_size=voice) if llm else None
        self.flow = flow(tokens=tokens, voice_size=voice, n_mels=n_mels) if flow else None
        self.vocoder = vocoder or GriffinLim(deepcopy(frontend.mel))  # its own: the frontend stays on the CPU
        self.origins: dict[str, Came] = {}
        """of parts that were released"""
        self._check_parts()
        if codec_embedding:
            for part in (self.llm, self.flow):
                if part is not None:
                    part.begin(frontend.codec.embedding())

    def _check_parts(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise ConfigError(f"backbone.parts={list(self.parts)}: name one or both of {', '.join(PARTS)}")
        missing = [part for part in self.parts if getattr(self, part) is None]
        if missing:
            raise ConfigError(f"backbone.parts={list(self.parts)}: there is no {missing[0]} in the model: give its file, or leave it out")

    # Structure ---------------------------------------------------------------------------------------------------------

    @property
    def adaptable(self) -> tuple[str, ...]:  # type: ignore[override]
        """Layers of the parts that are trained."""
        return tuple(f"{part}.{glob}" for part in self.parts for glob in getattr(self, part).adaptable)

    @property
    def slots(self) -> dict[str, Slot]:
        """After the feed-forwards of the language model and of the flow's estimator (of a U-Net: in its middle)."""
        found: dict[str, Slot] = {part: getattr(self, part).slot for part in self.parts}
        return {part: Slot(slot.width, tuple(f"{part}.{glob}" for glob in slot.modules)) for part, slot in found.items()}

    @property
    def knobs(self) -> dict[str, Knob]:
        """Those of the language model's sampling, and of the flow: classifier-free guidance, scale of its noise, steps of its solver."""
        flow = {"guidance": Knob("flow.guidance"), "flow_temperature": Knob("flow.temperature"), "steps": Knob("steps", 1, whole=True)}
        return {**super().knobs, **(flow if self.flow is not None else {})}

    @property
    def blocks(self) -> dict[str, dict[str, nn.Module]]:
        """Of the parts that are trained; the language model last, for voice and style are its choice: analyses take it by default."""
        return {part: getattr(self, part).blocks for part in reversed(PARTS) if part in self.parts}

    @property
    def peft_root(self) -> nn.Module:
        return self._speaks.inner if self.parts == ("llm",) else self

    @property
    def _speaks(self) -> SpeechLM:
        if self.llm is None:
            raise CheckpointError("this model has no language model: put llm.pt beside flow.pt in backbone.path")
        return self.llm

    @property
    def _sings(self) -> Flow:
        if self.flow is None:
            raise CheckpointError("this model has no flow: put flow.pt beside llm.pt in backbone.path")
        return self.flow

    def block_mask(self, batch: Batch, group: str) -> Tensor:
        if group == "llm":
            return self._speaks.spoken(batch)
        return self._sings.block_mask(batch["mel_lengths"], batch["mel"].shape[1])

    # Training ----------------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Heads:
        """{"tokens": what the language model predicts, "mel": the flow's velocity}, of the parts that are trained.

        "mu", too, where the flow's encoder is to estimate the mel (`Flow.velocity`; Grad-TTS, equation 14).
        """
        heads: Heads = {}
        if "llm" in self.parts:
            heads["tokens"] = replace(self._speaks(batch), weight=self.weights.get("tokens", 1.0))
        if "flow" in self.parts:
            heads |= self._mel(batch)
        return heads

    def _mel(self, batch: Batch) -> Heads:
        draws = {name.removeprefix("flow_"): value for name, value in batch.items() if name.startswith("flow_")}
        said = self._sings(batch["speech"], batch["speech_lengths"], batch["mel"], batch["mel_lengths"], batch["speaker"], draws)
        weight = self.weights.get("mel", 1.0)
        heads: Heads = {"mel": Continuous(said.wanted, said.row, "frames", weight, value=said.velocity, norm=2, sigma=SIGMA)}
        if self._sings.spread:
            heads["mu"] = Continuous(said.mel, said.row, "frames", weight, value=said.mu, norm=2, sigma=SIGMA)
        return heads

    # Synthesis ---------------------------------------------------------------------------------------------------------

    def synthesize(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Tensor]:
        with evaluating(self):
            return in_batches(self, requests, self.batch, self.speak, lambda t, r: self.sound(self.to_mel(t, r), r.seed), progress)

    def speak(self, requests: Sequence[Request]) -> list[Tensor]:
        """Speech tokens (S,) of each request."""
        prompts = [self._prompt(request) for request in requests]
        said = self._speaks.generate(prompts, self.sampling)
        tell(requests, map(len, said), [prompt.most for prompt in prompts])
        return [torch.tensor(without_long_silence(tokens, self.silent, self.longest_silence), dtype=torch.long) for tokens in said]

    def _prompt(self, request: Request) -> Prompt:
        low, high = (bound * len(request.phones) for bound in self.frontend.pace)
        reference = request.reference if self.llm_prompt and isinstance(request.reference, Reference) else None
        least = max(1, int(low))
        most = max(least, min(int(high), int(self.frontend.longest * self.frontend.codec.rate)))
        return Prompt(
            **self.frontend.prefix(request, reference), speaker=request.speaker, least=least, most=most, uniform=uniforms(request.seed)
        )

    def to_mel(self, tokens: Tensor, request: Request) -> Tensor:
        """(S,) -> (frames, n_mels) log magnitudes, on the model's device."""
        prompt = request.reference if self.flow_prompt and isinstance(request.reference, Reference) else None
        return self._sings.generate(
            tokens,
            request.speaker,
            prompt_tokens=prompt.codes if prompt else None,
            prompt_mel=prompt.mel if prompt else None,
            seed=request.seed,
            steps=self.steps,
        )

    def sound(self, mel: Tensor, seed: int = 0) -> Tensor:
        """(frames, n_mels) log magnitudes -> (samples,) on the CPU."""
        wave = self.vocoder(mel) if isinstance(self.vocoder, GriffinLim) else self.vocoder(mel, seed)
        return wave.float().clamp(-1, 1).cpu()

    def resynthesize(self, audio: Tensor) -> Tensor:
        """Through the mel and the vocoder."""
        device = next(self.parameters()).device
        with evaluating(self):
            wave = self.sound(self.frontend.mel(audio.cpu()).to(device))[: len(audio)]
        return F.pad(wave, (0, len(audio) - len(wave)))

    # Files of the authors ----------------------------------------------------------------------------------------------

    @classmethod
    def load_official(  # type: ignore[override]
        cls,
        frontend: CosyVoiceFrontend,
        path: str,
        parts: Sequence[str] = PARTS,
        llm_head_size: int = 64,
        flow_head_size: int = 64,
        smoothing: float = 0.0,
        sampling: Sampling | None = None,
        silent: Sequence[int] = (),
        longest_silence: int = 5,
        llm_prompt: bool = True,
        flow_prompt: bool = True,
        steps: int = 10,
        batch: int = 16,
        weights: Mapping[str, float] | None = None,
    ) -> Self:
        """A model directory of the release with `llm.pt`, `flow.pt` and `hift.pt`, or with some of them.

        `*_head_size`: channels of an attention head where no shape tells and no Qwen directory stands beside. `smoothing`: of
        labels in the language model's loss. The others are the constructor's.
        """
        release = read(Path(path).expanduser(), type(frontend.layout), llm_head_size, flow_head_size, smoothing)
        release.check(frontend.codec.tokens, frontend.text.rows, frontend.speakers.size, frontend.mel.n_mels)
        llm, flow = release.llm, release.flow
        model = cls(
            frontend, (lambda **_: llm) if llm else None, (lambda **_: flow) if flow else None, release.vocoder, parts, sampling,
            silent, longest_silence, llm_prompt, flow_prompt, steps, batch, weights,
        )  # fmt: skip
        model.origins = release.origins
        return model

    def save_official(self, path: Path) -> None:
        """A directory with the files of the parts that there are, as `load_official` and the authors' code read them."""
        flow = self.flow
        official.check_theirs(
            {
                "backbone.frontend.paced_positions=false": self.frontend.pacing is not None and self.llm is not None,
                "backbone.flow.spread=0": flow is not None and flow.spread != 0,
                "backbone.flow.mel_mean=0 backbone.flow.mel_std=1": flow is not None and (flow.mel_mean, flow.mel_std) != (0.0, 1.0),
            }
        )
        vocoder = self.vocoder if isinstance(self.vocoder, HiFT) else None
        write(Path(path), self.llm, self.flow, vocoder, self.origins)
