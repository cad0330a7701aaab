"""Words by the phone recogniser that is trained on the corpus: it can only hear words that the corpus has."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
from rapidfuzz.fuzz import partial_ratio_alignment
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import Unknown
from ttsadapt.metrics.judges.lexicon import Lexicon
from ttsadapt.metrics.judges.recogniser import Recogniser as Phones
from ttsadapt.metrics.judges.recogniser import phones_of
from ttsadapt.metrics.recognisers.base import Recogniser
from ttsadapt.metrics.recognisers.normaliser import words_of
from ttsadapt.metrics.recognisers.tokens import heard
from ttsadapt.metrics.signal import trimmed


class ClosedVocabulary(Recogniser):
    """Needs no download. Its error rates compare systems on one corpus, and with no other recogniser's; words that sound alike count
    as the same word. A term is heard where its phones are, whether or not the corpus has the word."""

    def __init__(self, steps: int = 1200, close: float = 75.0) -> None:
        """`steps` of the phone recogniser, which `per` shares when its steps are equal. `close`: how like its own phones (%) what was
        said for a term must be."""
        self.steps, self.close = steps, close
        self.lexicon: Lexicon | None = None

    @property
    def model(self) -> str:
        return "ctc-phones, closed vocabulary of the corpus"

    @property
    def normaliser(self) -> str:
        return "lower-case words"

    @property
    def version(self) -> str:
        return self.lexicon.version if self.lexicon else ""

    @property
    def opened(self) -> Lexicon:
        assert self.lexicon is not None, "open comes first"
        return self.lexicon

    def missing(self, key: str) -> str | None:
        try:
            installed("espeakng-loader")
        except PackageNotFoundError:
            return 'words need phones, and espeak-ng is not installed (GPL, so it is optional): pip install "ttsadapt[gpl]"'
        return None

    def needs(self, corpus: Path, cache: Path) -> tuple[Lexicon]:
        return (Lexicon(Phones(corpus, cache, steps=self.steps)),)

    def open(self, corpus: Path, cache: Path) -> None:
        (self.lexicon,) = self.needs(corpus, cache)

    def own_errors(self) -> dict[str, dict[str, float]]:
        return {"words": self.lexicon.stored["error"]} if self.lexicon else {}

    def doubt(self, utterance: Utterance) -> Unknown | None:
        if utterance.language not in self.opened.recogniser.languages:
            return Unknown(f"{utterance.language} is not among the recogniser's languages")
        foreign = next((w for w in words_of(utterance.text) if w not in self.opened.names), None)
        return None if foreign is None else Unknown("the text has words that the corpus does not have, so its recogniser cannot hear them")

    def reference(self, text: str, language: str) -> str:
        names = self.opened.names if self.lexicon else {}
        return " ".join(names.get(word, word) for word in words_of(text))

    def transcribe(self, audio: Tensor, language: str) -> str:
        return _said(self.opened, trimmed(audio).numpy().tobytes())

    def hears(self, audio: Tensor, language: str, term: str) -> bool:
        wanted = phones_of(Utterance(term, Path(), term, "", language=language))
        letters = {phone: chr(ord("a") + i) for i, phone in enumerate(self.opened.recogniser.card["phones"])}
        if not letters.keys() >= set(wanted):
            return False
        said = "".join(letters[p] for p in self.opened.recogniser.transcribe(audio))
        found = partial_ratio_alignment("".join(letters[p] for p in wanted), said)
        return len(said) >= len(wanted) and found is not None and found.score >= self.close


@lru_cache(maxsize=16)
def _said(lexicon: Lexicon, samples: bytes) -> str:
    """Of trimmed float32 samples: several metrics ask for the same clip."""
    import torch

    audio = torch.from_numpy(np.frombuffer(samples, np.float32).copy())
    likely = lexicon.recogniser.likelihoods(audio)
    return "" if likely is None else " ".join(heard(likely, lexicon.entries))
