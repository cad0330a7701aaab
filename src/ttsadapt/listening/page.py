"""A listening test from a study's runs to its page, and from the answers to figures."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ttsadapt.errors import UserError
from ttsadapt.files import digest, write_text
from ttsadapt.listening.base import Clip, Task, Trial
from ttsadapt.listening.design import repeated, sheets
from ttsadapt.listening.key import Key, KeyTrial, keep_key, read_keys
from ttsadapt.listening.pool import Pool
from ttsadapt.listening.reading import Rule, read
from ttsadapt.listening.render import render
from ttsadapt.listening.sound import Sounds, as_text, prepared
from ttsadapt.reports.study import read_study
from ttsadapt.reports.systems import Systems


class Drafts(NamedTuple):
    """Every trial of a page by its code, and which belong together."""

    trials: dict[str, Trial]
    sheets: list[list[str]]
    training: list[str]
    repeats: dict[str, str]
    """{code: code of the trial that it is once more}"""


class ListeningTest:
    """One kind of test over one study; lives in outputs/<study>/listening/<name>/."""

    def __init__(
        self,
        name: str,
        task: Task,
        title: str,
        instructions: Sequence[str],
        sets: Sequence[str],
        systems: Sequence[str] | None,
        sentences: int,
        per_listener: int | None,
        complete: bool,
        training: int,
        checks: int,
        repeats: int,
        show_text: bool,
        loudness: float,
        rate: int | None,
        form: Literal["flac", "opus", "mp3"],
        post: str | None,
        rule: Rule,
        consent: Sequence[str],
        questions: Sequence[Mapping[str, Any]],
        words: Mapping[str, Any],
    ) -> None:
        """For the arguments see conf/listening.yaml."""
        if not name or name != Path(name).name or name.startswith("."):
            raise UserError(f"page.name={name}: it is the name of a folder, without slashes or a leading dot")
        self.name, self.task, self.title, self.instructions, self.show_text = name, task, title, instructions, show_text
        self.sets, self.systems, self.sentences = sets, systems, sentences
        self.per_listener, self.complete = per_listener, complete
        self.training, self.checks, self.repeats = training, checks, repeats
        self.loudness, self.rate, self.form, self.post, self.rule = loudness, rate, form, post, rule
        self.consent, self.questions, self.words = consent, questions, words

    def folder(self, study: Path) -> Path:
        return study / "listening" / self.name

    def read(self, study: Path, results: Sequence[Path]) -> str:
        """What the answers in `results` (files and folders) say; leaves tables, a plot and listening.json beside the key."""
        return read(Systems(read_study(study)), self.folder(study), results, self.rule)

    def build(self, study: Path) -> str:
        """Writes <name>.html and key.json, keeps the keys of earlier pages, makes results/; returns what to say about them.

        The same study gives the same page while its key is there.
        """
        folder = self.folder(study)
        systems = Systems(read_study(study))
        pool = Pool(systems, self.systems, self.sets, self.sentences)
        before = read_keys(folder) if any(folder.glob("key*.json")) else []
        salt = before[0].salt if before else secrets.token_hex(16)
        drafts = self._drafts(pool, salt)
        clips = list(dict.fromkeys(clip for trial in drafts.trials.values() for _, clip in trial.clips))
        sounds = prepared(clips, self.loudness, self.rate, self.form)
        names = {clip: digest([salt, of, clip.system]) for clip, of in zip(clips, sounds.prints)}
        content = self._content(salt, drafts, names)
        page = digest([content, salt], 16)
        keep_key(folder, self._key(page, salt, pool, drafts, dict(zip(clips, sounds.seconds)), sounds))
        target = folder / f"{self.name}.html"
        audio = {names[clip]: as_text(data) for clip, data in zip(clips, sounds.data)}
        write_text(target, render({"id": page, **content, "audio": dict(sorted(audio.items()))}, self.post))
        (folder / "results").mkdir(exist_ok=True)
        said = self._said(target, pool, drafts)
        if before and before[0].page != page:
            said += f"\n  it differs from the one before: answers to that ({before[0].page}) stay readable, its key is kept beside this one"
        return said

    def _drafts(self, pool: Pool, salt: str) -> Drafts:
        items, task = list(self.task.items(pool)), self.task
        plan = sheets(len(pool.sentences), len(items), task.variants(), self.complete, self.per_listener)
        trials: dict[str, Trial] = {}

        def add(kind: str, trial: Trial, *more: Any) -> str:
            code = digest([salt, kind, trial.item, trial.spoken.set, trial.spoken.id, *more])
            trials[code] = trial
            return code

        checks = [add("check", trial) for trial in self._checks(pool)]
        practice = [add("training", trial, i) for i, trial in enumerate(self._practice(pool, items))]
        repeats: dict[str, str] = {}
        listed = []
        for cells in plan:
            codes = [
                add("rated", task.trial(pool, pool.sentences[c.sentence], items[c.item], c.variant), c.variant) for c in cells
            ]  # fmt: skip
            again = {add("repeat", trials[codes[i]], codes[i]): codes[i] for i in repeated(len(codes), self.repeats)}
            repeats |= again
            listed.append(sorted([*codes, *again, *checks]))  # by their codes: the order says nothing
        return Drafts(trials, listed, practice, repeats)

    def _checks(self, pool: Pool) -> list[Trial]:
        """Kinds of checks in turn, a sentence each: spare ones first, those for practice next, rated ones when all are used up."""
        spoken = list(dict.fromkeys([*pool.spare[self.training :], *pool.spare, *pool.sentences]))
        possible = [found for s in spoken if (found := self.task.checks(pool, s))][: self.checks]
        return [found[i % len(found)] for i, found in enumerate(possible)]

    def _practice(self, pool: Pool, items: Sequence[str]) -> list[Trial]:
        """The best and the worst there is, then items: listeners get to know the range before anything counts."""
        first = self.task.checks(pool, pool.spare[0])[:2]
        others = [
            self.task.trial(pool, pool.spare[(i + 1) % len(pool.spare)], items[i % len(items)], i % self.task.variants())
            for i in range(max(0, self.training - len(first)))
        ]
        return [*first, *others][: self.training]

    def _content(self, salt: str, drafts: Drafts, names: Mapping[Clip, str]) -> dict[str, Any]:
        """All that the page holds but its sounds: codes and words, nothing that tells systems apart."""
        shown = {}
        for code, trial in sorted(drafts.trials.items()):
            shown[code] = {
                "question": trial.question,
                "clips": [[name, names[clip]] for name, clip in trial.clips],
                "sentence": digest([salt, trial.spoken.set, trial.spoken.id]),
                "text": trial.spoken.text if self.show_text else "",
                "after": drafts.repeats.get(code, ""),
            }
        return {
            "title": self.title,
            "instructions": list(self.instructions),
            "answers": [[str(value), label] for value, label in self.task.answers.items()],
            "consent": list(self.consent),
            "questions": [dict(question) for question in self.questions],
            "words": dict(self.words),
            "post": self.post or "",
            "training": drafts.training,
            "sheets": drafts.sheets,
            "trials": shown,
            "form": self.form,
        }

    def _key(self, page: str, salt: str, pool: Pool, drafts: Drafts, seconds: Mapping[Clip, float], sounds: Sounds) -> Key:
        items = list(self.task.items(pool))
        trials = {
            code: KeyTrial(
                trial.item,
                trial.spoken.set,
                trial.spoken.id,
                {name: clip.system for name, clip in trial.clips},
                dict(trial.worth),
                sum(seconds[clip] for _, clip in trial.clips),
                list(trial.accepted) if trial.accepted is not None else None,
                drafts.repeats.get(code),
            )
            for code, trial in sorted(drafts.trials.items())
        }
        return Key(
            page=page,
            salt=salt,
            name=self.name,
            study=pool.everyone.study.name,
            unit=self.task.unit,
            chance=self.task.chance,
            items=items,
            kinds={s.label: s.kind for s in pool.systems if s.label in items},
            compared={item: self.task.compared(item) for item in items},
            trials=trials,
            sheets=drafts.sheets,
            training=drafts.training,
            loudness=sounds.loudness,
            rate=sounds.rate,
            settings={"title": self.title, "complete": self.complete, "form": self.form},
        )

    def _said(self, target: Path, pool: Pool, drafts: Drafts) -> str:
        sheet, megabytes = drafts.sheets[0], target.stat().st_size / 1e6
        checks = sum(drafts.trials[code].accepted is not None for code in sheet)
        known = f"{checks} attention checks" if checks else "no attention check (the study holds no recordings for one)"
        lines = [
            f"{target} ({megabytes:.1f} MB): give this file to listeners, and numbers 1, 2, 3 ... as their codes",
            f"  {len(sheet)} trials each, of them {known} and {sum(code in drafts.repeats for code in sheet)} repeated; "
            f"{len(drafts.training)} for practice before",
            f"  {len(pool.sentences)} sentences; balanced when the number of listeners is a multiple of {len(drafts.sheets)}",
            f"  {target.with_name('key.json')} says what is what: keep it to yourself",
            f"  their answers belong into {target.with_name('results')}/; then add results={target.with_name('results')}",
        ]
        return "\n".join(lines)
