"""EmoDB, the Berlin database of emotional speech: ten German speakers, ten sentences; wav/03a01Fa.wav (Burkhardt et al. 2005)."""

import re
from collections.abc import Iterator

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, unknown
from ttsadapt.data.layouts.files import below, rooted

_SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute Abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_EMOTIONS = {"W": "Wut", "L": "Langeweile", "E": "Ekel", "A": "Angst", "F": "Freude", "T": "Trauer", "N": "neutral"}
_NAME = re.compile(r"(?P<speaker>\d\d)(?P<sentence>[a-z]\d\d)(?P<emotion>[A-Z])(?P<version>[a-z]?)")
_CODES = {"sentence": _SENTENCES, "emotion": _EMOTIONS}


class EmoDB(Layout):
    spoken = "de"

    def recordings(self) -> Iterator[Found | Rejected]:
        for file in below(rooted(self.path, "wav") / "wav"):
            if not (match := _NAME.fullmatch(file.stem)):
                yield unknown(file, "<speaker><sentence><emotion><version> such as 03a01Fa")
            elif strange := [name for name in _CODES if match[name] not in _CODES[name]]:
                yield Rejected(str(file), "unknown code", f"{strange[0]} {match[strange[0]]!r} is none of {', '.join(_CODES[strange[0]])}")
            else:
                yield self.one(file, _SENTENCES[match["sentence"]], match["speaker"], _EMOTIONS[match["emotion"]])
