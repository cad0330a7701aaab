"""Where the speech of a phone is to be expected: mean durations of phones, told apart by emotion.

Frontends of models that are trained from scratch number phones by it (`paced_positions`): a phone and its speech tokens then have
about the same position, and the alignment starts near the diagonal.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError


class Pacing:
    """A phone lasts `lasting[phone] * tempo[emotion]` seconds."""

    def __init__(self) -> None:
        self.lasting: dict[str, float] = {}
        self.tempo: dict[str, float] = {}
        self.usual = 0.08
        """seconds of a phone that nothing is known of"""

    def fit(self, utterances: Sequence[Utterance], spoken: Mapping[str, Sequence[str]]) -> None:
        """From alignments where there are any, else as if all phones of an utterance lasted as long as one another.

        `spoken`: phones of each utterance by id. Alternates between the two factors; three rounds settle them.
        """
        heard = [(u.emotion, _durations(u, spoken[u.id])) for u in utterances]
        self.tempo = dict.fromkeys((emotion for emotion, _ in heard), 1.0)
        for _ in range(3):
            times: dict[str, list[float]] = {}
            for emotion, durations in heard:
                for symbol, seconds in durations:
                    times.setdefault(symbol, []).append(seconds / self.tempo[emotion])
            self.lasting = {symbol: sum(all_of) / len(all_of) for symbol, all_of in times.items()}
            sums = {emotion: [0.0, 1e-9] for emotion in self.tempo}
            for emotion, durations in heard:
                sums[emotion][0] += sum(seconds for _, seconds in durations)
                sums[emotion][1] += sum(self.lasting[symbol] for symbol, _ in durations)
            self.tempo = {emotion: taken / expected for emotion, (taken, expected) in sums.items()}
        self.usual = sum(self.lasting.values()) / max(len(self.lasting), 1)

    def starts(self, symbols: Sequence[str | None], emotion: str | None) -> Tensor:
        """(n,) symbols -> (n + 1,) seconds at which each is expected to start, and the last one to end; None: an unknown symbol."""
        lasting = [self.usual if s is None else self.lasting.get(s, self.usual) for s in symbols]
        return torch.tensor([0.0, *lasting]).cumsum(0) * (1.0 if emotion is None else self.tempo.get(emotion, 1.0))

    def steps(self, symbols: Sequence[str | None], emotion: str | None, rate: float, before: Sequence[str] = (), taken: int = 0) -> Tensor:
        """(b + n + 1,) steps of `rate` a second at which `before`, then `symbols`, are expected to start, and the last one to end.

        `before`: what a recording of `taken` steps says, which the symbols follow: it fills the recording.
        """
        heard, own = self.starts(before, emotion), self.starts(symbols, emotion)
        stretched = heard[:-1] * (taken / heard[-1].clamp_min(1e-9))
        return torch.cat([stretched, taken + own * rate]).round().long()

    def state(self) -> dict[str, Any]:
        return {"lasting": self.lasting, "tempo": self.tempo, "usual": self.usual}

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when the saved frontend had none."""
        if not state:
            raise CheckpointError("the base was trained with backbone.frontend.paced_positions=false: use the base's own config")
        self.lasting, self.tempo, self.usual = dict(state["lasting"]), dict(state["tempo"]), float(state["usual"])


def _durations(utterance: Utterance, spoken: Sequence[str]) -> list[tuple[str, float]]:
    if utterance.phones:
        return [(p.symbol, p.end - p.start) for p in utterance.phones]
    return [(symbol, utterance.duration / len(spoken)) for symbol in spoken]
