"""Two trained blocks against all weights: how near a whole training step comes to what its operations allow (CSP-FT, arXiv 2501.14273).

The paper measures 1.91 to 2.62 times (figure 4 there). How much there is to gain depends on how low the lowest trained block lies:
below it no gradient flows, and with what the blocks below it put out kept (`ttsadapt.prefix`), nothing is computed at all.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ttsadapt.backbones.base import Batch, Request
from ttsadapt.backbones.qwen_tts import QwenTTS
from ttsadapt.backbones.qwen_tts_tokens import Codec, SpeechTokenFrontend
from ttsadapt.backbones.qwen_tts_vocabulary import Rows
from ttsadapt.bench.base import Case, Comparison, Side, Work, memory, speed
from ttsadapt.data.features import Features, FeatureSet
from ttsadapt.data.utterance import Utterance
from ttsadapt.learner import Learner, adapt
from ttsadapt.prefix import Memory, PrefixCache
from ttsadapt.strategies.base import Strategy, Study, generator
from ttsadapt.strategies.full import Full
from ttsadapt.strategies.partial import Partial
from ttsadapt.where.explicit import Explicit

REQUIRED = 0.9
"""of what the operations allow"""
TEXT_ROWS = 100


class Mute:
    """Stands for a codec: nothing is heard here."""

    sample_rate = 16000


class DrawnRows:
    """Rows of text, then of speech, then the end and padding."""

    def __init__(self, tokens: int) -> None:
        self.speech = range(TEXT_ROWS, TEXT_ROWS + tokens)
        self.end, self.pad = TEXT_ROWS + tokens, TEXT_ROWS + tokens + 1

    def __len__(self) -> int:
        return self.pad + 1


class DrawnTokens(SpeechTokenFrontend):
    """Text and speech of drawn lengths and rows, a function of the utterance's number; frames are positions."""

    def __init__(self, speech_rows: int, text: Sequence[int], speech: Sequence[int]) -> None:
        """`text`, `speech`: the fewest and the most tokens of an utterance."""
        super().__init__(cast(Codec, Mute()), max_tokens=text[1] + speech[1] + 1, hop=1, dropped=0.0)
        self.text, self.said, self.rows = tuple(text), tuple(speech), DrawnRows(speech_rows)

    @property
    def vocabulary(self) -> Rows:
        return self.rows

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(int(utterance.id))

        def some(bounds: tuple[int, ...], rows: range) -> Tensor:
            count = int(torch.randint(bounds[0], bounds[1] + 1, (), generator=draw))
            return torch.randint(rows.start, rows.stop, (count,), generator=draw)

        prompt, speech = some(self.text, range(TEXT_ROWS)), some(self.said, self.rows.speech)
        tokens = torch.cat([prompt, speech, torch.tensor([self.rows.end])])
        return {"tokens": tokens, "prompt": torch.tensor(len(prompt)), "speaker": torch.zeros(0), "frames": torch.tensor(len(tokens))}

    def fit(self, utterances: Sequence[Utterance]) -> None: ...
    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None: ...
    def request(self, utterance: Utterance) -> Request:
        raise NotImplementedError("nothing is spoken in a benchmark")

    def prompt(self, request: Request) -> Tensor:
        raise NotImplementedError("nothing is spoken in a benchmark")

    def bounds(self, request: Request) -> tuple[int, int]:
        raise NotImplementedError("nothing is spoken in a benchmark")


@dataclass(frozen=True)
class Operations:
    """Multiplications of one forward pass over some batches."""

    linear: float
    """of the linears of one block"""
    attention: float
    """of the two products inside the attention of one block"""
    head: float
    blocks: int

    @property
    def full(self) -> float:
        """Forward, gradients of inputs, gradients of weights: three forward passes. The backward of an attention is two of its forwards."""
        return 3 * (self.blocks * (self.linear + self.attention) + self.head)

    def partial(self, trained: Sequence[int], kept: bool) -> float:
        """Forward of all blocks, or of those that are not kept; backward to the lowest trained one; weights of the trained ones.

        The head does not train: forward, and the gradient of its input.
        """
        lowest = min(trained)
        forward = (self.blocks - lowest * kept) * (self.linear + self.attention)
        backward = (self.blocks - lowest) * (self.linear + 2 * self.attention)
        return forward + backward + len(trained) * self.linear + 2 * self.head

    def allowed(self, trained: Sequence[int], kept: bool) -> float:
        """How many times as fast as full fine-tuning training these blocks could be."""
        return self.full / self.partial(trained, kept)


class CSPSpeed(Case):
    """A step of the Learner without its optimiser: full fine-tuning, and two blocks at various depths, computed and kept."""

    unit = "positions"

    def __init__(
        self,
        blocks: int = 24,
        hidden: int = 384,
        intermediate: int = 1536,
        heads: int = 6,
        kv_heads: int = 2,
        speech_rows: int = 4096,
        text: Sequence[int] = (20, 60),
        speech: Sequence[int] = (80, 400),
        utterances: int = 8,
        batch: int = 4,
        highest: int = 23,
        lowest: Sequence[int] = (0, 6, 12, 18, 22),
    ) -> None:
        """Sizes are Qwen2's. `utterances` of a repeat, `batch` of a step. `highest`, `lowest`: trained blocks; one pair a side."""
        self.blocks, self.hidden, self.intermediate, self.heads, self.kv_heads = blocks, hidden, intermediate, heads, kv_heads
        self.speech_rows, self.text, self.speech = speech_rows, tuple(text), tuple(speech)
        self.utterances, self.batch, self.highest, self.lowest = utterances, batch, highest, tuple(lowest)

    def sides(self) -> Mapping[str, Side]:
        """Below block 0 there is nothing to keep."""
        made: dict[str, Side] = {"full": partial(self._work, Full(), False)}
        for trained in self._pairs():
            for kept in (False, True)[: 2 if min(trained) else 1]:
                made[self._name(trained, kept)] = partial(self._work, Partial(Explicit([f"backbone.{n}" for n in trained])), kept)
        return made

    def comparisons(self) -> Sequence[Comparison]:
        found = []
        for trained in self._pairs():
            for kept in (False, True)[: 2 if min(trained) else 1]:
                name, allowed = self._name(trained, kept), self.operations.allowed(trained, kept)
                found += [Comparison(name, "full", speed, at_least=round(REQUIRED * allowed, 3)), Comparison(name, "full", memory)]
        return found

    def _pairs(self) -> list[tuple[int, int]]:
        return [(low, self.highest) for low in self.lowest]

    def _name(self, trained: Sequence[int], kept: bool) -> str:
        """With what the operations allow, for the table."""
        allowed = self.operations.allowed(trained, kept)
        return f"{'+'.join(map(str, trained))}{' kept' * kept}, {allowed:.2f}x at most"

    @cached_property
    def frontend(self) -> DrawnTokens:
        return DrawnTokens(self.speech_rows, self.text, self.speech)

    @cached_property
    def operations(self) -> Operations:
        """Counted as they are computed: attention over whole padded squares, the head at supervised positions only."""
        lengths = sorted((len(f["tokens"]), int(f["prompt"])) for f in map(self.frontend, drawn(self.utterances)))
        longest = [lengths[n : n + self.batch][-1][0] for n in range(0, len(lengths), self.batch)]
        sizes = [min(self.batch, len(lengths) - n) for n in range(0, len(lengths), self.batch)]
        width = self.hidden + self.hidden * self.kv_heads // self.heads  # query and output; key and value
        weights = 2 * self.hidden * width + 3 * self.hidden * self.intermediate
        return Operations(
            linear=weights * sum(b * t for b, t in zip(sizes, longest)),
            attention=2 * self.hidden * sum(b * t * t for b, t in zip(sizes, longest)),
            head=self.hidden * (self.speech_rows + 1) * sum(length - prompt for length, prompt in lengths),
            blocks=self.blocks,
        )

    def _work(self, strategy: Strategy, kept: bool) -> Work:
        learner = self._learner(strategy)
        with tempfile.TemporaryDirectory() as folder:
            features = self._features(Path(folder))
            ids = sorted(features.ids, key=lambda i: features.lengths[i]["frames"])
            if kept:
                cache = PrefixCache(Memory())
                cache.start(learner, [(features, ids)])
            batches = [features.collate(ids[n : n + self.batch]) for n in range(0, len(ids), self.batch)]
        positions = sum(int(batch["mask"].sum()) for batch in batches)
        return partial(train, learner, batches, positions)

    def _learner(self, strategy: Strategy) -> Learner:
        torch.manual_seed(0)
        backbone = QwenTTS(
            self.frontend, self.hidden, self.intermediate, self.blocks, self.heads, self.kv_heads, tie_word_embeddings=False
        )  # fmt: skip
        nothing = cast(FeatureSet, None)  # neither strategy looks at data
        study = Study(backbone, nothing, nothing, Path(), 0, generator(0, "bench"))
        strategies = {"how": strategy}
        return Learner(backbone, strategies, adapt(backbone, strategies, lambda _: study), torch.optim.SGD)

    def _features(self, folder: Path) -> FeatureSet:
        utterances = drawn(self.utterances)
        made = Features(folder / "drawn", self.frontend, utterances, "drawn tokens")
        made.produce()
        return FeatureSet(made.folder, self.frontend, utterances, 0)


def drawn(count: int) -> list[Utterance]:
    return [Utterance(str(n), Path(), "", "") for n in range(count)]


def train(learner: Learner, batches: Sequence[Batch], positions: int) -> int:
    """One step a batch: forward, loss, backward."""
    learner.train()
    for batch in batches:
        learner.zero_grad(set_to_none=True)
        torch.stack(list(learner.terms(batch).values())).sum().backward()
    return positions
