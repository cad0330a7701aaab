"""The corpus that needs no download: speech that espeak-ng synthesises on the spot, with exact phone boundaries.

Source voices share one table of emotions; the target voices have ways of their own, so a base that was trained on the source
cannot know them. No sentence is in more than one of train, valid and test, whatever the set.
"""

import importlib.metadata
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ttsadapt.data import conditions as recording
from ttsadapt.data import espeak, manifest, pcm, rendering, sentences, styles
from ttsadapt.data.conditions import Clean, Condition
from ttsadapt.data.corpora.base import SETS, Corpus
from ttsadapt.data.rendering import Line
from ttsadapt.data.styles import Style
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError
from ttsadapt.files import content_hash, digest, write_json
from ttsadapt.text.phones import phonemize

SOURCE_VOICES = ("m1", "m2", "m3", "m8", "boris", "Diogo", "marcelo", "f1", "f2", "f3", "f4", "belinda", "linda", "Annie")
UNSEEN_VOICES = ("m5", "quincy", "f5", "aunty")
TARGET_POOL = (
    *("shelby", "Lee", "zac", "kaukovalta", "Alicia", "Andrea", "ian", "anika", "edward", "Andy", "Reed", "steph", "david"),
    *("travis", "victor", "robert", "pablo", "sandro", "iven3", "Michael", "Denis", "Mario", "mike2", "m7", "Nguyen"),
)
"""espeak-ng's variants in about the order of how unlike the source voices they sound (mel spectra of the same phones)"""


_NOTHING: Mapping[str, Any] = MappingProxyType({})
_DIALOGUES = tuple(f"{kind}_{split}" for split in ("test", "valid", "train") for kind in ("source", "target"))
"""where dialogues may be asked for; tests get theirs first, so that more training data leaves them as they were"""


class Embedded(Corpus):
    """Sets "source", "target", "ood" (source voices, half other kinds of English text, half another language) and "unseen".

    With `terms` also "terms": the target voices say every term in sentences that are like none of the training's.

    Counts are utterances of a set and split, those of the target per voice, balanced over voices and emotions.

    `source_languages`, `target_languages`: utterances are shared out evenly; null: `language` alone.
    `target_pool` is taken from its start, without voices that the source or the unseen set has. `target_emotions` gives the
    target emotions of its own: {excited: {rate: 240, pitch: 70, ...}} with the settings of `styles.Style`, or names of what
    `styles` knows: [whispering, newsreading]; null: the seven of the source, differently expressed. Every voice varies its
    settings a little. `conditions`: what train and valid of a set, or of a voice, were recorded in (a voice's own before its
    set's); tests are clean but for `test_conditions`. The first `terms_learnt` of `terms` are in target.train, in `term_train`
    sentences each of every voice; the set "terms" has all of them, `term_test` sentences each.
    `dialogues`: how many there are beside the counts, of two voices that take turns in one emotion: {target_train: 40, source_test: 8};
    every turn has those before it as its context. `processes` changes nothing but the time it takes.
    """

    def __init__(
        self,
        seed: int = 0,
        sample_rate: int = 16000,
        language: str = "en-us",
        second_language: str = "de",
        source_languages: Sequence[str] | None = None,
        target_languages: Sequence[str] | None = None,
        source_voices: Sequence[str] = SOURCE_VOICES,
        unseen_voices: Sequence[str] = UNSEEN_VOICES,
        target_voices: int = 1,
        target_pool: Sequence[str] = TARGET_POOL,
        target_emotions: Mapping[str, Mapping[str, float]] | Sequence[str] | None = None,
        conditions: Mapping[str, Condition] = _NOTHING,
        test_conditions: Mapping[str, Condition] = _NOTHING,
        terms: Sequence[str] = (),
        terms_learnt: int = 16,
        term_train: int = 4,
        term_test: int = 2,
        dialogues: Mapping[str, int] = _NOTHING,
        dialogue_turns: Sequence[int] = (2, 6),
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
        self.seed, self.sample_rate, self.language, self.second_language = seed, sample_rate, language, second_language
        self.languages = {"source": tuple(source_languages or (language,)), "target": tuple(target_languages or (language,))}
        self.source_voices, self.unseen_voices = tuple(source_voices), tuple(unseen_voices)
        self.target_voices = _first(target_voices, target_pool, {*source_voices, *unseen_voices})
        self.target_styles = styles.custom(target_emotions)
        self.conditions = {False: dict(conditions), True: dict(test_conditions)}
        self.terms, self.terms_learnt, self.term_train, self.term_test = tuple(terms), terms_learnt, term_train, term_test
        self.dialogues, self.dialogue_turns = dict(dialogues), tuple(dialogue_turns)
        self.counts = {
            "source.train": source_train, "source.valid": source_valid, "source.test": source_test,
            "target.train": target_train, "target.valid": target_valid, "target.test": target_test,
            "ood.test": ood_test, "unseen.train": unseen_train, "unseen.test": unseen_test,
        }  # fmt: skip
        self.processes = processes
        self._check()

    def fingerprint(self) -> str:
        """Settings, the code that makes the audio, and the versions of what it calls."""
        settings = {k: v for k, v in vars(self).items() if k not in ("processes", "cache")}
        settings["target_styles"] = styles.settings(self.target_styles)
        settings["dialogues"] = {place: count for place, count in self.dialogues.items() if count}
        settings["conditions"] = [
            {k: c.settings() for k, c in of.items() if k not in SETS or not isinstance(c, Clean)} for of in self.conditions.values()
        ]  # a clean set is one that nothing is said of, a clean voice may stand apart from its set
        code = [content_hash(Path(str(m.__file__))) for m in (recording, espeak, pcm, rendering, sentences, styles)]
        versions = [espeak.version(), *(importlib.metadata.version(p) for p in ("numpy", "scipy", "soxr"))]
        return digest([settings, code, content_hash(Path(__file__)), versions])

    def prepare(self, folder: Path) -> None:
        known = espeak.engine().variants()
        for voice in self._voices():
            if voice not in known:
                raise ConfigError(f"espeak-ng has no voice variant {voice!r}{espeak.nearest(voice, known)}")
        lines = list(self.script())
        said: dict[str, Utterance] = {}
        parts: dict[str, list[Utterance]] = {}
        for line, utterance in zip(lines, rendering.render(lines, folder, self.sample_rate, self.seed, self.processes)):
            said[line.id] = replace(utterance, context=tuple(replace(said[turn], context=()) for turn in line.context))
            parts.setdefault(line.part, []).append(said[line.id])
        for part, utterances in parts.items():
            manifest.write(utterances, folder, part)
        if self.terms:
            write_json(folder / "terms.json", {term: phonemize(term, self.language) for term in self.terms})

    def script(self) -> Iterator[Line]:
        """Everything that is said, in order."""
        for part, count in self.counts.items():
            kind, _, split = part.partition(".")
            if kind == "ood":
                yield from self._ood(count)
            elif kind == "target":
                for voice in self.target_voices:
                    yield from self._in_languages(part, f"{part} {voice}", split, count, (voice,), self.target_styles)
            else:
                voices = self.source_voices if kind == "source" else self.unseen_voices
                yield from self._in_languages(part, part, split, count, voices, styles.SOURCE)
        yield from self._about_terms()
        yield from self._in_turns()

    def _in_languages(
        self, part: str, name: str, split: str, count: int, voices: Sequence[str], table: Mapping[str, Style]
    ) -> Iterator[Line]:
        spoken = self.languages.get(part.partition(".")[0], (self.language,))
        for i, language in enumerate(spoken):
            own = name if language == self.language else f"{name} {language}"
            texts = self._texts(own, split, count // len(spoken) + (i < count % len(spoken)), language)
            yield from self._lines(part, texts, voices, table, language)

    def _lines(
        self, part: str, texts: Sequence[str], voices: Sequence[str], table: Mapping[str, Style], language: str = "", kind: str = ""
    ) -> Iterator[Line]:
        for i, (text, (voice, emotion)) in enumerate(zip(texts, _pairs(len(texts), voices, list(table)))):
            yield self._line(part, f"{kind}{i:05d}", text, voice, emotion, table, language)

    def _line(
        self, part: str, end: str, text: str, voice: str, emotion: str, table: Mapping[str, Style], language: str = "",
        context: tuple[str, ...] = (),
    ) -> Line:  # fmt: skip
        language = language or self.language
        name = f"{part.replace('.', '-')}-{language}-{voice}-{emotion}-{end}".replace(" ", "_")
        return Line(name, part, text, voice, emotion, table[emotion], language, self._condition(part, voice), context)

    def _condition(self, part: str, voice: str) -> Condition:
        kind, _, split = part.partition(".")
        of = self.conditions[split == "test"]
        return of.get(voice) or of.get(kind) or Clean()

    def _ood(self, count: int) -> Iterator[Line]:
        yield from self._lines("ood.test", sentences.other(count - count // 2, self.seed), self.source_voices, styles.SOURCE)
        if foreign := count // 2:
            texts = sentences.in_language(foreign, self.seed, self.second_language)
            yield from self._lines("ood.test", texts, self.source_voices, styles.SOURCE, self.second_language)

    def _about_terms(self) -> Iterator[Line]:
        learnt = self.terms[: self.terms_learnt]
        for number, voice in enumerate(self.target_voices):
            seed = self.seed + 1000 * number
            for part, terms, each in (("target.train", learnt, self.term_train), ("terms.test", self.terms, self.term_test)):
                texts = [text for _, text in sentences.about(terms, each, seed, others=part == "terms.test")]
                yield from self._lines(part, texts, (voice,), self.target_styles, kind="term-")

    def _in_turns(self) -> Iterator[Line]:
        """Dialogues: two voices of a set in turn, all of it in one emotion; who speaks with whom changes from round to round."""
        counts = [(place, self.dialogues.get(place, 0)) for place in _DIALOGUES]
        first, last = self.dialogue_turns
        texts = iter(sentences.dialogues(sum(n for _, n in counts), (first, last), self.seed))
        for place, count in counts:
            kind, split = place.split("_")
            voices, table = (self.source_voices, styles.SOURCE) if kind == "source" else (self.target_voices, self.target_styles)
            for d, (voice, emotion) in enumerate(_pairs(count, voices, list(table))):
                other = voices[(voices.index(voice) + 1 + d // len(voices) % (len(voices) - 1)) % len(voices)]
                context: tuple[str, ...] = ()
                for turn, text in enumerate(next(texts)):
                    end = f"dialogue-{d:04d}-{turn}"
                    line = self._line(f"{kind}.{split}", end, text, (voice, other)[turn % 2], emotion, table, context=context)
                    yield line
                    context = (*context, line.id)

    def _texts(self, name: str, split: str, count: int, language: str) -> list[str]:
        """`count` of the sentences that belong to this split, in an order of their own; all of them before any repeats."""
        pool = self._pools(language)[split]
        draw = random.Random(f"{self.seed} {name}")
        rounds = [draw.sample(pool, len(pool)) for _ in range(-(-count // max(len(pool), 1)))]
        return [text for one in rounds for text in one][:count]

    def _pools(self, language: str) -> dict[str, list[str]]:
        """Sentences by split, disjoint. Test comes first, so that more training data leaves the test as it was."""
        sizes = {s: sum(n for part, n in self.counts.items() if part.endswith(s)) for s in ("test", "valid", "train")}
        # What the ood set says is kept out of the others.
        foreign = self.counts["ood.test"] // 2 if sentences.same_language(language, self.second_language) else 0
        texts = iter(sentences.in_language(foreign + sum(sizes.values()), self.seed, language)[foreign:])
        return {split: [next(texts) for _ in range(size)] for split, size in sizes.items()}

    def _voices(self) -> tuple[str, ...]:
        return (*self.source_voices, *self.unseen_voices, *self.target_voices)

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
        for place in {*self.conditions[False], *self.conditions[True]} - {*SETS, *self._voices()}:
            raise ConfigError(f"conditions.{place}: neither a set ({', '.join(SETS)}) nor a voice of this corpus")
        if len(set(self.terms)) < len(self.terms) or not all(term.strip() for term in self.terms):
            raise ConfigError("terms: one of them is there twice or empty; give every term once")
        if min(self.terms_learnt, self.term_train, self.term_test) < 0:
            raise ConfigError("terms_learnt, term_train and term_test: give 0 or more")
        self._check_dialogues()
        self._check_languages()
        if not 8000 <= self.sample_rate <= 48000:
            raise ConfigError(f"sample_rate is {self.sample_rate}: give 8000 to 48000 Hz")

    def _check_dialogues(self) -> None:
        for place, count in self.dialogues.items():
            if place not in _DIALOGUES or count < 0:
                raise ConfigError(f"dialogues.{place}={count}: give 0 or more for {', '.join(sorted(_DIALOGUES))}")
            if count and len(self.source_voices if place.startswith("source") else self.target_voices) < 2:
                raise ConfigError(f"dialogues.{place}={count} needs two voices: raise target_voices, or name more source_voices")
        if len(self.dialogue_turns) != 2 or not 2 <= self.dialogue_turns[0] <= self.dialogue_turns[1]:
            raise ConfigError(f"dialogue_turns is {list(self.dialogue_turns)}: give the fewest and the most, from 2 on")

    def _check_languages(self) -> None:
        ood = self.counts["ood.test"]
        if ood // 2:
            try:
                sentences.in_language(0, self.seed, self.second_language)
            except ConfigError as error:
                raise ConfigError(f"second_language: {error}, or set ood_test to 0") from error
        if sentences.same_language(self.language, sentences.OF_EVERY_KIND):
            return
        for asked, name, remedy in (
            (self.terms, "terms", "terms=[]"),
            (any(self.dialogues.values()), "dialogues", "every count of dialogues to 0"),
            (ood, "ood_test", "ood_test to 0"),
        ):
            if asked:
                told = f"no sentences of this kind in language={self.language}: set {remedy}, or take a language"
                raise ConfigError(f"{name}: there are {told} that starts with {sentences.OF_EVERY_KIND}")


class EmbeddedTarget(Embedded):
    """The target of `Embedded` alone (and its terms): data of another kind than the base's, which then keeps its own.

    So one base is adapted to targets of many voices, styles and conditions. Sentences are those of `Embedded` with the same counts.
    """

    def script(self) -> Iterator[Line]:
        return (line for line in super().script() if line.part.startswith(("target.", "terms.")))


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
