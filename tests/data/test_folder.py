"""Users' own recordings: a folder of audio, or another program's cuts."""

import gzip
import json
import os
import time

import numpy as np
import pytest
import soundfile

from ttsadapt.artifacts import ensure
from ttsadapt.data import manifest
from ttsadapt.data.bringing.engine import REJECTED, read_rejected
from ttsadapt.data.bringing.loudness import loudness
from ttsadapt.data.bringing.settings import Bringing
from ttsadapt.data.corpora import listed
from ttsadapt.data.corpora.folder import Folder
from ttsadapt.data.corpora.manifest import Manifest
from ttsadapt.data.corpora.together import Together
from ttsadapt.data.prepare import PreparedCorpus
from ttsadapt.data.recordings import Recordings, _rows
from ttsadapt.data.segmentation import Segments
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import ConfigError, DataError, UserError
from ttsadapt.files import content_hash
from ttsadapt.text.phones import phonemize

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
TEXTS = [f"This is {word}." for word in NUMBERS]


def record(path, rate=22050, channels=1, seconds=0.3, hz=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = 0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(audio[:, None], channels, 1), rate)


def folder(root, texts=TEXTS, name="{i:02d}", suffix=".wav", transcript=".txt"):
    for i, text in enumerate(texts):
        path = root / (name.format(i=i) + suffix)
        record(path, hz=200 + 10 * i)
        path.with_suffix(transcript).write_text(text + "\n", encoding="utf-8")
    return root


def prepared(tmp_path, corpus):
    artifact = PreparedCorpus(corpus, tmp_path / "cache")
    ensure(artifact)
    return artifact


def rejected(artifact):
    """{kind: messages}"""
    kinds = {}
    for one in read_rejected(artifact.folder / REJECTED):
        kinds.setdefault(one.kind, []).append(one.told)
    return kinds


def everything(artifact):
    return {u.id: (name, u) for name in artifact.names() for u in artifact.utterances(name)}


def fails(make, kind=DataError):
    with pytest.raises(kind) as error:
        make()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_transcripts_beside_the_audio(tmp_path):
    root = folder(tmp_path / "voice", name="anna/{i:02d}", suffix=".flac", transcript=".lab")
    record(root / "anna" / "00.flac", rate=44100, channels=2)
    corpus = prepared(tmp_path, Folder(str(root), language="en-us"))
    all_of_it = everything(corpus)
    assert corpus.names() == ["target.test", "target.train", "target.valid"] and len(all_of_it) == 12
    for name, utterance in all_of_it.values():
        info = soundfile.info(utterance.audio)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16") and utterance.duration == info.frames / 16000
        assert utterance.audio.is_relative_to(corpus.folder) and utterance.phones == () and utterance.speaker == "anna"
        assert phonemize(utterance.text, utterance.language)
        assert name.startswith("target.")
    assert corpus.card["sets"]["target.train"]["utterances"] == 10 and corpus.card["phones"] == []


def test_the_fingerprint_is_of_the_contents(tmp_path):
    first, second = folder(tmp_path / "a" / "voice"), folder(tmp_path / "b" / "voice")
    same = Folder(str(first)).fingerprint()
    assert Folder(str(second)).fingerprint() == same
    assert Folder(str(second), emotion="sad").fingerprint() != same
    (second / "00.txt").write_text("This is zero.")
    assert Folder(str(second)).fingerprint() != same


def test_the_fingerprint_is_of_the_code_and_of_what_it_calls(tmp_path, monkeypatch):
    root = folder(tmp_path / "voice")
    before = Folder(str(root)).fingerprint()
    names = {f"{path.parent.name}/{path.name}" for path in Folder(str(root)).code()}
    there = {"corpora/folder.py", "corpora/listed.py", "layouts/roles.py", "data/emotions.py", "data/recordings.py", "data/splits.py"}
    assert names >= there | {"bringing/engine.py", "bringing/item.py", "bringing/loudness.py", "text/phones.py"}
    assert "alignment/given.py" not in names and not any(name.endswith("abc.py") for name in names)
    cut = {f"{path.parent.name}/{path.name}" for path in Folder(str(root), bring=Bringing(segments=Segments())).code()}
    assert cut - names >= {"data/segmentation.py", "alignment/given.py", "alignment/ctc.py"}
    monkeypatch.setattr(listed, "_version", lambda name: "2" if name == "soxr" else "1")
    other = Folder(str(root)).fingerprint()
    monkeypatch.setattr(listed, "_version", lambda name: "1")
    assert len({before, other, Folder(str(root)).fingerprint()}) == 3
    monkeypatch.undo()
    monkeypatch.setattr(listed, "content_hash", lambda path: content_hash(path) + ("x" if path.name == "roles.py" else ""))
    assert Folder(str(root)).fingerprint() != before


def test_splits_do_not_depend_on_order_and_share_no_sentence(tmp_path):
    root = folder(tmp_path / "voice", [t for t in TEXTS for _ in range(2)])
    parts = {}
    for name, utterance in everything(prepared(tmp_path, Folder(str(root)))).values():
        parts.setdefault(name, set()).add(utterance.text)
    assert {name: len(texts) for name, texts in parts.items()} == {"target.train": 10, "target.valid": 1, "target.test": 1}
    renamed = folder(tmp_path / "again", list(reversed([t for t in TEXTS for _ in range(2)])), name="x{i:02d}")
    again = everything(prepared(tmp_path, Folder(str(renamed), speaker="voice")))
    assert all(u.text in parts[name] for name, u in again.values())


def test_a_table_with_a_header(tmp_path):
    root = tmp_path / "voice"
    lines = ["file,text,speaker,emotion,language,split"]
    for i, (split, language) in enumerate([("train", "en-us"), ("dev", "de"), ("test", ""), ("train", "en-us")]):
        record(root / f"wavs/{i}.wav", hz=200 + 10 * i)
        lines.append(f'wavs/{i}.wav,"{TEXTS[i]}, I said",s{i % 2},sad,{language},{split}')
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    found = everything(prepared(tmp_path, Folder(str(root))))
    assert {i: name for i, (name, _) in found.items()} == {
        "wavs-0": "target.train",
        "wavs-1": "target.valid",
        "wavs-2": "target.test",
        "wavs-3": "target.train",
    }
    assert [found[f"wavs-{i}"][1].language for i in range(3)] == ["en-us", "de", "en-us"]
    assert found["wavs-1"][1].speaker == "s1" and found["wavs-1"][1].emotion == "sad" and found["wavs-1"][1].text == "This is two., I said"


def test_a_table_as_ljspeech_has_it(tmp_path):
    root = tmp_path / "LJ"
    rows = []
    for i, text in enumerate(TEXTS):
        record(root / "wavs" / f"LJ-{i}.wav", hz=200 + 10 * i)
        rows.append(f'LJ-{i}|"{text}|{text}')
    (root / "metadata.csv").write_text("\n".join(rows))
    found = everything(prepared(tmp_path, Folder(str(root), parent="nothing")))
    assert found["LJ-3"][1].text == '"This is four.' and found["LJ-3"][1].speaker == "LJ"


def test_speaker_and_emotion_from_names_and_folders(tmp_path):
    root = folder(tmp_path / "voice", name="angry/bob_{i:02d}")
    found = everything(prepared(tmp_path, Folder(str(root), pattern=r"(?P<speaker>[a-z]+)_", parent="emotion")))
    assert {(u.speaker, u.emotion) for _, u in found.values()} == {("bob", "angry")}
    found = everything(prepared(tmp_path, Folder(str(root), speaker="carl", emotion="happy", parent="nothing")))
    assert {(u.speaker, u.emotion) for _, u in found.values()} == {("carl", "happy")}


def test_a_source_folder_shares_no_sentence_across_splits(tmp_path):
    mine, theirs = folder(tmp_path / "mine"), folder(tmp_path / "theirs", TEXTS[4:])
    corpus = prepared(tmp_path, Folder(str(mine), source={"path": str(theirs), "speaker": "them"}))
    split = {}
    for name, utterance in everything(corpus).values():
        assert split.setdefault(utterance.text, name.partition(".")[2]) == name.partition(".")[2]
    assert {n.partition(".")[0] for n in corpus.names()} == {"source", "target"}
    assert {u.speaker for u in corpus.utterances("source.train")} == {"them"}


def test_bad_settings_and_places_are_one_line(tmp_path):
    root = folder(tmp_path / "voice")

    def prepare(**settings):
        return prepared(tmp_path, Folder(str(root), **settings))

    assert "there is no such folder" in fails(lambda: prepared(tmp_path, Folder(str(tmp_path / "nowhere"))))
    assert "role is 'traget'" in fails(lambda: prepare(role="traget"), ConfigError)
    assert "fractions" in fails(lambda: Bringing(fractions=[0.5, 0.1, 0.1]), ConfigError)
    assert "bring.sample_rate is 100" in fails(lambda: Bringing(sample_rate=100), ConfigError)
    assert "bring.loudness is 23" in fails(lambda: Bringing(loudness=23), ConfigError)
    assert "bring.trim is 0" in fails(lambda: Bringing(trim=0), ConfigError)
    assert "bring.longest is 1" in fails(lambda: Bringing(longest=1, shortest=2), ConfigError)
    assert "regular expression" in fails(lambda: prepare(pattern="("), ConfigError)
    assert "'mood'" in fails(lambda: prepare(pattern="(?P<mood>.)"), ConfigError)
    assert "source.pth" in fails(lambda: prepare(source={"pth": "x"}), ConfigError)
    assert "source.path" in fails(lambda: prepare(source={"speaker": "x"}), ConfigError)
    assert "no recording can be used (name 12)" in (line := fails(lambda: prepare(pattern="(?P<speaker>[a-z]+)_")))
    assert "does not fit the pattern" in line
    assert "'xx'" in fails(lambda: prepare(language="xx"))
    assert "metadata" in fails(lambda: prepare(metadata="rows.csv"))
    assert "lies outside" in fails(lambda: prepare(metadata="../rows.csv"), UserError)
    assert not [p for p in (tmp_path / "cache" / "corpora").iterdir() if p.is_dir()]
    assert "2 different sentences" in fails(lambda: prepared(tmp_path, Folder(str(folder(tmp_path / "few", TEXTS[:2])))))
    (tmp_path / "empty").mkdir()
    assert "no audio" in fails(lambda: prepared(tmp_path, Folder(str(tmp_path / "empty"))))


def test_bad_recordings_are_named_and_counted_and_the_rest_goes_on(tmp_path):
    root = folder(tmp_path / "voice", [*TEXTS, *(f"{text[:-1]} again." for text in TEXTS)])
    (root / "00.txt").write_text("...")
    (root / "01.txt").write_text(" ")
    (root / "02.txt").unlink()
    (root / "03.txt").write_bytes(b"\xff\xfe\x00")
    (root / "04.wav").write_bytes(b"RIFFxxxx")
    soundfile.write(root / "05.wav", np.zeros(8000), 16000)
    soundfile.write(root / "06.wav", np.zeros(0), 16000)
    soundfile.write(root / "07.wav", np.sign(np.sin(np.arange(8000))), 16000)
    record(root / "08.wav", seconds=0.05)
    record(root / "09.wav", seconds=5)
    (root / "a").mkdir()
    (root / "10.wav").rename(root / "a" / "b.wav"), (root / "10.txt").rename(root / "a" / "b.txt")
    (root / "11.wav").rename(root / "a-b.wav"), (root / "11.txt").rename(root / "a-b.txt")
    corpus = prepared(tmp_path, Folder(str(root), parent="nothing", bring=Bringing(longest=4)))
    kinds = rejected(corpus)
    assert {kind: len(told) for kind, told in kinds.items()} == corpus.card["rejected"]
    words = {
        "unspeakable text": "nothing to pronounce",
        "no text": "01.wav: its transcript is empty",
        "no transcript": "02.wav has no transcript",
        "unreadable": "04.wav as audio",
        "silent": "05.wav is silent",
        "empty": "06.wav holds no samples",
        "clipped": "at full scale",
        "too short": "0.05 s of it are left",
        "too long": "09.wav lasts 5.0 s",
        "duplicate id": "'a-b' is also that of",
    }
    assert kinds.keys() == words.keys()
    assert all(word in kinds[kind][0] for kind, word in words.items()) and "UTF-8" in kinds["no transcript"][1]
    assert set(everything(corpus)) == {"a-b", *(f"{i}" for i in range(12, 24))}
    with open(corpus.folder / REJECTED) as file:
        assert file.readline() == "where,kind,told\n"


@pytest.mark.parametrize(
    ("rows", "kind", "words"),
    [
        ("id,text\n0,Hello\n0,Bye", "duplicate id", "the id '0' is also that of"),
        ("id,text\n1,Hello\n7,Hello", "missing file", "line 3: no recording below the folder has the name '7'"),
        ("file,text\n0.wav,Hi\n../x.wav,Hello", "outside", "line 3: '../x.wav' lies outside"),
        ("file,text\n0.wav,Hi\n9.wav,Hello", "missing file", "line 3: no recording"),
        ("id,text\n1,Hi\n0,", "no text", "line 3: its transcript is empty"),
        ("id,text,split\n1,Hi,train\n0,Hello,tets", "unknown split", "line 3: unknown split 'tets'"),
        ("id,text\n1,Hi\n0,... !!! ---", "unspeakable text", "the text '... !!! ---' has nothing to pronounce"),
        ("id,text,split\n1,Hi,\n0,Hello", "row", "line 3: 2 columns where 3"),
        ("0|Hello\n1", "row", "line 2: 1 columns where 2"),
    ],
)
def test_bad_rows_are_left_out(tmp_path, rows, kind, words):
    root = tmp_path / "voice"
    record(root / "0.wav"), record(root / "1.wav", hz=300)
    (root / "metadata.csv").write_text(rows)
    corpus = prepared(tmp_path, Folder(str(root), bring=Bringing(fractions=[1, 0, 0])))
    kinds = rejected(corpus)
    kinds.pop("not in the table", None)
    ((found, (told,)),) = kinds.items()
    assert found == kind and words in told and len(everything(corpus)) == 1


def test_a_leak_is_left_out(tmp_path):
    rows = ["id,text,split", "0,Hello there,test", "1,hello there!,train", "2,Bye,train"]
    for i in range(3):
        record(tmp_path / f"voice/{i}.wav", hz=200 + 10 * i)
    (tmp_path / "voice/metadata.csv").write_text("\n".join(rows))
    corpus = prepared(tmp_path, Folder(str(tmp_path / "voice"), bring=Bringing(fractions=[1, 0, 0])))
    assert "its sentence is in train and, at" in rejected(corpus)["leak"][0] and set(everything(corpus)) == {"0", "2"}


def test_cells_over_two_lines_and_characters_that_end_no_row(tmp_path):
    """Form feeds, U+0085 and U+2028 are part of a text; a table may be UTF-16, as spreadsheets save it."""
    rows = 'id,text\r\n0,"One\nand two"\r\n1,Three\u2028four\x85five\r\n2,six\fseven\r\n'
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / encoding).mkdir()
        (tmp_path / encoding / "t.csv").write_bytes(rows.encode(encoding))
        found = [(row.get("text"), where.rpartition(" ")[2]) for row, where in _rows(tmp_path / encoding / "t.csv")]
        assert found == [("One\nand two", "2"), ("Three\u2028four\x85five", "4"), ("six\x0cseven", "5")]
    (tmp_path / "open.csv").write_text('id,text\n0,"' + "word " * 50000)
    assert "open.csv, line 2: field larger" in fails(lambda: list(_rows(tmp_path / "open.csv")))


def test_recordings_that_the_table_does_not_name_are_told(tmp_path):
    root = folder(tmp_path / "voice", TEXTS[:4])
    (root / "metadata.csv").write_text("file,text\n00.wav,Hello\n./01.wav,Bye\n02.wav,")
    ones = list(Recordings(str(root)).found("target"))
    assert [(one.kind, one.where) for one in ones[2:]] == [
        ("no text", f"{root}/metadata.csv, line 4"),
        ("not in the table", f"{root}/03.wav"),
    ]
    scored = list(Recordings(str(root)).found("target", silent=True))
    assert [one.utterance.text for one in scored] == ["Hello", "Bye", "", ""]


def test_linked_folders_are_read_and_hashed_alike_and_loops_end(tmp_path):
    folder(tmp_path / "elsewhere" / "ann", TEXTS)
    root = tmp_path / "voice"
    root.mkdir()
    (root / "ann").symlink_to(tmp_path / "elsewhere" / "ann")
    (root / "bob").symlink_to(tmp_path / "elsewhere" / "ann")
    before = Folder(str(root)).fingerprint()
    (tmp_path / "elsewhere" / "ann" / "again").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    found = list(Recordings(str(root)).found("target"))
    assert len(found) == 24 and {one.utterance.speaker for one in found} == {"ann", "bob"}
    assert Folder(str(root)).fingerprint() == before
    (tmp_path / "elsewhere" / "ann" / "00.txt").write_text("Changed.")
    assert Folder(str(root)).fingerprint() != before


def test_a_name_that_is_not_utf_8_is_one_line(tmp_path):
    root = folder(tmp_path / "voice")
    os.rename(os.fsencode(root / "00.wav"), os.fsencode(root) + b"/\xe4.wav")
    assert r"\xe4.wav': its name is not UTF-8: rename it" in fails(lambda: Folder(str(root)).fingerprint())
    assert "rename it" in fails(lambda: list(Recordings(str(root)).found("target")))


def test_a_header_without_text_is_one_line(tmp_path):
    record(tmp_path / "voice" / "0.wav")
    (tmp_path / "voice" / "metadata.csv").write_text("id,txet\n0,Hello")
    told = fails(lambda: prepared(tmp_path, Folder(str(tmp_path / "voice"))))
    assert "line 1: a header with 'id' needs the columns text and id or file" in told


# -- cuts of another program


def cut(name, source="wavs/{}.wav", **supervision):
    """0.3 s at 22 050 Hz, as lhotse writes it."""
    span = {"start": 0, "duration": 0.3, "channel": 0}
    audio = {"type": "file", "channels": [0], "source": source.format(name)}
    recording = {"id": name, "sources": [audio], "sampling_rate": 22050, "num_samples": 6615, "duration": 0.3, "channel_ids": [0]}
    said = {"id": name, "recording_id": name, "text": "This is one.", "speaker": "eve", "language": "en-us"} | span
    return {"id": name, "supervisions": [said | supervision], "recording": recording, "type": "MonoCut"} | span


def cuts(root, rows, name="cuts.jsonl.gz"):
    root.mkdir(exist_ok=True)
    with gzip.open(root / name, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return root / name


def test_a_cuts_file(tmp_path):
    rows = []
    for i, text in enumerate(TEXTS):
        record(tmp_path / "data" / "wavs" / f"{i}.wav", hz=200 + 10 * i)
        rows.append(cut(str(i), text=text, custom={"emotion": "calm"}))
    rows[0]["supervisions"][0]["alignment"] = {"phone": [["ð", 0.1, 0.05, None], ["ˈɪ", 0.15, 0.1, None]]}
    rows[0] |= {"start": 0.05, "duration": 0.2}
    rows[0]["supervisions"][0]["duration"] = 0.2
    corpus = prepared(tmp_path, Manifest(str(cuts(tmp_path / "data", rows)), role="source"))
    found = everything(corpus)
    assert len(found) == 12 and set(corpus.names()) == {"source.train", "source.valid", "source.test"}
    first = found["0"][1]
    assert first.emotion == "calm" and first.speaker == "eve" and first.duration == pytest.approx(0.2, abs=1e-3)
    assert first.phones[0] == Phone("_", 0.0, 0.1) and [p.symbol for p in first.phones] == ["_", "ð", "ˈɪ"]
    assert first.phones[-1].end == first.duration and found["1"][1].phones == ()


def test_a_folder_of_manifests_brings_in_what_another_corpus_wrote(tmp_path):
    first = prepared(tmp_path, Folder(str(folder(tmp_path / "voice"))))
    again = prepared(tmp_path, Manifest(str(first.folder)))
    for name in first.names():
        for a, b in zip(first.utterances(name), again.utterances(name), strict=True):
            assert (a.id, a.text, a.speaker, a.duration) == (b.id, b.text, b.speaker, b.duration)
            assert a.audio.read_bytes() == b.audio.read_bytes()


def test_the_fingerprint_of_cuts_covers_their_recordings(tmp_path):
    record(tmp_path / "data" / "wavs" / "a.wav")
    path = cuts(tmp_path / "data", [cut("a")])
    before = Manifest(str(path)).fingerprint()
    assert Manifest(str(path)).fingerprint() == before
    record(tmp_path / "data" / "wavs" / "a.wav", hz=300)
    assert Manifest(str(path)).fingerprint() != before


def test_what_cuts_name_is_remembered_until_they_change(tmp_path, monkeypatch):
    for name in "ab":
        record(tmp_path / "wavs" / f"{name}.wav")
    path = cuts(tmp_path, [cut("a"), cut("b")])
    corpus, plain = Manifest(str(path)).remembering(tmp_path / "cache"), Manifest(str(path)).fingerprint()
    old = time.time() - 60  # a file that has just changed is not remembered
    for file in (path, *tmp_path.rglob("*.wav")):
        os.utime(file, (old, old))
    both = Together(Manifest(str(path)), Manifest(str(path)), Bringing()).remembering(tmp_path / "cache")
    known = both.fingerprint()
    assert corpus.fingerprint() == plain
    monkeypatch.setattr(manifest, "rows", lambda *a, **k: pytest.fail("read again"))
    assert corpus.fingerprint() == plain and both.fingerprint() == known
    monkeypatch.undo()
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).split(b"\n", 1)[1]))
    assert corpus.fingerprint() != plain


def changed(**change):
    row = cut("a")
    row |= change
    return row


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([cut("a", source="../../{}.wav")], "line 1: '../../a.wav' lies outside"),
        ([cut("b")], "line 1: no recording"),
        ([changed(supervisions=[])], "line 1: not a cut"),
        ([changed(recording={})], "line 1: not a cut"),
        ([cut("a", text="")], "line 1: its supervision has no text"),
        ([cut("a", text="?!")], "the text '?!' has nothing to pronounce"),
        ([cut("a", language="English")], "espeak-ng has no language 'English'"),
        ([cut("a", custom={"split": "nope"})], "line 1: unknown split"),
        ([changed(channel=3)], "line 1: its recording has no channel 3"),
        ([changed(recording=cut("a")["recording"] | {"transforms": [{}]})], "line 1: its audio is transformed"),
        (["a"], "line 1: not a cut but a str"),
    ],
)
def test_bad_cuts_are_one_line(tmp_path, rows, words):
    record(tmp_path / "data" / "wavs" / "a.wav")
    path = cuts(tmp_path / "data", rows)
    assert words in fails(lambda: prepared(tmp_path, Manifest(str(path), bring=Bringing(fractions=[1, 0, 0]))))


def test_bad_places_of_cuts_are_one_line(tmp_path):
    assert "no cuts file" in fails(lambda: prepared(tmp_path, Manifest(str(tmp_path / "none"))))
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    assert "corrupt" in fails(lambda: prepared(tmp_path, Manifest(str(tmp_path / "bad.jsonl.gz"))))
    assert "name it <set>.<split>" in fails(lambda: prepared(tmp_path, Manifest(str(tmp_path))))


def test_a_folder_from_its_yaml_is_trimmed_levelled_and_split_as_asked(tmp_path):
    from hydra.utils import instantiate

    from ttsadapt.config.base import composed

    for who in ("ann", "bob", "eve"):
        for i in range(3):
            record(tmp_path / "voices" / who / f"{i}.wav", seconds=1, hz=200 + 10 * i + len(who) * ord(who[0]))
            (tmp_path / "voices" / who / f"{i}.txt").write_text(f"This is {who} with {NUMBERS[i]}.")
    cfg = composed("data=folder", f"data.path={tmp_path / 'voices'}", "data/bring/split_by=speaker", "data.bring.sample_rate=8000")
    corpus = prepared(tmp_path, instantiate(cfg.data))
    assert {name: {u.speaker for u in corpus.utterances(name)} for name in corpus.names()}.keys() == {
        "target.test",
        "target.train",
        "target.valid",
    }
    assert all(len({u.speaker for u in corpus.utterances(name)}) == 1 for name in corpus.names())
    assert instantiate(cfg.data).fingerprint() == corpus.fingerprint
    samples, rate = soundfile.read(corpus.utterances("target.train")[0].audio, dtype="float32")
    assert rate == 8000 and loudness(samples, rate) == pytest.approx(-23, abs=0.1)
