"""What models share that predict frames of codes, a semantic one and then acoustic ones (CSM, Moshi): codes, labels, weights, draws.

Labels are three-dimensional, (B, T, K): the codes to predict at a position, IGNORED elsewhere. Two-dimensional labels are no way
to leave a turn out of the loss: transformers' models overwrite them wherever there is audio.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsadapt.backbones.base import Reference
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import DataError

IGNORED = -100


class FrameCodec(Protocol):
    """Waveform <-> frames of `levels` codes 0 .. codewords - 1, the first level the semantic one."""

    sample_rate: int
    levels: int
    codewords: int
    rate: float
    """codes a second, over all levels"""

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None: ...
    def codes(self, audio: Tensor) -> Tensor: ...
    def decode_codes(self, codes: Tensor) -> Tensor: ...
    def embedding(self) -> Tensor: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


def amortised(learnt: int, share: float) -> int:
    """Of how many frames the acoustic codes are learnt, the end of speech included, when `learnt` frames (with it) are."""
    return 1 + round((learnt - 1) * share)


def drawn_labels(codes: Tensor, learnt: Tensor, share: float) -> Tensor:
    """(T, K) codes and (T,) numbers of turns, 0 for what is not learnt -> (T, K) labels.

    Semantic codes are learnt at every frame of these turns, acoustic ones at the last, which ends the speech, and at a random
    `share` of the others (compute amortisation, as CSM was trained), drawn anew by torch's global generator at every call.
    """
    labels = codes.masked_fill(learnt[:, None] == 0, IGNORED)
    for turn in range(1, int(learnt.max()) + 1):
        where = (learnt == turn).nonzero()[:, 0]
        order = torch.randperm(len(where) - 1)
        labels[where[order[amortised(len(where), share) - 1 :]], 1:] = IGNORED
    return labels


def supervised_at(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, K) labels -> flat indices into B * T of the frames whose semantic, and whose acoustic codes are learnt."""
    flat = labels.flatten(0, 1)
    return (flat[:, 0] != IGNORED).nonzero()[:, 0], (flat[:, 1] != IGNORED).nonzero()[:, 0]


def weights(semantic: float, acoustic: float, levels: int) -> tuple[float, float]:
    """Weights of the two heads when every semantic code weighs `semantic` and every acoustic one `acoustic`.

    sum(w ce) / sum(w) over the codes of a frame: L = (w L0 + (K - 1) Ld) / (w + K - 1) for acoustic = 1, where L0 and Ld are
    means over the codes of a kind (kyutai-labs/moshi-finetune normalises in this way).
    """
    total = semantic + acoustic * (levels - 1)
    return semantic / total, acoustic * (levels - 1) / total


def causal(mask: Tensor) -> Tensor:
    """(B, T) bool, true where there is something -> (B, 1, T, T): which position sees which.

    Given whole, it is taken as it is: transformers would look for positions that start again and take them for packed sequences
    (it also fails where a batch happens to have as many rows as positions), and would ask the device whether anything is masked.
    """
    length = mask.shape[1]
    return torch.ones(length, length, dtype=torch.bool, device=mask.device).tril() & mask[:, None, None]


def choose(logits: Tensor, uniform: Tensor, temperature: float, top_k: int) -> Tensor:
    """(B, V) logits and (B,) numbers in [0, 1) -> (B,) ids out of the `top_k` likeliest; temperature 0: the likeliest."""
    if temperature <= 0:
        return logits.argmax(-1)
    best, index = logits.topk(min(top_k or logits.shape[-1], logits.shape[-1]), sorted=True)
    running = (best.double() / temperature).softmax(-1).cumsum(-1)
    place = (running <= uniform[:, None] * running[:, -1:]).sum(-1).clamp_max(best.shape[-1] - 1)
    return index.gather(1, place[:, None])[:, 0]


def level_tables(codec: FrameCodec, device: torch.device) -> Tensor:
    """(levels, codewords, D) of the codec's codewords, distances true within a level."""
    return codec.embedding().unflatten(0, (codec.levels, -1)).to(device)


def uniforms(seeds: Sequence[int], steps: int, levels: int, device: torch.device) -> Tensor:
    """(B, steps, levels) numbers in [0, 1), a stream for each seed that does not depend on `steps`."""
    streams = [torch.rand(steps, levels, generator=torch.Generator().manual_seed(seed), dtype=torch.double) for seed in seeds]
    return torch.stack(streams).to(device)


def codeword_table(embedding: Tensor, levels: int, width: int) -> Tensor:
    """(levels * codewords, E) codewords -> (levels, codewords, width): principal axes, turned at random, rows of unit size per entry.

    A model of random rows has to learn every codeword by itself; this one starts from which of them sound alike.
    """
    axes = torch.linalg.eigh(embedding.T @ embedding).eigenvectors.flip(1)[:, :width]
    turn = torch.linalg.qr(torch.randn(width, width)).Q[: axes.shape[1]]
    table = (embedding @ axes @ turn).unflatten(0, (levels, -1))
    table = table - table.mean(1, keepdim=True)
    return table / table.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-6)


def right_padded(rows: Sequence[Tensor], value: int | bool = 0) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def shifted_in(codes: Tensor, shift: int) -> Tensor:
    """Codes of a codec -> codes of the model, with a frame of zeros, the end of speech, after them."""
    return F.pad(codes + shift, (0, 0, 0, 1))


class Voices:
    """For every speaker and emotion a few recordings to go on from, chosen without chance."""

    def __init__(self, each: int = 2, seconds: float = 3.0) -> None:
        """`each`: so many are kept, those whose length is nearest to `seconds`."""
        self.each, self.seconds = each, seconds
        self._known: dict[str, dict[str, dict[str, Reference]]] = {}

    @property
    def speakers(self) -> list[str]:
        return sorted(self._known)

    def enroll(self, utterances: Sequence[Utterance], make: Callable[[Utterance], Reference]) -> None:
        """Add speakers, and emotions of speakers, that are new. Those that are known keep their recordings."""
        groups: dict[tuple[str, str], list[Utterance]] = {}
        for utterance in utterances:
            if utterance.emotion not in self._known.get(utterance.speaker, {}):
                groups.setdefault((utterance.speaker, utterance.emotion), []).append(utterance)
        for (speaker, emotion), mine in sorted(groups.items()):
            best = sorted(mine, key=lambda u: (abs(u.duration - self.seconds), u.id))[: self.each]
            self._known.setdefault(speaker, {})[emotion] = {u.id: make(u) for u in best}

    def find(self, speaker: str, emotion: str, where: str, but: str = "") -> Reference | None:
        """The speaker's recording in this emotion, else its neutral one, else any, but never the utterance `but` itself.

        None when the speaker has no other. DataError when nobody enrolled it.
        """
        if speaker not in self._known:
            known = ", ".join(sorted(self._known)) or "none"
            raise DataError(f"{where}: speaker {speaker!r} is unknown, there are {known}: enroll it from recordings")
        mine = self._known[speaker]
        for name in dict.fromkeys([emotion, "neutral", *sorted(mine)]):
            for utterance, reference in mine.get(name, {}).items():
                if utterance != but:
                    return reference
        return None

    def state(self) -> list[dict[str, Any]]:
        return [
            {"speaker": s, "emotion": e, "id": i, "phones": list(r.phones), "codes": r.codes, "language": r.language}
            for s, emotions in self._known.items()
            for e, recordings in emotions.items()
            for i, r in recordings.items()
        ]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        self._known = {}
        for row in state:
            place = self._known.setdefault(row["speaker"], {}).setdefault(row["emotion"], {})
            place[row["id"]] = Reference(tuple(row["phones"]), row["codes"], row["language"])
