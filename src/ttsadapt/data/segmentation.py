"""Long recordings in pieces with exactly the words that are said in each: cut in pauses, never by the share of characters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ttsadapt.data.alignment.base import Aligner, Unaligned
from ttsadapt.data.alignment.given import given
from ttsadapt.data.alignment.matching import matched
from ttsadapt.data.found import Found, Rejected, Word
from ttsadapt.errors import ConfigError, DataError

_TINY = 1e-6
"""seconds"""


@dataclass(frozen=True)
class Piece:
    """Words `first` to `last` of a recording, and what is cut out for them."""

    first: int
    last: int
    start: float
    """seconds"""
    end: float


class Segments:
    """Pieces of at most `length` seconds, each beginning up to `overlap` seconds before the end of the one before it."""

    def __init__(
        self, length: float = 10.0, overlap: float = 2.0, search: float = 2.0, margin: float = 0.2, align: Aligner | None = None
    ) -> None:
        """A piece ends in the longest pause of its last `search` seconds; `margin` seconds of a pause stay with the words beside it.

        `align`: where nobody has told the times of words; it is asked for recordings longer than `length` only.
        """
        if not 0 <= overlap < length:
            raise ConfigError(f"segments.overlap is {overlap} and segments.length {length}: give 0 or more, and less than the length")
        if search < 0 or margin < 0:
            raise ConfigError(f"segments.search is {search} and segments.margin {margin}: give 0 or more")
        self.length, self.overlap, self.search, self.margin, self.align = length, overlap, search, margin, align

    def settings(self) -> dict[str, Any]:
        """What a corpus's fingerprint hears of it."""
        numbers = {k: v for k, v in vars(self).items() if k != "align"}
        return numbers | {"align": self.align.settings() if self.align else None}

    def cut(self, found: Found, duration: float) -> list[Found | Rejected]:
        """The pieces, in order, of one `group`; `duration`: of the recording, seconds from `found.start` on. [found] when it is short.

        A word, or a caption, that is longer than a piece is `Rejected` alone.
        """
        end = found.start + duration if found.end is None else found.end
        if end - found.start <= self.length + _TINY:
            return [found]
        try:
            words = apart(self._words(found, end))
        except Unaligned as error:
            return [Rejected(found.where, "alignment", str(error))]
        except DataError as error:
            return [Rejected(found.where, "no word times", str(error))]
        long = [w for w in words if w.end - w.start > self.length]
        told = "{:.1f} s without a pause known in it, longer than a piece ({:g} s): give the times of its words"
        kept: list[Found | Rejected] = [Rejected(_where(found, w), "too long", told.format(w.end - w.start, self.length)) for w in long]
        text = found.utterance.text or " ".join(w.text for w in words)
        at = located(text, words)
        for number, piece in enumerate(self.pieces(words, found.start, end), 1):
            said = words[piece.first : piece.last + 1]
            here = text[at[piece.first][0] : at[piece.last][1]] if at else " ".join(w.text for w in said)
            group = found.group or f"{found.set}/{found.utterance.id}"
            name = f"{found.utterance.id}-{number:03d}"
            utterance = replace(found.utterance, id=name, text=here, duration=piece.end - piece.start, phones=())
            where = f"{found.where}, {piece.start:.2f} to {piece.end:.2f} s"
            kept.append(replace(found, utterance=utterance, where=where, start=piece.start, end=piece.end, words=tuple(said), group=group))
        return kept

    def pieces(self, words: Sequence[Word], start: float, end: float) -> list[Piece]:
        """Of words that do not overlap, within the times `start` and `end` of the file; none holds a word that is longer than a piece."""
        found: list[Piece] = []
        first = 0
        while first < len(words):
            if words[first].end - words[first].start > self.length:
                first += 1
                continue
            piece = self._piece(words, first, found[-1].last if found else -1, start, end)
            found.append(piece)
            first = self._next(words, piece, start, end)
        return found

    def _piece(self, words: Sequence[Word], first: int, after: int, start: float, end: float) -> Piece:
        """From `first` on, as many words as fit, down to the longest pause near the limit; at least one beyond `after`."""
        last = first
        while last + 1 < len(words) and self._fits(words, first, last + 1, start, end):
            last += 1
        if last + 1 < len(words):
            left, _ = self._edges(words, first, first, start, end)
            near = [k for k in range(max(first, after + 1), last + 1) if words[k].end > left + self.length - self.search] or [last]
            last = max(near, key=lambda k: (round(words[k + 1].start - words[k].end, 3), k))
        return Piece(first, last, *self._edges(words, first, last, start, end))

    def _next(self, words: Sequence[Word], piece: Piece, start: float, end: float) -> int:
        """The first word of the next piece: early enough to overlap, late enough for a new word to fit."""
        following = piece.last + 1
        for first in range(piece.first + 1, following):
            left, _ = self._edges(words, first, first, start, end)
            if following < len(words) and piece.end - left <= self.overlap + _TINY and self._fits(words, first, following, start, end):
                return first
        return following

    def _fits(self, words: Sequence[Word], first: int, last: int, start: float, end: float) -> bool:
        left, right = self._edges(words, first, last, start, end)
        return right - left <= self.length + _TINY

    def _edges(self, words: Sequence[Word], first: int, last: int, start: float, end: float) -> tuple[float, float]:
        """Where words are cut out: in the pauses beside them, no further from the words than the margin nor the pauses' middles."""
        before = words[first].start - (words[first - 1].end if first else start)
        behind = (words[last + 1].start if last + 1 < len(words) else end) - words[last].end
        left = words[first].start - min(self.margin, before / 2 if first else before)
        right = words[last].end + min(self.margin, behind / 2 if last + 1 < len(words) else behind)
        if first == last and right - left > self.length:  # a long word: without its margins it fits
            return words[first].start, words[last].end
        return left, right

    def _words(self, found: Found, end: float) -> list[Word]:
        """Told by the corpus, else by what lies beside the recording, else heard. DataError where nobody knows."""
        whole = found.words or given(found.utterance.audio)
        there = [w for w in whole if w.start >= found.start - _TINY and w.end <= end + _TINY]
        if there:
            return [w._replace(start=max(w.start, found.start), end=min(w.end, end)) for w in matched(found.utterance.text, there)]
        if self.align is None:
            name = found.utterance.audio.stem
            raise DataError(
                f"{end - found.start:.1f} s long and nothing tells when its words are said: write {name}.words.csv (word,start,end in "
                f"seconds), {name}.TextGrid, .ctm, .srt or .vtt beside it, or set data.bring.segments.align"
            )
        return [w._replace(start=w.start + found.start, end=w.end + found.start) for w in self._heard(self.align, found, end)]

    def _heard(self, aligner: Aligner, found: Found, end: float) -> tuple[Word, ...]:
        import soundfile
        import torch

        path = found.utterance.audio
        try:
            rate = soundfile.info(path).samplerate
            first, last = round(found.start * rate), round(end * rate)
            samples, _ = soundfile.read(path, start=first, stop=last, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            raise DataError(f"cannot read {path} as audio: replace or remove it") from error
        audio = torch.from_numpy(samples.mean(1) if found.channel is None else samples[:, found.channel].copy())
        return aligner.aligned(audio, rate, found.utterance.text, found.utterance.language).words


def apart(words: Sequence[Word]) -> list[Word]:
    """In order of time; those that overlap are one, since nothing can be cut between them. Up to 20 ms are the aligner's doing."""
    kept: list[Word] = []
    for word in words:
        if kept and word.start < kept[-1].end - 0.02:
            kept[-1] = Word(f"{kept[-1].text} {word.text}", min(kept[-1].start, word.start), max(kept[-1].end, word.end))
        elif kept and word.start < kept[-1].end:
            middle = (word.start + kept[-1].end) / 2
            kept[-1] = kept[-1]._replace(end=max(middle, kept[-1].start))
            kept.append(word._replace(start=kept[-1].end, end=max(word.end, kept[-1].end)))
        else:
            kept.append(word)
    return kept


def located(text: str, words: Sequence[Word]) -> list[tuple[int, int]] | None:
    """Where each word stands in the text; None when they are not all of it, in its order."""
    found: list[tuple[int, int]] = []
    for word in words:
        at = text.find(word.text, found[-1][1] if found else 0)
        if at < 0 or text[found[-1][1] if found else 0 : at].strip():
            return None
        found.append((at, at + len(word.text)))
    return found if not text[found[-1][1] if found else 0 :].strip() else None


def _where(found: Found, word: Word) -> str:
    return f"{found.where}, {word.start:.2f} to {word.end:.2f} s"
