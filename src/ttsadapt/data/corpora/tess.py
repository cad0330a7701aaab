"""TESS: two women, 200 words in "Say the word ...", seven emotions; OAF_angry/OAF_back_angry.wav (Pichora-Fuller and Dupuis 2020)."""

import re
from collections.abc import Iterator

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, unknown
from ttsadapt.data.layouts.files import below

_NAME = re.compile(r"(?P<speaker>OAF?|YAF)_(?P<word>[A-Za-z'-]+)_(?P<emotion>[A-Za-z]+)")  # one file begins with OA_
_EMOTIONS = {"angry", "disgust", "fear", "happy", "neutral", "ps", "sad"}


class TESS(Layout):
    def recordings(self) -> Iterator[Found | Rejected]:
        for file in below(self.root):
            if not (match := _NAME.fullmatch(file.stem)):
                yield unknown(file, "<OAF or YAF>_<word>_<emotion> such as OAF_back_angry")
            elif (code := match["emotion"].lower()) not in _EMOTIONS:
                yield Rejected(str(file), "unknown code", f"emotion {code!r} is none of {', '.join(sorted(_EMOTIONS))}")
            else:
                label = "pleasant surprise" if code == "ps" else code
                yield self.one(
                    file, f"Say the word {match['word'].lower()}.", "OAF" if match["speaker"] == "OA" else match["speaker"], label
                )
