"""Long recordings in pieces: no word halved, none lost, the text exactly what is said; and the readers of times."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given as property_of
from hypothesis import settings
from hypothesis import strategies as st

from ttsadapt.data.alignment.base import Aligner, Alignment, Unaligned
from ttsadapt.data.alignment.given import READERS, beside, given
from ttsadapt.data.alignment.matching import matched
from ttsadapt.data.found import Found, Rejected, Word
from ttsadapt.data.pcm import write_wav
from ttsadapt.data.segmentation import Segments, apart, located
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError

RATE = 8000


def found(text="", words=(), audio=Path("long.wav"), **about) -> Found:
    return Found(Utterance("long", audio, text, "one"), "target", "", "long.wav", words=tuple(words), **about)


# -- cutting


@st.composite
def said(draw):
    """Words one after another with pauses, some of none; a few overlap a little."""
    words, now = [], draw(st.floats(0, 3))
    for i in range(draw(st.integers(1, 60))):
        length = draw(st.floats(0.05, 1.5) | st.floats(3, 14))
        words.append(Word(f"w{i}{draw(st.sampled_from(['', ',', '.', '?']))}", round(now, 3), round(now + length, 3)))
        now += length + draw(st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.2]) | st.floats(-0.01, 4))
    return words, round(now + draw(st.floats(0, 3)) + 0.02, 3)


@settings(max_examples=60, deadline=None)
@property_of(said(), st.floats(2, 12), st.floats(0, 1), st.floats(0, 3), st.floats(0, 0.5))
def test_every_word_is_whole_in_a_piece_and_no_piece_is_too_long(recording, length, share, search, margin):
    words, duration = recording
    cutter = Segments(length, overlap := share * 0.9 * length, search, margin)
    text = " ".join(w.text for w in words)
    pieces = cutter.cut(found(text, words), duration)
    if duration <= length:
        assert pieces == [found(text, words)]
        return
    true = apart(words)
    kept = [p for p in pieces if isinstance(p, Found)]
    refused = [p for p in pieces if isinstance(p, Rejected)]
    fitting = [w for w in true if w.end - w.start <= length]
    assert len(refused) == len(true) - len(fitting) and {r.kind for r in refused} <= {"too long"}
    assert {w for p in kept for w in p.words} == set(fitting)
    for piece in kept:
        assert 0 <= piece.start < piece.end <= duration + 1e-6 and piece.end - piece.start <= length + 1e-4
        inside = [w for w in true if w.end > piece.start + 1e-6 and w.start < piece.end - 1e-6]
        assert [w.text for w in inside] == piece.utterance.text.split() == [w.text for w in piece.words]
        assert all(w.start >= piece.start - 1e-6 and w.end <= piece.end + 1e-6 for w in inside), "no word is halved"
    assert len({p.utterance.id for p in kept}) == len(kept) and {p.group for p in kept} <= {"target/long"}
    for a, b in pairwise(kept):
        assert a.start < b.start and a.end < b.end, "in order, each with something new"
        assert a.end - b.start <= overlap + 1e-4


@settings(max_examples=25, deadline=None)
@property_of(st.lists(st.tuples(st.floats(0.1, 0.6), st.floats(0, 0.4)), min_size=40, max_size=80), st.floats(0.5, 4))
def test_pieces_overlap_by_as_many_words_as_asked(lengths, overlap):
    now, words = 0.0, []
    for i, (length, pause) in enumerate(lengths):
        words.append(Word(f"w{i}", now, now + length))
        now += length + pause
    pieces = [p for p in Segments(10, overlap).cut(found(" ".join(w.text for w in words), words), now) if isinstance(p, Found)]
    for a, b in pairwise(pieces):
        shared = a.end - b.start
        assert shared <= overlap + 1e-6
        # With one word more it would be too much; a word and the pause before it take a second at most.
        assert shared > overlap - 1.0 - 1e-6


def test_without_overlap_every_word_is_there_once():
    words = [Word(f"w{i}", i * 0.5, i * 0.5 + 0.4) for i in range(100)]
    pieces = Segments(overlap=0).cut(found(" ".join(w.text for w in words), words), 50.0)
    assert [w for p in pieces for w in p.words] == words


def test_it_is_cut_in_the_longest_pause_near_the_limit():
    words = [Word(f"w{i}", i * 0.5, i * 0.5 + 0.5) for i in range(17)]
    words += [Word(f"v{i}", 9.2 + i * 0.5, 9.7 + i * 0.5) for i in range(17)]  # 0.7 s after w16
    first, *_ = Segments(overlap=0).cut(found(" ".join(w.text for w in words), words), 20.0)
    assert first.words[-1].text == "w16" and first.end == pytest.approx(8.7), "0.2 s of the pause stay with the word"


def test_text_keeps_its_punctuation_and_captions_are_never_cut():
    captions = (Word("Yes — I said so.", 0.5, 6.0), Word("Twice, in fact!", 6.2, 11.0), Word("(He did.)", 11.5, 14.0))
    pieces = Segments(overlap=0).cut(found("Yes — I said so. Twice, in fact! (He did.)", captions), 15.0)
    assert [p.utterance.text for p in pieces] == ["Yes — I said so.", "Twice, in fact! (He did.)"]
    assert [p.where for p in pieces] == ["long.wav, 0.30 to 6.10 s", "long.wav, 6.10 to 14.20 s"]
    alone = Segments(5, 0).cut(found("", captions), 15.0)
    assert [p.told for p in alone if isinstance(p, Rejected)] == [
        "5.5 s without a pause known in it, longer than a piece (5 s): give the times of its words"
    ]
    assert [p.utterance.text for p in alone if isinstance(p, Found)] == ["Twice, in fact!", "(He did.)"]


def test_nobody_knows_the_times_is_one_line_that_says_what_to_give(tmp_path):
    (one,) = Segments().cut(found("so it is", audio=tmp_path / "long.wav"), 25.3)
    assert isinstance(one, Rejected) and one.kind == "no word times" and one.where == "long.wav" and "\n" not in one.told
    assert "25.3 s" in one.told and "long.words.csv" in one.told and "TextGrid" in one.told and "segments.align" in one.told


def test_a_part_of_a_file_has_its_own_words_only():
    words = [Word(f"w{i}", float(i), i + 0.9) for i in range(40)]
    pieces = Segments(overlap=0).cut(found(" ".join(f"w{i}" for i in range(10, 30)), words, start=10.0, end=30.0), 20.0)
    assert [w.text for p in pieces for w in p.words] == [f"w{i}" for i in range(10, 30)]
    assert pieces[0].start >= 10 and pieces[-1].end <= 30


class Even(Aligner):
    """Spreads words evenly."""

    def fingerprint(self):
        return "even"

    def align(self, samples, rate, text, language):
        step = len(samples) / rate / len(text.split())
        return Alignment((), tuple(Word(w, i * step, (i + 1) * step) for i, w in enumerate(text.split())), 1.0 if text[0] == "w" else 0.0)


def test_an_aligner_is_asked_where_nobody_told(tmp_path):
    write_wav(tmp_path / "long.wav", np.ones(RATE * 30, np.float32) * 0.1, RATE)
    cutter = Segments(overlap=0, align=Even(str(tmp_path), 0.5))
    text = " ".join(f"w{i}" for i in range(40))
    pieces = cutter.cut(found(text, audio=tmp_path / "long.wav", start=10.0), 20.0)
    assert " ".join(p.utterance.text for p in pieces) == text and pieces[0].start == 10 and pieces[-1].end == pytest.approx(30)
    (refused,) = cutter.cut(found("unsure words", audio=tmp_path / "long.wav"), 30.0)
    assert isinstance(refused, Rejected) and refused.kind == "alignment"
    assert cutter.settings()["align"] == {"aligner": "even", "least": 0.5} and Segments().settings()["align"] is None


@pytest.mark.parametrize("wrong", [{"overlap": 10}, {"overlap": -1}, {"search": -1}, {"margin": -0.1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"segments\.") as error:
        Segments(**wrong)
    assert "\n" not in str(error.value)


# -- the transcript's own words


@pytest.mark.parametrize(
    ("text", "heard", "pieces"),
    [
        (
            "So, it's $3.5 - today! That is what I said.",
            "so it's three point five today that is what i said",
            ["So,", "it's", "$3.5 -", "today!", "That", "is", "what", "I", "said."],
        ),
        ("The colour of it", "the color of it", ["The", "colour", "of", "it"]),
        ("one two three four five six", "one two four five six", ["one", "two three", "four", "five", "six"]),
        ("one two four five six", "um one two four five six", ["one", "two", "four", "five", "six"]),
    ],
)
def test_words_that_are_written_otherwise_get_their_times(text, heard, pieces):
    words = [Word(w, float(i), i + 0.8) for i, w in enumerate(heard.split())]
    result = matched(text, words)
    assert [w.text for w in result] == pieces and located(text, result) is not None
    assert result[0].start == 0 and result[-1].end == words[-1].end and all(a.end <= b.start for a, b in pairwise(result))


def test_another_text_is_refused():
    words = [
        Word(w, i, i + 1) for i, w in enumerate(["a", "transcript", "that", "is", "only", "a", "part", "of", "what", "is", "said", "there"])
    ]
    with pytest.raises(Unaligned, match=r"differ from the transcript in 10 places .of 2 words"):
        matched("a transcript", words)
    with pytest.raises(Unaligned, match=r"differ from the transcript in 4 places .of 4 words") as error:
        matched("four words of ours", [Word(w, i, i + 1) for i, w in enumerate(("somebody", "said", "quite", "otherwise"))])
    assert "\n" not in str(error.value)


# -- what lies beside a recording

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1.25
            text = "so ""it"" 7"
        intervals [3]:
            xmin = 1.25
            xmax = 2.5
            text = "is"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 1.0
            mark = "x"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2
"IntervalTier"
"anna - phones"
0
2.5
1
0
2.5
"x"
"IntervalTier"
"anna - words"
0
2.5
3
0
0.5
"<eps>"
0.5
1.25
"so ""it"" 7"
1.25
2.5
"is"
"""
GOOD = {
    "a.words.csv": 'word,start,end\n"so ""it"" 7",0.5,1.25\nis,1.25,2.5\n',
    "a.words.CSV": 'End;Begin;Text\n1.25;0.5;"so ""it"" 7"\n2.5;1.25;is\n',
    "a.words.json": '[{"word": " so \\"it\\" 7", "start": 0.5, "end": 1.25}, {"word": "is", "start": 1.25, "end": 2.5}]',
    "a.TextGrid": LONG,
    "a.words.textgrid": SHORT,
    "a.ctm": ";; by hand\nb 1 0.1 0.2 no\na 1 0.5 0.75 so_it_7 0.9\na 1 1.0 0.1 <eps>\na 1 1.25 1.25 is\n",
    "a.srt": '1\n00:00:00,500 --> 00:00:01,250\nso <i>"it"</i>\n7\n\n2\n00:00:01,250 --> 00:00:02,500\nis\n',
    "a.vtt": "WEBVTT - by hand\n\nNOTE\nnothing\n\n"
    '00:00.500 --> 00:01.250 align:start\nso "it" 7\n\nlast\n00:00:01.250 --> 00:00:02.500\n<v Anna>is\n',
}


@pytest.mark.parametrize("name", GOOD)
def test_times_in_every_format(tmp_path, name):
    (tmp_path / name).write_text(GOOD[name], encoding="utf-8")
    words = given(tmp_path / "a.wav")
    said_first = "so_it_7" if name.endswith("ctm") else 'so "it" 7'
    assert words == (Word(said_first, 0.5, 1.25), Word("is", 1.25, 2.5))


def test_recognisers_json_and_praats_utf16(tmp_path):
    (tmp_path / "a.words.json").write_text('{"text": "x", "segments": [{"words": [{"word": "so", "start": 0, "end": 1}]}, {"words": []}]}')
    assert given(tmp_path / "a.wav") == (Word("so", 0, 1),)
    (tmp_path / "a.words.json").write_text('{"segments": [{"text": "so it is", "start": 0, "end": 1}]}')
    assert given(tmp_path / "a.wav") == (Word("so it is", 0, 1),)
    (tmp_path / "b.TextGrid").write_text(LONG.replace('"is"', '"größer"'), encoding="utf-16")
    assert given(tmp_path / "b.wav")[-1].text == "größer"


def test_nothing_beside_is_nothing_and_words_go_first(tmp_path):
    (tmp_path / "a.csv").write_text("word,start,end\nno,0,1\n")
    (tmp_path / "ab.srt").write_text(GOOD["a.srt"])
    assert beside(tmp_path / "a.wav") is None and given(tmp_path / "a.wav") == ()
    (tmp_path / "a.TextGrid").write_text(LONG)
    (tmp_path / "a.words.csv").write_text('word,start,end\n"so\nit",0,1\nis\u2028now,1,2\n', encoding="utf-8")
    assert given(tmp_path / "a.wav") == (Word("so\nit", 0, 1), Word("is\u2028now", 1, 2))
    (tmp_path / "c.ctm").write_text("c 1 0.5 0.5 so\x0c\x85\nc 1 1 1 is\n", encoding="utf-8")
    assert [w.text for w in given(tmp_path / "c.wav")] == ["so", "is"]
    (tmp_path / "a.words.csv").write_text("word,start,end\nyes,0,1\n")
    assert given(tmp_path / "a.wav") == (Word("yes", 0, 1),)
    (tmp_path / "[x] a.srt").write_text(GOOD["a.srt"])
    assert beside(tmp_path / "[x] a.wav") == tmp_path / "[x] a.srt"


BAD = [
    ("a.words.csv", "word,start,end\nso,0,1\nit,x,2\n", r"line 3: 'x' is no time"),
    ("a.words.csv", "word,start\nso,0\n", r"line 2: no end: columns are word, start and end"),
    ("a.words.csv", "word,start,end\nso,2,1\n", r"'so' from 2 to 1 s: an end before its start"),
    ("a.words.csv", "word,start,end\nso,nan,1\n", r"'so' from nan"),
    ("a.words.csv", "", r"has no words"),
    ("a.words.json", '[{"word": "so",\n"start": 0, "end"', r"line 2: not valid JSON"),
    ("a.words.json", '{"text": "so"}', r"no list of words"),
    ("a.words.json", '["so"]', r"word 1: 'so' is not"),
    ("a.words.json", '[{"word": "so", "start": 0, "end": null}]', r"word 1: no end"),
    ("a.TextGrid", "word start end", r"no TextGrid"),
    ("a.TextGrid", LONG[:-200], r"cut short after"),
    (
        "a.TextGrid",
        LONG.replace('name = "words"', 'name = "phones"').replace("TextTier", "IntervalTier"),
        r"line \d+: .* where a number is due",
    ),
    ("a.TextGrid", SHORT.replace("anna - words", "tones"), r"no interval tier is called words \(there are 'anna - phones', 'tones'\)"),
    ("a.TextGrid", LONG.replace("intervals: size = 3", "intervals: size = x"), r"where a|is due"),
    ("a.ctm", "a 1 0.5 so\n", r"line 1: 4 columns"),
    ("a.ctm", "a 1 0.5 x so\n", r"line 1: 'x' is no time"),
    ("a.srt", "1\n00:00:01,000 --> soon\nso\n", r"line 2: '00:00:01,000 --> soon' is not"),
    ("a.srt", "nothing at all", r"has no words"),
    ("a.vtt", "WEBVTT\n", r"has no words"),
]


@pytest.mark.parametrize(("name", "text", "told"), BAD)
def test_a_malformed_file_is_one_line(tmp_path, name, text, told):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told) as error:
        given(tmp_path / "a.wav")
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
    (one,) = Segments().cut(found("so it is", audio=tmp_path / "a.wav"), 30.0)
    assert isinstance(one, Rejected) and one.kind == "no word times" and name in one.told


@pytest.mark.parametrize("suffix", READERS)
def test_bytes_that_are_no_text_are_one_line(tmp_path, suffix):
    (tmp_path / f"a.words{suffix}").write_bytes(b"word,start,end\n\xe9t\xe9,0,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        given(tmp_path / "a.wav")


@settings(max_examples=60, deadline=None)
@property_of(st.sampled_from(sorted(GOOD)), st.data())
def test_a_damaged_file_never_crashes(tmp_path_factory, name, data):
    whole = GOOD[name]
    cut = data.draw(st.integers(0, len(whole)))
    damaged = whole[:cut] + data.draw(st.text('"0:.-><,;\n x', max_size=6)) + whole[cut + data.draw(st.integers(0, 8)) :]
    folder = tmp_path_factory.mktemp("damaged")
    (folder / name).write_text(damaged, encoding="utf-8")
    try:
        assert all(w.start <= w.end for w in given(folder / "a.wav"))
    except DataError as error:
        assert "\n" not in str(error)


def test_samples_of_one_channel_are_heard(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "two.wav", np.stack([np.full(RATE * 12, 0.5), np.full(RATE * 12, -0.25)], 1), RATE)
    heard = []

    class Listening(Even):
        def align(self, samples, rate, text, language):
            heard.append(samples)
            return super().align(samples, rate, text, language)

    for channel in (1, None):
        Segments(align=Listening(str(tmp_path), 0.0)).cut(found("w1 w2 w3", audio=tmp_path / "two.wav", channel=channel), 12.0)
    assert [float(h.mean()) for h in heard] == pytest.approx([-0.25, 0.125], abs=1e-3) and heard[0].dtype == torch.float32
