"""The front end of released GPT-SoVITS weights: the checkpoint's own phone table, its codec, and features of Chinese text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ttsadapt.backbones.base import Reference, Request
from ttsadapt.backbones.gpt_sovits.arpabet import arpabet
from ttsadapt.backbones.gpt_sovits.bert import Bert
from ttsadapt.backbones.gpt_sovits.codec import SovitsCodec
from ttsadapt.backbones.gpt_sovits.frontend import GptSovitsFrontend
from ttsadapt.backbones.gpt_sovits.table import PhoneTable
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError, DataError
from ttsadapt.text.phones import phonemize

ENGLISH = "en"


@dataclass(frozen=True)
class ContextReference(Reference):
    """A reference with the features of its text."""

    context: Tensor | None = None
    """(P, bert_size)"""


@dataclass(frozen=True)
class ContextRequest(Request):
    """A request with the features of its text."""

    context: Tensor | None = None
    """(P, bert_size)"""


class ReleasedGptSovitsFrontend(GptSovitsFrontend):
    """Utterances come with the phones of the authors' text front end; English may also come as text or as IPA."""

    codec: SovitsCodec

    def __init__(
        self,
        codec: SovitsCodec,
        symbols: str,
        bert: str | None = None,
        objective: str = "legacy",
        pairs: bool = False,
        references: int = 4,
        reference_seconds: float = 5.0,
        shortest: float = 3.0,
        longest: float = 10.0,
        pause: float = 0.3,
        max_seconds: float = 54.0,
        max_phones: int = 540,
    ) -> None:
        """`symbols`: the checkpoint's phones in the order of its table, a text file with one a line or a .json list. `bert`: a folder or
        hub id, null for zeros. The rest as in GptSovitsFrontend, with the authors' bounds on a reference.
        """
        super().__init__(codec, objective, pairs, references, reference_seconds, shortest, longest, pause, max_seconds, max_phones, hop=320)
        self.references.kind = ContextReference
        self.bert = Bert(bert) if bert else None
        self._table = PhoneTable.read(symbols)

    def _fit(self, spoken: Iterable[Sequence[str]], utterances: Sequence[Utterance], recordings: Iterable[Tensor]) -> None:
        """Table and codec are the checkpoint's; the recordings only tell the pace."""
        for _ in recordings:
            pass

    def restore(self, state: dict[str, Any]) -> None:
        if state["phones"] != self.table.symbols:
            raise CheckpointError(
                "the saved frontend has another phone table than backbone.frontend.symbols: use the file it was made with"
            )
        super().restore(state)

    def read(self, utterance: Utterance) -> tuple[str, ...]:
        """Phones of the manifest when the table has them; IPA of English in ARPAbet; DataError for other text without phones."""
        phones = tuple(p.symbol for p in utterance.phones)
        if phones and all(symbol in self.table for symbol in phones):
            return phones
        if not utterance.language.startswith(ENGLISH):
            raise DataError(
                f"{utterance.id}: text in {utterance.language!r} needs the phones of the authors' text front end: put them in the manifest"
            )
        made = arpabet(phones or phonemize(utterance.text, utterance.language))
        if made is None:
            raise DataError(f"{utterance.id}: {utterance.text!r} has phones that are not English: put the table's phones in the manifest")
        return made

    def refer(self, utterance: Utterance, codes: Tensor) -> Reference:
        return ContextReference(self.read(utterance), codes, utterance.language, self._features(utterance))

    def request(self, utterance: Utterance) -> Request:
        return ContextRequest(**vars(super().request(utterance)), context=self._features(utterance))

    def _features(self, utterance: Utterance) -> Tensor | None:
        return self.bert(utterance.text, self.read(utterance), utterance.language, utterance.id) if self.bert else None

    def context(self, request: Request) -> Tensor | None:
        if self.bert is None:
            return None
        parts: list[Reference | Request] = [request.reference, request] if request.reference else [request]
        found = [(getattr(part, "context", None), len(part.phones)) for part in parts]
        return torch.cat([torch.zeros(n, self.bert.size) if context is None else context for context, n in found])

    def spoken(self, tokens: Tensor, request: Request) -> Tensor:
        return self.codec.decode(tokens, request.speaker, self.table.rows(request.phones, request.id), request.seed)
