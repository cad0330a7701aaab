"""An acoustic model that learns from the very recordings that are to be aligned: no labels, no download, any language.

A small CTC network, kept from marking a token at one output only by dividing by the prior of each class while it learns (Huang et al.
2024, "Less Peaky and More Accurate CTC Forced Alignment by Label Priors", section 3): the blank is then no longer the safe answer.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path

import soundfile
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttsadapt.artifacts import Artifact, ensure
from ttsadapt.bars import Bar
from ttsadapt.data.alignment.ctc import Acoustic
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.files import content_hash, digest, read_json, write_json
from ttsadapt.metrics.judges import training
from ttsadapt.metrics.judges.clips import Clip
from ttsadapt.metrics.judges.recogniser import Network, steps_of
from ttsadapt.metrics.signal import RATE, at_rate, levelled, speech
from ttsadapt.metrics.subset import subset
from ttsadapt.reproducible import reproducible

_SHORTEST = 0.2
"""seconds of speech"""
_SLOW = 0.95
"""share of the prior that stays from step to step"""


class Learned(Acoustic):
    """Learns once for each corpus; what it learnt is kept beside the alignments."""

    blank = 0
    poor = 0.3  # the prior makes it modest: 0.4 where every text is right, 0.14 for wrong ones
    remedy = "there may be too little speech to learn from, or texts that are not what is said: see data.bring.align.acoustic.steps"

    def __init__(self, steps: int = 400, seconds: float = 12.0, lr: float = 3e-3, prior: float = 0.3, recordings: int = 1000) -> None:
        """`steps` of the optimiser, each on `seconds` of audio; `prior`: the power of the prior; at most `recordings` are learnt from."""
        self.steps, self.seconds, self.lr, self.prior, self.recordings = steps, seconds, lr, prior, recordings
        self._learnt: _Learnt | None = None

    def fingerprint(self, cache: Path) -> str:
        code = digest([inspect.getsource(Network), inspect.getsource(_Learnt)])
        return digest([code, self.steps, self.seconds, self.lr, self.prior, self.recordings])

    def fit(self, utterances: Sequence[Utterance], symbols: Sequence[Sequence[str]], cache: Path) -> str:
        chosen = subset(sorted(zip(utterances, symbols), key=lambda pair: pair[0].id), self.recordings)
        key = digest([self.fingerprint(cache), [[content_hash(u.audio), list(s)] for u, s in chosen]])
        self._learnt = _Learnt(cache / "alignments" / f"learned-{key}", self, chosen)
        return key

    def open(self, cache: Path) -> None:
        if self._learnt is None:
            raise ConfigError("segments.align learns from recordings that are cut already: take ctc or hub_words to cut them")
        ensure(self._learnt)
        card = read_json(self._learnt.folder / "card.json")
        self.vocabulary = {symbol: i + 1 for i, symbol in enumerate(card["symbols"])}
        self.model = Network(len(self.vocabulary))
        weights = load_file(self._learnt.folder / "weights.safetensors")
        self.log_prior = weights.pop("log_prior")
        self.model.load_state_dict(weights)
        self.model.eval()

    def likely(self, audio: Tensor) -> Tensor:
        logits = self.model(levelled(audio)[None], torch.tensor([len(audio)]))[0]
        return (logits.log_softmax(-1) - self.prior * self.log_prior).log_softmax(-1)


class _Learnt(Artifact):
    """`weights.safetensors` with the prior, and `card.json` with the classes."""

    def __init__(self, folder: Path, how: Learned, chosen: Sequence[tuple[Utterance, Sequence[str]]]) -> None:
        self.folder, self.how, self.chosen = folder, how, chosen

    def build(self, folder: Path) -> None:
        clips = {clip.utterance.id: clip for clip in self._clips()}
        wanted = {u.id: list(s) for u, s in self.chosen if u.id in clips and s}
        if not wanted:
            raise DataError("data.bring.align: no recording has speech to learn from: look at them with align=null")
        symbols = sorted({s for row in wanted.values() for s in row})
        classes = {s: i + 1 for i, s in enumerate(symbols)}
        rows = {i: torch.tensor([classes[s] for s in row]) for i, row in wanted.items()}
        with reproducible():
            model = Network(len(symbols))
            loss = _Loss(model, 1 + len(symbols), rows, self.how.prior)
            there = [clips[i] for i in wanted]
            there = there if len(there) > 1 else 2 * there  # batch normalisation needs two
            batch = training.batches(there, self.how.seconds)
            training.fit(model, loss, batch, self.how.steps, self.how.lr, "aligner, from the recordings")
        weights = {k: v.contiguous() for k, v in model.state_dict().items()} | {"log_prior": loss.log_prior}
        save_file(weights, folder / "weights.safetensors")
        write_json(folder / "card.json", {"symbols": symbols, "recordings": len(wanted), "steps": self.how.steps})

    def _clips(self) -> list[Clip]:
        clips = []
        for utterance, _ in Bar(self.chosen, "recordings for the aligner", unit="utt", leave=False):
            samples, rate = soundfile.read(utterance.audio, dtype="float32", always_2d=True)
            audio = at_rate(torch.from_numpy(samples.mean(1)), rate)
            first, end = speech(audio)
            if end - first > _SHORTEST * RATE:
                clips.append(Clip(utterance, levelled(audio[first:end]), first / RATE, False, ""))
        return clips


class _Loss:
    """CTC on probabilities divided by a running prior of the classes."""

    def __init__(self, model: Network, classes: int, rows: dict[str, Tensor], power: float) -> None:
        self.model, self.rows, self.power = model, rows, power
        self.log_prior = torch.full((classes,), 1.0 / classes).log()

    def __call__(self, clips: list[Clip], progress: float) -> Tensor:
        audio, samples = training.padded([c.audio for c in clips])
        likely, counts = self.model(audio, samples).log_softmax(-1), steps_of(samples)
        inside = torch.arange(likely.shape[1])[None] < counts[:, None]
        with torch.no_grad():
            now = likely[inside].exp().mean(0)
            self.log_prior = (_SLOW * self.log_prior.exp() + (1 - _SLOW) * now).clamp_min(1e-6).log()
        rows = [self.rows[c.utterance.id] for c in clips]
        scores = (likely - self.power * self.log_prior).transpose(0, 1)
        return F.ctc_loss(scores, torch.cat(rows), counts, torch.tensor([len(r) for r in rows]), zero_infinity=True)
