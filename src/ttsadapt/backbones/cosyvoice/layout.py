"""Where text, speech and control vectors stand in a row of CosyVoice's language models, and what each position predicts.

One class a version. Speech tokens are 0 .. tokens - 1; what else has a row in the speech embedding or the output differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

TEXT, SPEECH, CONTROL, VOICE = range(4)
"""which table a position's vector comes from; of VOICE there is one a row"""
NOTHING = -1
"""target of a position that predicts nothing"""

Slot = tuple[int, int]
"""(kind, id)"""


@dataclass(frozen=True)
class Row:
    """One utterance for the language model; all are (L,) long."""

    kinds: Tensor
    ids: Tensor
    """row of the kind's table; for text, the token itself, or in an encoded text its position"""
    targets: Tensor
    """speech token or control that comes next, NOTHING where none is asked for"""


class Layout:
    """CosyVoice 2: sos text task speech; 2 unused rows after the end's, of which one says that text is to follow (`fill`)."""

    family: ClassVar[str] = "CosyVoice2 LLM"
    encoded: ClassVar[bool] = False
    """text goes through an encoder of its own"""
    voiced: ClassVar[bool] = False
    """a speaker vector follows sos"""
    separate_instruct: ClassVar[bool] = False
    """an instruction stands before the text and is never interleaved; elsewhere it is part of the text"""
    interleaves: ClassVar[bool] = True
    controls: ClassVar[int] = 2
    """rows of the table of control vectors"""
    beyond: ClassVar[tuple[int, int]] = (3, 3)
    """rows of the speech embedding and of the output after those of the speech tokens"""
    end_row: ClassVar[int] = 0
    fill_row: ClassVar[int] = 2
    """among those"""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    @classmethod
    def of_rows(cls, embedded: int) -> Self:
        """By the rows of the speech embedding."""
        return cls(embedded - cls.beyond[0])

    @property
    def embedded(self) -> int:
        """Rows of the speech embedding."""
        return self.tokens + self.beyond[0]

    @property
    def predicted(self) -> int:
        """Rows of the output; those from `tokens` on end an utterance when they are drawn."""
        return self.tokens + self.beyond[1]

    @property
    def end(self) -> int:
        return self.tokens + self.end_row

    @property
    def fill(self) -> int:
        """Predicted after a chunk of speech when the next chunk of text is wanted; never an input."""
        return self.tokens + self.fill_row

    @property
    def opening(self) -> Slot:
        return CONTROL, 0

    @property
    def task(self) -> Slot:
        return CONTROL, 1

    def prefix(self, text: Tensor, speech: Tensor, instruct: Tensor) -> list[tuple[int, Tensor]]:
        """(kind, ids) parts of a row in which all text precedes speech."""
        return [*self._head(instruct), *self._text(text), _slot(self.task), (SPEECH, speech)]

    def whole(self, text: Tensor, speech: Tensor, instruct: Tensor) -> Row:
        """A row in which all text precedes speech: every speech token and the end are predicted."""
        kinds, ids = _joined(self.prefix(text, speech, instruct))
        targets = torch.full_like(ids, NOTHING)
        targets[len(ids) - len(speech) - 1 :] = torch.cat([speech, speech.new_tensor([self.end])])
        return Row(kinds, ids, targets)

    def interleaved(self, text: Tensor, speech: Tensor, instruct: Tensor, ratio: Sequence[int]) -> Row:
        """ratio[0] text, ratio[1] speech, and so on; then what is left of the text, task, and what is left of the speech.

        The last text of a chunk predicts its first speech token, the last speech token of a chunk predicts `fill`.
        """
        a, b = ratio
        chunks = len(text) // a
        parts, targets = self._head(instruct), []
        for i in range(chunks):
            said = speech[i * b : (i + 1) * b]
            parts += [(TEXT, text[i * a : (i + 1) * a]), (SPEECH, said)]
            targets += [_nothing(a - 1), said, said.new_tensor([self.fill])]
        rest = speech[chunks * b :]
        tail = text[chunks * a :]
        opened = sum(len(ids) for _, ids in self._head(instruct))
        parts += [(TEXT, tail), _slot(self.task), (SPEECH, rest)]
        kinds, ids = _joined(parts)
        return Row(kinds, ids, torch.cat([_nothing(opened), *targets, _nothing(len(tail)), rest, rest.new_tensor([self.end])]))

    def fits(self, text: int, speech: int, ratio: Sequence[int]) -> bool:
        """Whether there is speech enough to interleave."""
        return self.interleaves and speech * ratio[0] > text * ratio[1]

    def _head(self, instruct: Tensor) -> list[tuple[int, Tensor]]:
        return [_slot(self.opening), (TEXT, instruct)]

    def _text(self, text: Tensor) -> list[tuple[int, Tensor]]:
        return [(TEXT, text)]


class Layout1(Layout):
    """CosyVoice 1: sos voice encoded-text task speech."""

    family: ClassVar[str] = "CosyVoice1 LLM"
    encoded: ClassVar[bool] = True
    voiced: ClassVar[bool] = True
    interleaves: ClassVar[bool] = False
    beyond: ClassVar[tuple[int, int]] = (0, 1)

    def _head(self, instruct: Tensor) -> list[tuple[int, Tensor]]:
        return [_slot(self.opening), _slot((VOICE, 0))]

    def _text(self, text: Tensor) -> list[tuple[int, Tensor]]:
        return [(TEXT, torch.arange(len(text)))]


class Layout2(Layout):
    """CosyVoice 2."""


class Layout3(Layout):
    """CosyVoice 3: sos instruct text task speech, with sos and task among the rows after the speech tokens."""

    family: ClassVar[str] = "CosyVoice3 LLM"
    separate_instruct: ClassVar[bool] = True
    controls: ClassVar[int] = 0
    beyond: ClassVar[tuple[int, int]] = (200, 200)
    end_row: ClassVar[int] = 1
    fill_row: ClassVar[int] = 3

    @property
    def opening(self) -> Slot:
        return SPEECH, self.tokens

    @property
    def task(self) -> Slot:
        return SPEECH, self.tokens + 2


def paced(kinds: Tensor, steps: Tensor, speech: Tensor) -> Tensor:
    """(L,) rotary positions: the text's are `steps` (T,), in speech tokens, and `speech` (L,) bool says which positions hold one.

    What is neither stands where the speech has got to. So a symbol and its speech tokens have about the same position, however
    text and speech alternate.
    """
    positions = speech.cumsum(0)
    positions[kinds == TEXT] = 1 + steps
    return positions


def padded(rows: Sequence[Row]) -> dict[str, Tensor]:
    """`kinds`, `symbols`, `targets` (B, L) and `mask` (B, L) bool; padding is speech token 0 and predicts nothing."""
    kinds = pad_sequence([r.kinds for r in rows], batch_first=True, padding_value=SPEECH)
    lengths = torch.tensor([len(r.kinds) for r in rows])
    return {
        "kinds": kinds,
        "symbols": pad_sequence([r.ids for r in rows], batch_first=True),
        "targets": pad_sequence([r.targets for r in rows], batch_first=True, padding_value=NOTHING),
        "mask": torch.arange(kinds.shape[1]) < lengths[:, None],
    }


def _slot(slot: Slot) -> tuple[int, Tensor]:
    return slot[0], torch.tensor([slot[1]])


def _nothing(n: int) -> Tensor:
    return torch.full((n,), NOTHING)


def _joined(parts: Sequence[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    kinds = torch.cat([torch.full((len(ids),), kind) for kind, ids in parts])
    return kinds, torch.cat([ids for _, ids in parts]).long()
