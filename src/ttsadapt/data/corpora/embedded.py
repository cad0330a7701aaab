"""The corpus that needs no download: speech that espeak-ng synthesises on the spot, with exact phone boundaries.

Source voices share one table of emotions; the target voices have ways of their own, so a base that was trained on the source
cannot know them. No sentence is in more than one of train, valid and test, whatever the set.
"""

import importlib.metadata
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ttsadapt.data import espeak, manifest, pcm, rendering, sentences, styles
from ttsadapt.data.corpora.base import Corpus
from ttsadapt.data.rendering import Line
from ttsadapt.data.styles import Style
from ttsadapt.errors import ConfigError
from ttsadapt.files import content_hash, digest

SOURCE_VOICES = ("m1", "m2", "m3", "m8", "boris", "Diogo", "marcelo", "f1", "f2", "f3", "f4", "belinda", "linda", "Annie")
UNSEEN_VOICES = ("m5", "quincy", "f5", "aunty")
TARGET_POOL = (
    *("shelby", "Lee", "zac", "kaukovalta", "Alicia", "Andrea", "ian", "anika", "edward", "Andy", "Reed", "steph", "david"),
    *("travis", "victor", "robert", "pablo", "sandro", "iven3", "Michael", "Denis", "Mario", "mike2", "m7", "Nguyen"),
)
"""espeak-ng's variants in about the order of how unlike the source voices they sound (mel spectra of the same phones)"""


class Embedded(Corpus):
    """Sets "source", "target", "ood" (source voices, half other kinds of English text, half another language) and "unseen"."""

    def __init__(
        self,
        seed: int = 0,
        sample_rate: int = 16000,
        language: str = "en-us",
        second_language: str = "de",
        source_voices: Sequence[str] = SOURCE_VOICES,
        unseen_voices: Sequence[str] = UNSEEN_VOICES,
        target_voices: int = 1,
        target_pool: Sequence[str] = TARGET_POOL,
        target_emotions: Mapping[str, Mapping[str, float]] | None = None,
        source_train: int = 2600,
        source_valid: int = 56,
        source_test: int = 56,
        target_train: int = 140,
        target_valid: int = 21,
        target_test: int = 28,
        ood_test: int = 28,
        unseen_train: int = 16,
        unseen_test: int = 21,
        processes: int = 2,
    ) -> None:
        """Counts are utterances of a set and split, those of the target per voice, balanced over voices and emotions.

        `target_pool` is taken from its start, without voices that the source or the unseen set has. `target_emotions` gives the
        target emotions of its own: {excited: {rate: 240, pitch: 70, ...}} with the settings of `styles.Style`; null: the seven
        of the source, differently expressed. Every voice varies its settings a little. `processes` changes nothing but the time it takes.
        """
        self.seed, self.sample_rate, self.language, self.second_language = seed, sample_rate, language, second_language
        self.source_voices, self.unseen_voices = tuple(source_voices), tuple(unseen_voices)
        self.target_voices = _first(target_voices, target_pool, {*source_voices, *unseen_voices})
        self.target_styles = styles.custom(target_emotions)
        self.counts = {
            "source.train": source_train,
            "source.valid": source_valid,
            "source.test": source_test,
            "target.train": target_train,
            "target.valid": target_valid,
            "target.test": target_test,
            "ood.test": ood_test,
            "unseen.train": unseen_train,
            "unseen.test": unseen_test,
        }
        self.processes = processes
        self._check()

    def fingerprint(self) -> str:
        """Settings, the code that makes the audio, and the versions of what it calls."""
        settings = {k: v for k, v in vars(self).items() if k != "processes"}
        settings["target_styles"] = styles.settings(self.target_styles)
        code = [content_hash(Path(str(m.__file__))) for m in (espeak, pcm, rendering, sentences, styles)]
        versions = [espeak.version(), *(importlib.metadata.version(p) for p in ("numpy", "scipy", "soxr"))]
        return digest([settings, code, content_hash(Path(__file__)), versions])

    def prepare(self, folder: Path) -> None:
        known = espeak.engine().variants()
        for voice in (*self.source_voices, *self.unseen_voices, *self.target_voices):
            if voice not in known:
                raise ConfigError(f"espeak-ng has no voice variant {voice!r}{espeak.nearest(voice, known)}")
        lines = list(self.script())
        parts: dict[str, list] = {}
        for line, utterance in zip(lines, rendering.render(lines, folder, self.sample_rate, self.seed, self.processes)):
            parts.setdefault(line.part, []).append(utterance)
        for part, utterances in parts.items():
            manifest.write(utterances, folder, part)

    def script(self) -> Iterator[Line]:
        """Everything that is said, in order."""
        for part, count in self.counts.items():
            kind, _, split = part.partition(".")
            if kind == "ood":
                yield from self._ood(count)
            elif kind == "target":
                for voice in self.target_voices:
                    yield from self._lines(part, self._texts(f"{part} {voice}", split, count), (voice,), self.target_styles)
            else:
                voices = self.source_voices if kind == "source" else self.unseen_voices
                yield from self._lines(part, self._texts(part, split, count), voices, styles.SOURCE)

    def _lines(
        self, part: str, texts: Sequence[str], voices: Sequence[str], table: Mapping[str, Style], language: str = ""
    ) -> Iterator[Line]:
        language = language or self.language
        for i, (text, (voice, emotion)) in enumerate(zip(texts, _pairs(len(texts), voices, list(table)))):
            name = f"{part.replace('.', '-')}-{language}-{voice}-{emotion}-{i:05d}".replace(" ", "_")
            yield Line(name, part, text, voice, emotion, table[emotion], language)

    def _ood(self, count: int) -> Iterator[Line]:
        english, foreign = sentences.other(count - count // 2, self.seed), sentences.german(count // 2, self.seed)
        yield from self._lines("ood.test", english, self.source_voices, styles.SOURCE)
        yield from self._lines("ood.test", foreign, self.source_voices, styles.SOURCE, self.second_language)

    def _texts(self, name: str, split: str, count: int) -> list[str]:
        """`count` of the sentences that belong to this split, in an order of their own; all of them before any repeats."""
        pool = self._pools()[split]
        draw = random.Random(f"{self.seed} {name}")
        rounds = [draw.sample(pool, len(pool)) for _ in range(-(-count // max(len(pool), 1)))]
        return [text for one in rounds for text in one][:count]

    def _pools(self) -> dict[str, list[str]]:
        """Sentences by split, disjoint. Test comes first, so that more training data leaves the test as it was."""
        sizes = {s: sum(n for part, n in self.counts.items() if part.endswith(s)) for s in ("test", "valid", "train")}
        texts = iter(sentences.plain(sum(sizes.values()), self.seed))
        return {split: [next(texts) for _ in range(size)] for split, size in sizes.items()}

    def _check(self) -> None:
        if not self.source_voices:
            raise ConfigError("source_voices is empty: name at least one voice")
        if shared := {*self.source_voices} & {*self.unseen_voices}:
            raise ConfigError(f"{', '.join(sorted(shared))}: in source_voices and in unseen_voices; take them out of one")
        if not self.unseen_voices and (self.counts["unseen.train"] or self.counts["unseen.test"]):
            raise ConfigError("unseen_voices is empty: name a voice, or set unseen_train and unseen_test to 0")
        for part, count in self.counts.items():
            if count < 0:
                raise ConfigError(f"{part.replace('.', '_')} is {count}: give 0 or more")
        if not 8000 <= self.sample_rate <= 48000:
            raise ConfigError(f"sample_rate is {self.sample_rate}: give 8000 to 48000 Hz")


def _first(count: int, pool: Sequence[str], taken: set[str]) -> tuple[str, ...]:
    free = [voice for voice in dict.fromkeys(pool) if voice not in taken]
    if not 1 <= count <= len(free):
        raise ConfigError(f"target_voices is {count}: give 1 to {len(free)}, or name more in target_pool")
    return tuple(free[:count])


def _pairs(count: int, voices: Sequence[str], emotions: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Voices with emotions: both balanced, and every voice in every emotion before any pair comes again."""
    for i in range(count):
        # The longer list is walked through; the shorter one moves on by one more each time around.
        if len(voices) >= len(emotions):
            yield voices[i % len(voices)], emotions[(i % len(voices) + i // len(voices)) % len(emotions)]
        else:
            yield voices[(i % len(emotions) + i // len(emotions)) % len(voices)], emotions[i % len(emotions)]
