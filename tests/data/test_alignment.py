"""Forced alignment: where it puts what, how sure it is, and that nothing is aligned twice."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "metrics"))
from sounds import phones_at, said, voice

from ttsadapt.artifacts import ensure
from ttsadapt.data import espeak, manifest
from ttsadapt.data.alignment.base import Aligner, Unaligned
from ttsadapt.data.alignment.ctc import Acoustic, CTCAligner
from ttsadapt.data.alignment.hub import HubCTC
from ttsadapt.data.alignment.learned import Learned
from ttsadapt.data.alignment.placing import Levels, borders, spans, tiled
from ttsadapt.data.alignment.recogniser import EmbeddedRecogniser
from ttsadapt.data.alignment.spelling import Characters, Phones, Spelled, Spelling, Token, owned, words_of
from ttsadapt.data.alignment.store import Store
from ttsadapt.data.bringing.settings import Bringing
from ttsadapt.data.corpora.base import Corpus
from ttsadapt.data.corpora.folder import Folder
from ttsadapt.data.found import Rejected
from ttsadapt.data.prepare import PreparedCorpus
from ttsadapt.data.segmentation import Segments
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import CheckpointError, ConfigError, UserError
from ttsadapt.metrics.judges.recogniser import Recogniser
from ttsadapt.metrics.signal import RATE

WORDS = ("aiu", "iua", "uai", "aui", "iau")


class Tones(Corpus):
    """Vowels of two voices, each a quarter of a second."""

    def fingerprint(self) -> str:
        return "tones"

    def prepare(self, folder: Path) -> None:
        for split, there in (("train", WORDS[:3]), ("valid", WORDS[3:4]), ("test", WORDS[4:])):
            utterances = [
                said(folder / "wavs", f"{split}-{f0:.0f}-{w}-{b}", voice(f0, w, brightness=b), phones=phones_at(w), speaker=f"{f0}")
                for f0 in (100.0, 210.0)
                for b in (1.0, 1.25)
                for w in there
            ]
            manifest.write(utterances, folder, f"source.{split}")


class Quick(EmbeddedRecogniser):
    """Learns from less audio a step."""

    def judge(self, cache):
        return Recogniser(PreparedCorpus(self.corpus, cache).folder, cache, steps=self.steps, seconds=4.0)


class Letters(Spelling):
    """A letter, a phone."""

    phones = True

    def symbols(self, text, language):
        return list(text)

    def spell(self, text, language, vocabulary):
        words = words_of(text)
        return Spelled(words, [Token(c, c, i) for i, w in enumerate(words) for c in w])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def aligner(cache):
    one = CTCAligner(Quick(Tones(), steps=60), Letters(), str(cache))
    assert one._opened
    return one


def recorded(folder, said_there, name="said", f0=140.0, text=None, **about):
    return said(folder, name, voice(f0, said_there), text=text or said_there, **about)


def boundary_errors(found, true):
    """ms, at the beginning and the end of every phone."""
    a, b = ([p for p in phones if p.symbol != "_"] for phones in (found, true))
    assert [p.symbol for p in a] == [p.symbol.lstrip("ˈ") for p in b]
    return [1000 * abs(x - y) for p, q in zip(a, b) for x, y in ((p.start, q.start), (p.end, q.end))]


def test_phones_of_voices_that_were_never_heard_are_put_where_they_are(aligner, tmp_path):
    """Of lengths that were never heard either: phones spread evenly would be far off."""
    errors, even = [], []
    for f0 in (120.0, 150.0, 180.0):
        for word, lengths in (("iau", (0.15, 0.4, 0.2)), ("aui", (0.35, 0.12, 0.3)), ("uia", (0.14, 0.2, 0.45))):
            edges = np.cumsum([0.1, *lengths])
            true = tuple(Phone(s, a, b) for s, a, b in zip(word, edges, edges[1:]))
            pieces = [voice(f0, s, seconds=length, silence=0.0) for s, length in zip(word, lengths)]
            quiet = np.zeros(RATE // 10, np.float32)
            utterance = said(tmp_path, f"{word}{f0}", np.concatenate([quiet, *pieces, quiet]), text=word)
            timed = aligner.times(utterance)
            assert timed.phones[0].start == 0 and timed.phones[-1].end == utterance.duration
            assert all(a.end == b.start < b.end for a, b in zip(timed.phones, timed.phones[1:]))
            errors += boundary_errors(timed.phones, true)
            flat = np.linspace(0.1, edges[-1], 4)
            even += boundary_errors([Phone(s, a, b) for s, a, b in zip(word, flat, flat[1:])], true)
    print(f"boundary error: median {np.median(errors):.1f} ms, 90th percentile {np.percentile(errors, 90):.1f} ms")
    assert np.median(errors) < 25 and np.percentile(errors, 90) < 75 < np.percentile(even, 90)


def test_another_text_is_less_sure_and_left_out(aligner, cache, tmp_path):
    right, wrong = recorded(tmp_path, "iau"), recorded(tmp_path, "iau", text="uuuaaaiii")
    samples = torch.from_numpy(voice(140.0, "iau"))
    sure = [aligner.align(samples, RATE, u.text, "en").confidence for u in (right, wrong)]
    assert sure[0] > sure[1] + 0.2
    strict = CTCAligner(Quick(Tones(), steps=60), Letters(), str(cache), least=sum(sure) / 2)
    left_out = strict.times(wrong)
    assert isinstance(left_out, Rejected) and left_out.kind == "alignment" and left_out.where == str(wrong.audio)
    assert "is below" in left_out.told and "hub_phones" in left_out.told and "\n" not in left_out.told
    assert strict.times(right).phones


def test_nothing_is_aligned_twice(aligner, cache, tmp_path, monkeypatch):
    class Counted(CTCAligner):
        calls = 0

        def align(self, *args):
            Counted.calls += 1
            return super().align(*args)

    def fresh():
        return Counted(aligner.acoustic, Letters(), str(cache), least=0.0)

    same, other = recorded(tmp_path, "iau"), recorded(tmp_path, "aui", "other")
    first = fresh().times(same)
    assert fresh().times(replace(same, id="moved")).phones == first.phones and Counted.calls == 1
    fresh().times(other)
    fresh().times(replace(same, text="iaua"))
    assert Counted.calls == 3
    changed = CTCAligner(aligner.acoustic, Letters(), str(cache), drop=30)
    assert changed.settings()["aligner"] != aligner.settings()["aligner"]
    # what could not be aligned is known, too
    silent = said(tmp_path, "silent", np.zeros(RATE, np.float32), text="iau")
    assert isinstance(fresh().times(silent), Rejected) and isinstance(fresh().times(silent), Rejected) and Counted.calls == 4


def test_a_broken_store_is_one_line(tmp_path):
    (tmp_path / "a.sqlite").write_bytes(b"no database at all, but long enough to be read as one" * 50)
    with pytest.raises(UserError, match=r"a\.sqlite: .* delete the file") as error:
        Store(tmp_path / "a.sqlite")
    assert "\n" not in str(error.value)


def test_poor_alignments_are_told_once(aligner, tmp_path, capsys):
    poor = CTCAligner(aligner.acoustic, Letters(), str(tmp_path), least=0.0)
    for _ in range(25):
        poor._tell(0.2)
    told = capsys.readouterr()
    assert (told.out + told.err).count("uncertain") == 1 and "0.20" in told.out + told.err


def test_a_path_through_made_up_probabilities():
    likely = torch.full((10, 3), -9.0)
    for t, c in enumerate([0, 1, 1, 0, 0, 2, 0, 2, 0, 0]):
        likely[t, c] = -0.1
    found, sure = spans(likely, [1, 2, 2], 0)
    assert found == [(1, 3), (5, 6), (7, 8)] and sure == pytest.approx([np.exp(-0.1)] * 3, rel=1e-5)
    likely[3:5, 1] = -1.0  # still more like a than b
    assert borders(likely, [1, 2, 2], found, 0) == [5, 6]
    with pytest.raises(Unaligned, match="longer than what is said"):
        spans(likely, [1, 1, 1, 1, 1, 1], 0)


def test_pauses_are_between_words_only():
    tone = 0.3 * torch.sin(torch.arange(RATE // 2) * 0.3)
    quiet = torch.zeros(RATE // 4)
    audio = torch.cat([quiet, tone, quiet, tone, quiet, tone])  # speech at 0.25-0.75, 1.0-1.5, 1.75-2.25
    levels, at = Levels(audio, RATE), [(0.4, 0.5), (1.2, 1.3), (1.9, 2.0)]
    phones, owners = tiled(["a", "b", "c"], [0, 0, 1], at, [0.85, 1.6], levels)
    assert [p.symbol for p in phones] == ["_", "a", "b", "_", "c"] and owners == [-1, 0, 0, -1, 1]
    assert phones[0].start == 0 and phones[-1].end == pytest.approx(2.25)
    assert [p.end for p in phones[:4]] == pytest.approx([0.25, 0.85, 1.5, 1.75], abs=0.02)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Yes - I said so, twice.", ["Yes -", "I", "said", "so,", "twice."]),
        ('"Go!" ... he said', ['"Go!" ...', "he", "said"]),
        ("... well", ["... well"]),
        ("你好, world", ["你", "好,", "world"]),
        ("", []),
    ],
)
def test_words_keep_their_punctuation(text, words):
    assert words_of(text) == words


def test_phones_go_to_words_though_they_sound_otherwise_alone():
    assert owned(["ð", "ə", "k", "æ", "t"], [["_", "ð", "ˈiː", "_"], ["k", "ˈæ", "t"]]) == [0, 0, 1, 1, 1]
    assert owned(["x", "k", "t"], [["ð", "ə"], ["k", "æ", "t"]])[-2:] == [1, 1]


def test_espeak_phones_spell_every_word():
    spelled = Phones().spell("The choir wanted 3.5 nuts - today.", "en-us", {"ə", "a", "t"})
    assert spelled.words == ["The", "choir", "wanted", "3.5", "nuts -", "today."]
    assert {t.word for t in spelled.tokens} == set(range(6)) and {t.known for t in spelled.tokens} <= {"ə", "a", "t"}
    assert [t.word for t in spelled.tokens] == sorted(t.word for t in spelled.tokens)


# -- a model of transformers


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """An untrained wav2vec 2.0 with the vocabulary of letters, as `save_pretrained` leaves it."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder = tmp_path_factory.mktemp("hub")
    vocabulary = ["<pad>", "<s>", "</s>", "<unk>", "|", *"AIUBC"]
    (folder / "vocab.json").write_text(json.dumps({v: i for i, v in enumerate(vocabulary)}))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "conv_dim": (8,) * 7}
    config = Wav2Vec2Config(vocab_size=10, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, pad_token_id=0, **sizes)
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def test_a_model_of_transformers_times_words(hub, tmp_path):
    aligner = CTCAligner(HubCTC(str(hub)), Characters(), str(tmp_path), least=0.0)
    samples = torch.from_numpy(voice(140.0, "aiuaiu"))
    found = aligner.aligned(samples, RATE, "Ai, ubi 7 ca!", "en")
    assert [w.text for w in found.words] == ["Ai,", "ubi 7", "ca!"] and not found.phones, "no letter of 7 is known"
    assert all(a.start < a.end <= b.start for a, b in zip(found.words, found.words[1:])) and 0 < found.confidence < 1
    with pytest.raises(ConfigError, match="times words here, not phones"):
        Bringing(align=aligner)
    with pytest.raises(Unaligned, match="no letter"):
        aligner.aligned(samples, RATE, "7 x", "en")


def test_long_recordings_are_heard_in_windows(hub, tmp_path):
    whole, windows = HubCTC(str(hub)), HubCTC(str(hub), window=1.5, context=0.3)
    assert whole.fingerprint(tmp_path) != windows.fingerprint(tmp_path) and (tmp_path / "hashes.sqlite").is_file()
    whole.open(Path())
    windows.open(Path())
    audio = torch.from_numpy(np.concatenate([voice(140.0, "aiuaiuaiu")] * 3))
    one, many = whole.likely(audio), windows.likely(audio)
    assert abs(len(one) - len(many)) < 0.03 * len(one) and many.exp().sum(-1).allclose(torch.ones(len(many)), atol=1e-4)
    bare = HubCTC(str(hub), window=1.5, context=0)
    bare.open(Path())
    assert abs(len(bare.likely(audio[: 3 * RATE + 7])) - 150) < 6, "seven samples are less than a model can hear"


@pytest.mark.parametrize(("window", "context"), [(4, 2), (1, -0.1), (0, 0)])
def test_windows_that_only_overlap_are_one_line(window, context):
    with pytest.raises(ConfigError, match=f"context is {context} and window {window}: give") as error:
        HubCTC("somewhere", window=window, context=context)
    assert "\n" not in str(error.value)


def test_no_model_is_one_line(tmp_path, hub):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(CheckpointError, match=r"acoustic\.path=.*CTC model") as error:
            HubCTC(str(path)).open(tmp_path)
        assert "\n" not in str(error.value)


class Sure(Acoustic):
    """Hears "ab" whatever is said."""

    blank, vocabulary = 0, {"a": 1, "b": 2}

    def fingerprint(self, cache):
        return "sure"

    def open(self, cache):
        pass

    def likely(self, audio):
        likely = torch.full((20, 3), -5.0)
        likely[:10, 1] = likely[10:, 2] = -0.01
        return likely


def test_an_own_acoustic_model_is_one_class(tmp_path):
    found = CTCAligner(Sure(), Letters(), str(tmp_path)).aligned(torch.from_numpy(voice(100.0)), RATE, "ab", "en")
    assert [p.symbol for p in found.phones if p.symbol != "_"] == ["a", "b"] and found.confidence > 0.9


def test_a_fingerprint_is_of_the_engine_that_spells(tmp_path, monkeypatch):
    def names():
        return [CTCAligner(Sure(), spelling, str(tmp_path)).fingerprint() for spelling in (Phones(), Characters())]

    before = names()
    monkeypatch.setattr(espeak, "version", lambda: "0.0")
    after = names()
    assert before[0] != after[0] and before[1] == after[1]


def test_a_fingerprint_leaves_nothing_behind_but_in_the_cache(tmp_path, monkeypatch):
    recorded(tmp_path / "recordings", "aiu")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    corpus = Folder(str(tmp_path / "recordings"))
    there = PreparedCorpus(corpus, tmp_path / "there")
    CTCAligner(EmbeddedRecogniser(corpus), Letters(), str(tmp_path / "cache")).fingerprint()
    assert not list(Path().iterdir()) and (tmp_path / "cache" / "hashes.sqlite").is_file()
    assert corpus.cache is None and there.corpus.cache == tmp_path / "there"


def test_yaml_gives_every_argument_and_segments_take_an_aligner():
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from ttsadapt.config.base import composed

    asked = [
        "data=embedded",
        "+data/bring/segments@pieces=chunks",
        "data/bring/align@pieces.align=ctc",
        "pieces.align.acoustic.corpus.seed=7",
    ]
    cfg = composed(*asked)
    cutter = instantiate(cfg.pieces)
    assert isinstance(cutter, Segments) and isinstance(cutter.align, Aligner) and len(cutter.align.fingerprint()) == 12
    assert cutter.align.acoustic.corpus.seed == 7 and OmegaConf.select(cfg, "pieces.align.acoustic.steps") == 1200


def test_where_alignments_are_kept_is_no_part_of_a_run():
    from ttsadapt.config.base import composed
    from ttsadapt.config.identity import run_id

    one, two, other = (
        run_id(composed("base=null", f"+data.align={{cache_folder: {place}, least: {least}}}"))
        for place, least in (("/a", 0), ("/b", 0), ("/a", 1))
    )
    assert one == two != other


def test_an_aligner_learns_from_the_recordings_themselves(tmp_path):
    """Nobody tells phone times, and spreading phones evenly would be further off."""
    draw, utterances, truth, even = np.random.default_rng(0), [], {}, []
    for k in range(12):
        word = WORDS[k % 5]
        word += next(c for c in "aiuaiu"[k % 3 :] if c != word[-1])
        lengths = draw.uniform(0.12, 0.4, len(word))
        edges = 0.1 + np.cumsum([0, *lengths])
        pieces = [voice(110.0 + 8 * k, s, seconds=length, silence=0.0) for s, length in zip(word, lengths)]
        quiet = np.zeros(RATE // 10, np.float32)
        utterances.append(said(tmp_path / "wavs", f"{k}", np.concatenate([quiet, *pieces, quiet]), text=word))
        truth[f"{k}"] = [Phone(s, a, b) for s, a, b in zip(word, edges, edges[1:])]
        flat = np.linspace(edges[0], edges[-1], len(word) + 1)
        even += boundary_errors([Phone(s, a, b) for s, a, b in zip(word, flat, flat[1:])], truth[f"{k}"])[1:-1]

    def aligner():
        return CTCAligner(Learned(steps=160, seconds=5.0), Letters(), str(tmp_path), least=0.0)

    first = aligner()
    with pytest.raises(ConfigError, match="take ctc or hub_words"):
        first.aligned(torch.from_numpy(voice(100.0)), RATE, "aiua", "en")
    before = first.settings()
    first.fit(utterances)
    errors = [e for u in utterances for e in boundary_errors(first.times(u).phones, truth[u.id])[1:-1]]
    print(f"boundary error: mean {np.mean(errors):.1f} ms; evenly {np.mean(even):.1f} ms")
    assert np.mean(errors) < 0.9 * np.mean(even) and first.settings() == before
    again = aligner()
    again.fit([replace(u, audio=u.audio) for u in utterances])
    assert again.times(utterances[0]).phones == first.times(utterances[0]).phones and "_opened" not in again.__dict__, "from the store"
    again.fit(utterances[:6])
    assert again._learnt != first._learnt and len(list((tmp_path / "alignments").glob("learned-*"))) == 1


@pytest.mark.slow
def test_boundaries_of_the_embedded_corpus(tmp_path):
    """espeak-ng's own boundaries, of other sentences by voices that the recogniser has learnt from, and by voices that it never heard."""
    from ttsadapt.data.corpora.embedded import Embedded

    aligner = CTCAligner(EmbeddedRecogniser(Embedded(source_train=1300, processes=1)), Phones(), str(tmp_path))
    pool = ("Alicia", "Andrea", "Lee", "zac", "kaukovalta")
    few = {"target_train": 7, "target_valid": 7, "target_test": 14, "source_train": 14, "processes": 1}
    strangers = PreparedCorpus(Embedded(seed=5, target_voices=5, target_pool=pool, **few), tmp_path)
    assert aligner._opened
    ensure(strangers)
    known = PreparedCorpus(aligner.acoustic.corpus, tmp_path)
    for title, utterances, most in (
        ("its voices", known.utterances("source.test") + known.utterances("target.test"), (15, 40)),
        ("voices never heard", strangers.utterances("target.test"), (20, 65)),
    ):
        errors: list[float] = []
        left_out = 0
        for utterance in utterances:
            timed = aligner.times(replace(utterance, phones=()))
            true = [p.symbol for p in utterance.phones if p.symbol != "_"]
            if isinstance(timed, Rejected):
                left_out += 1
            elif true == [p.symbol for p in timed.phones if p.symbol != "_"]:  # a few words are said otherwise at other rates
                errors += boundary_errors([p._replace(symbol=p.symbol.lstrip("ˈ")) for p in timed.phones], utterance.phones)
        middle, high = np.median(errors), np.percentile(errors, 90)
        print(
            f"{title}: boundary error median {middle:.1f} ms, 90th percentile {high:.1f} ms, {len(errors)} boundaries, {left_out} left out"
        )
        assert middle < most[0] and high < most[1] and left_out < len(utterances) / 3


@pytest.mark.slow
def test_boundaries_learnt_from_one_voice_alone(tmp_path):
    """Four minutes of one voice, no phone times, no other model: as near to espeak-ng's own boundaries as with one."""
    from ttsadapt.data.corpora.embedded import Embedded

    corpus = PreparedCorpus(Embedded(source_train=14, processes=1), tmp_path)
    ensure(corpus)
    utterances = corpus.utterances("target.train")
    for count, most in ((140, (16, 45)), (30, (16, 50))):
        aligner = CTCAligner(Learned(), Phones(), str(tmp_path), least=0.25)
        aligner.fit([replace(u, phones=()) for u in utterances[:count]])
        errors: list[float] = []
        for utterance in utterances[:count]:
            timed = aligner.times(utterance)
            true = [p.symbol for p in utterance.phones if p.symbol != "_"]
            if isinstance(timed, Utterance) and true == [p.symbol for p in timed.phones if p.symbol != "_"]:
                errors += boundary_errors([p._replace(symbol=p.symbol.lstrip("ˈ")) for p in timed.phones], utterance.phones)
        middle, high = np.median(errors), np.percentile(errors, 90)
        seconds = sum(u.duration for u in utterances[:count])
        print(f"{seconds:.0f} s of speech: boundary error median {middle:.1f} ms, 90th percentile {high:.1f} ms, {len(errors)} boundaries")
        assert len(errors) > 20 * count and middle < most[0] and high < most[1]
