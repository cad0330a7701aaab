"""Words from phones: token passing against what is found by trying everything, and a recogniser that learns tones."""

import itertools
import math

import numpy as np
import pytest
import torch
from sounds import said, voice
from test_judges import WORDS, phones_at, write_corpus

from ttsadapt.artifacts import ensure
from ttsadapt.metrics.base import Unknown
from ttsadapt.metrics.judges.lexicon import Lexicon
from ttsadapt.metrics.judges.recogniser import Recogniser
from ttsadapt.metrics.recognisers.closed import ClosedVocabulary
from ttsadapt.metrics.recognisers.normaliser import words_of
from ttsadapt.metrics.recognisers.tokens import Entry, heard
from ttsadapt.metrics.signal import RATE
from ttsadapt.metrics.terms import TermAccuracy
from ttsadapt.metrics.wer import WordErrorRate

LEXICON = [Entry("ab", (1, 2)), Entry("b", (2,)), Entry("aa", (1, 1)), Entry("ca", (3, 1))]


def likeliest_path(likely, phones):
    """The best CTC path of one phone sequence, by the textbook recursion over blanks and phones."""
    states = [0, *itertools.chain.from_iterable((p, 0) for p in phones)]
    score = np.full(len(states), -np.inf)
    score[0], score[1] = likely[0][0], likely[0][states[1]]
    for row in likely[1:]:
        moved = np.full(len(states), -np.inf)
        for s, label in enumerate(states):
            come = [score[s]] + ([score[s - 1]] if s else [])
            if s > 1 and label and states[s - 2] != label:
                come.append(score[s - 2])
            moved[s] = max(come) + row[label]
        score = moved
    return max(score[-1], score[-2])


@pytest.mark.parametrize("seed", range(12))
def test_token_passing_finds_the_best_of_all_sentences(seed):
    draw = np.random.default_rng(seed)
    likely = np.log(draw.dirichlet(np.full(4, 0.3), size=7))
    best, words = -np.inf, []
    for count in (1, 2, 3):
        for sentence in itertools.product(LEXICON, repeat=count):
            score = likeliest_path(likely, [p for e in sentence for p in e.phones]) - 1.5 * count
            if score > best:
                best, words = score, [e.word for e in sentence]
    nothing = sum(row[0] for row in likely)
    assert heard(likely, LEXICON) == ([] if nothing >= best else words)


def test_a_clear_sentence_is_heard_whatever_comes_between():
    phones = [0, 1, 1, 2, 0, 2, 2, 3, 1, 0, 1, 0, 1]  # ab b ca aa; the second b needs the blank
    likely = np.log(np.eye(4)[phones] * 0.96 + 0.01)
    assert heard(likely, LEXICON) == ["ab", "b", "ca", "aa"]


def test_words_are_runs_of_letters():
    assert words_of("The judge's 2 cats -- don’t_care!") == ["the", "judge's", "2", "cats", "don’t", "care"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpora") / "tones-1")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def spelt(monkeypatch):
    """Words are said as they are spelt, without a speech engine."""
    from ttsadapt.metrics.judges import lexicon, recogniser

    for module in (lexicon, recogniser):
        monkeypatch.setattr(module, "phonemize", lambda text, language: tuple(c for c in text if c.isalpha()))


def test_closed_vocabulary(corpus, cache, tmp_path, spelt):
    """The tones' texts are their utterances' names: one "word" each, which ends in the phones that are said."""
    phones = Recogniser(corpus, cache, steps=60, seconds=4.0)
    lexicon = Lexicon(phones)
    ensure(lexicon)
    stored = lexicon.stored
    assert set(stored["error"]) == {"recordings/source", "recordings/target", "vocoded/source", "vocoded/target"}
    assert all(e >= 0 for e in stored["error"].values()) and stored["unit"] == "%"
    judge = ClosedVocabulary(steps=60)
    judge.lexicon = lexicon
    lexicon.__dict__["stored"] = {"entries": [[w, list(w)] for w in WORDS], "names": {w: w for w in WORDS}}
    lexicon.__dict__.pop("entries", None)
    metric = WordErrorRate(judge, None)
    found = {w: judge.transcribe(torch.from_numpy(voice(100.0, w)), "en-us") for w in WORDS}
    assert sum(w == h for w, h in found.items()) >= 4
    right = next(w for w in WORDS if found[w] == w)
    spoken = said(tmp_path, "u", voice(100.0, right), text=right.upper(), phones=phones_at(right))
    assert metric.score(torch.from_numpy(voice(100.0, right)), RATE, spoken) == 0
    assert metric.score(torch.zeros(RATE), RATE, spoken) == 100
    assert isinstance(metric.score(torch.zeros(RATE), RATE, said(tmp_path, "v", voice(100.0), text="zebra")), Unknown)
    assert "closed vocabulary" in metric.model and "lower-case words" in metric.model and metric.revision == lexicon.version
    terms = TermAccuracy(judge, None, [right, "uuu"], None)
    both = said(tmp_path, "b", voice(100.0, right), text=f"{right} uuu")
    assert terms.score(torch.from_numpy(voice(100.0, right)), RATE, both) == 50
    assert math.isnan(terms.score(torch.zeros(RATE), RATE, said(tmp_path, "n", voice(100.0), text="none")))


def test_words_that_sound_alike_are_one():
    from ttsadapt.metrics.judges.lexicon import _alike

    names = _alike([("to", ("t", "uː")), ("two", ("t", "uː")), ("two", ("t", "ə")), ("the", ("t", "ə")), ("cat", ("k", "a"))])
    assert names == {"to": "the", "two": "the", "the": "the", "cat": "cat"}
