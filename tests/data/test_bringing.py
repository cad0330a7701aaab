"""What happens to recordings on their way in: what is written, how it is split, that a killed process goes on."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import loudness as of_torchaudio

from ttsadapt.artifacts import ensure
from ttsadapt.data import manifest
from ttsadapt.data.bringing.denoise import SpectralGate
from ttsadapt.data.bringing.engine import Journal, bring_in
from ttsadapt.data.bringing.item import Brought, bring, ends, moved
from ttsadapt.data.bringing.loudness import _weighting, loudness
from ttsadapt.data.bringing.settings import Bringing
from ttsadapt.data.bringing.summary import lacking, strange, timed, told
from ttsadapt.data.corpora.folder import Folder
from ttsadapt.data.espeak import RATE as ESPEAK
from ttsadapt.data.espeak import engine
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.hashes import Hashes
from ttsadapt.data.prepare import PreparedCorpus
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.files import read_json

RATE = 16000


def noise(seconds=1.0, rate=RATE, seed=0, level=0.1):
    """(samples,) that come and go like syllables."""
    time = np.arange(int(seconds * rate)) / rate
    return level * np.random.default_rng(seed).standard_normal(len(time)) * (0.6 + 0.4 * np.sin(9 * time))


def found(path, text="Some words.", **more):
    known = {k: more.pop(k) for k in ("id", "speaker", "emotion", "phones", "hash", "context") if k in more}
    utterance = Utterance(**{"id": path.stem, "speaker": "eve"} | known, audio=path, text=text)
    return Found(utterance, more.pop("set", "target"), more.pop("split", ""), more.pop("where", str(path)), **more)


def written(path, audio, rate=RATE, **format):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, **format)
    return path


def one(tmp_path, audio, rate=RATE, how=None, **more):
    result = bring(found(written(tmp_path / "a.wav", audio, rate, subtype="FLOAT"), **more), tmp_path / "out.wav", how or Bringing())
    if isinstance(result, Rejected):
        return result, None
    samples, wrote = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert wrote == (how or Bringing()).sample_rate and result.seconds == len(samples) / wrote
    return result, samples


# -- one recording


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_loudness_is_that_of_another_implementation(rate):
    """torchaudio rounds the standard's filter, which is worth 0.2 dB for white noise."""
    audio = noise(3.0, rate).astype(np.float32)
    audio[rate : 2 * rate] *= 0.01  # below the relative gate
    assert loudness(audio, rate) == pytest.approx(float(of_torchaudio(torch.from_numpy(audio)[None], rate)), abs=0.3)


def test_the_filters_are_the_standards_at_48_khz():
    """ITU-R BS.1770-4, annex 1, tables 1 and 2."""
    shelf, high = _weighting(48000)
    assert shelf == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585], abs=1e-6)
    assert high == pytest.approx([1, -2, 1, 1, -1.99004745483398, 0.99007225036621], abs=1e-6)


def test_loudness_of_a_known_tone():
    """ITU-R BS.1770-4, section 5: a full-scale 997 Hz sine in one channel is -3.01 LUFS; twice as much power is 3.01 more."""
    tone = np.sin(2 * np.pi * 997 * np.arange(48000) / 48000).astype(np.float32)
    assert loudness(tone, 48000) == pytest.approx(-3.01, abs=0.02)
    assert loudness(tone / 10, 48000) == pytest.approx(-23.01, abs=0.02)
    assert loudness(tone[:4800], 48000) == pytest.approx(-3.01, abs=0.2)  # shorter than a gating block
    assert loudness(np.zeros(48000, np.float32), 48000) == -np.inf


@pytest.mark.parametrize("seconds", [0.25, 2.0])
def test_every_recording_gets_the_same_loudness_and_no_peak_above_the_limit(tmp_path, seconds):
    for level in (0.001, 0.1):
        _, samples = one(tmp_path, noise(seconds, level=level), how=Bringing(loudness=-23))
        assert loudness(samples, RATE) == pytest.approx(-23, abs=0.1)
    _, samples = one(tmp_path, noise(seconds, level=0.1), how=Bringing(loudness=-3, peak=-1))
    assert np.abs(samples).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)


def test_silence_at_both_ends_is_cut_off_but_for_a_margin(tmp_path):
    speech = noise(1.0)
    audio = np.concatenate([np.zeros(8000), speech, np.zeros(4000)]) + 1e-5 * noise(1.75)
    brought, samples = one(tmp_path, audio, how=Bringing(trim=40, margin=0.1))
    assert brought.start == pytest.approx(0.4, abs=0.021) and len(samples) / RATE == pytest.approx(1.2, abs=0.042)
    brought, samples = one(tmp_path, speech, how=Bringing(trim=40))
    assert brought.start == 0 and len(samples) == len(speech)


def test_phones_move_with_what_is_cut_off():
    phones = [Phone("_", 0.0, 0.5), Phone("a", 0.5, 0.9), Phone("_", 0.9, 1.5)]
    assert moved(phones, Brought(0.6, "", 0.4)) == (
        Phone("_", 0.0, pytest.approx(0.1)),
        Phone("a", pytest.approx(0.1), 0.5),
        Phone("_", 0.5, 0.6),
    )
    assert moved([], Brought(0.6, "", 0.4)) == ()


def test_only_the_segment_and_the_channel_are_read(tmp_path):
    left, right = noise(2.0, seed=1), noise(2.0, seed=2)
    _, samples = one(tmp_path, np.stack([left, right], 1), start=0.5, end=1.5, channel=1)
    np.testing.assert_allclose(samples, right[8000:24000] - right[8000:24000].mean(), atol=1e-4)
    _, samples = one(tmp_path, np.stack([left, right], 1), start=0.5)
    both = (left + right)[8000:] / 2
    np.testing.assert_allclose(samples, both - both.mean(), atol=1e-4)


def test_a_constant_is_taken_away_and_16_bits_pass_unchanged(tmp_path):
    _, samples = one(tmp_path, noise() + 0.2)
    assert abs(samples.mean()) < 1e-4
    pcm = np.round(noise(level=0.2) * 32768).astype(np.int16)
    pcm -= round(pcm.mean())
    first = written(tmp_path / "b.wav", pcm)
    brought = bring(found(first), tmp_path / "out.wav", Bringing())
    assert (soundfile.read(tmp_path / "out.wav", dtype="int16")[0] == pcm).all()
    assert bring(found(tmp_path / "out.wav"), tmp_path / "again.wav", Bringing()).hash == brought.hash
    other = bring(found(written(tmp_path / "c.wav", pcm[1:])), tmp_path / "again.wav", Bringing())
    assert other.hash != brought.hash


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"start": 3.0}, "empty", "lasts 1.000 s but the recording starts at 3.000 s"),
        ({"channel": 2}, "unreadable", "has 1 channels"),
        ({"text": " "}, "no text", "is empty"),
        ({"end": 0.05}, "too short", "0.05 s of it are left"),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path, more, kind, words):
    rejected, _ = one(tmp_path, noise(), **more)
    assert rejected.kind == kind and words in rejected.told and "\n" not in rejected.told and rejected.where == str(tmp_path / "a.wav")


def test_a_file_that_is_not_there_is_told():
    assert bring(found(Path("/nowhere/a.wav")), Path("/nowhere/b.wav"), Bringing()).kind == "missing file"


@pytest.mark.parametrize("seed", range(50))
def test_trimming_keeps_all_that_is_loud(seed):
    rng = np.random.default_rng(seed)
    length, before, after, margin = int(rng.integers(1, 4000)), *rng.integers(0, 3000, 2).tolist(), rng.uniform(0, 0.2)
    audio = np.concatenate([np.zeros(before), np.ones(length), np.zeros(after)]).astype(np.float32)
    first, end = ends(audio, RATE, 40.0, margin)
    assert 0 <= first <= before and before + length <= end <= len(audio)
    assert before - first <= margin * RATE + 321 and end - before - length <= margin * RATE + 321


# -- all of them


def corpus(tmp_path, count, how=None, seconds=0.3):
    items = [
        found(written(tmp_path / "in" / f"{i:03d}.wav", noise(seconds, seed=i)), f"Number {chr(97 + i % 26)} {chr(97 + i // 26)}.")
        for i in range(count)
    ]
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    bring_in(items, folder, how or Bringing(processes=1))
    return folder


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_bytes_however_many_processes_and_in_whatever_order(tmp_path):
    how = Bringing(processes=1, loudness=-23, trim=40)
    first = bytes_of(corpus(tmp_path / "a", 70, how, 0.12))
    items = [found(tmp_path / "a" / "in" / f"{i:03d}.wav", f"Number {chr(97 + i % 26)} {chr(97 + i // 26)}.") for i in reversed(range(70))]
    (tmp_path / "b").mkdir()
    bring_in(iter(items), tmp_path / "b", replace(how, processes=2))
    assert bytes_of(tmp_path / "b") == first and len(first) == 70 + 3 + 2
    known = manifest.read(tmp_path / "b", "target.train")
    assert len({u.hash for u in known}) == len(known) and all(len(u.hash) == 32 for u in known)


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from test_bringing import found
from ttsadapt.data.bringing import engine
from ttsadapt.data.bringing.settings import Bringing
slow = engine.bring
def bring(one, path, how):
    time.sleep(0.05)
    return slow(one, path, how)
engine.bring = bring
items = [found(p, "Number " + p.stem + ".") for p in sorted(Path({inputs!r}).glob("*.wav"))]
engine.bring_in(items, Path({folder!r}), Bringing(processes=1))
"""


def test_a_killed_process_goes_on_where_it_was(tmp_path, monkeypatch):
    items = [found(written(tmp_path / "in" / f"{i:03d}.wav", noise(0.3, seed=i)), f"Number {i:03d}.") for i in range(40)]
    folder, whole = tmp_path / "out", tmp_path / "whole"
    folder.mkdir(), whole.mkdir()
    code = KILLED.format(path=[str(Path(__file__).parent)], inputs=str(tmp_path / "in"), folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    journal = Journal(folder / "journal.jsonl")
    while len(journal.read()) < 3 and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = set(journal.read())
    assert 3 <= len(done) < 40
    with open(journal.path, "a") as file:
        file.write('["cut short')
    again: list[str] = []

    def counted(one, path, how):
        again.append(one.utterance.id)
        return bring(one, path, how)

    bring_in(items, whole, Bringing(processes=1))
    monkeypatch.setattr("ttsadapt.data.bringing.engine.bring", counted)
    bring_in(items, folder, Bringing(processes=1))
    assert len(again) == 40 - len(done) and bytes_of(folder) == bytes_of(whole)


def test_nothing_left_is_one_line(tmp_path):
    bad = [found(written(tmp_path / f"{i}.wav", np.zeros(100))) for i in range(3)] + [Rejected("row 7", "no text", "row 7: no text")]
    with pytest.raises(DataError) as error:
        bring_in(bad, tmp_path, Bringing(fractions=[1, 0, 0]))
    assert "(silent 3, no text 1)" in str(error.value) and "row 7" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataError, match="no recording was found"):
        bring_in([], tmp_path, Bringing())


def test_turns_that_were_refused_end_the_context(tmp_path):
    items = [found(written(tmp_path / "in" / f"{i}.wav", noise(0.3, seed=i)), f"Turn {'abcd'[i]}.", group="talk") for i in range(4)]
    written(tmp_path / "in" / "1.wav", np.zeros(5000))
    talk = [replace(one, utterance=replace(one.utterance, context=tuple(o.utterance for o in items[:i]))) for i, one in enumerate(items)]
    (tmp_path / "out").mkdir()
    bring_in(talk, tmp_path / "out", Bringing(fractions=[1, 0, 0]))
    known = {u.id: u for u in manifest.read(tmp_path / "out", "target.train")}
    assert {i: [turn.id for turn in u.context] for i, u in known.items()} == {"0": [], "2": [], "3": ["2"]}


class Halves:
    """Cuts a recording in the middle."""

    def cut(self, found, duration):
        middle, name = found.start + duration / 2, found.utterance.id
        first = replace(found, end=middle, utterance=replace(found.utterance, id=f"{name}-0"), group=name)
        return [first, replace(found, start=middle, utterance=replace(found.utterance, id=f"{name}-1", text=f"{name} b"), group=name)]


class Whole:
    """One phone from beginning to end, but not in "2-1"."""

    phones, sure, poor = True, [0.2, 0.6, 0.7], 0.3

    def fit(self, utterances):
        self.heard = [u.id for u in utterances]

    def times(self, utterance):
        if utterance.id == "2-1":
            return Rejected("its file", "alignment", "not sure")
        return replace(utterance, phones=(Phone("a", 0.0, utterance.duration),))


def test_pieces_stay_together_and_are_aligned(tmp_path):
    items = [found(written(tmp_path / "in" / f"{i}.wav", noise(0.6, seed=i)), f"{i} a") for i in range(8)]
    (tmp_path / "out").mkdir()
    aligner = Whole()
    bring_in(items, tmp_path / "out", Bringing(segments=Halves(), align=aligner, fractions=[0.5, 0.25, 0.25]))
    parts = {name: [u.id for u in manifest.read(tmp_path / "out", name)] for name in manifest.names(tmp_path / "out")}
    assert {n: len(ids) for n, ids in parts.items()}["target.test"] in (3, 4) and sum(map(len, parts.values())) == 15
    homes = {}
    for name, ids in parts.items():
        for i in ids:
            assert homes.setdefault(i.partition("-")[0], name) == name
    assert len(aligner.heard) == 16 and not (tmp_path / "out/wavs/target/2-1.wav").exists()
    assert all(u.phones[-1].end == u.duration for u in manifest.read(tmp_path / "out", "target.train"))


class Cut(Whole):
    """Is killed at its third recording."""

    def times(self, utterance):
        if utterance.id == "3":
            raise KeyboardInterrupt
        return super().times(utterance)


def test_what_is_in_stays_in_when_the_alignment_is_killed(tmp_path, monkeypatch):
    items = [found(written(tmp_path / "in" / f"{i}.wav", noise(0.3, seed=i)), f"Text {'abcdefgh'[i]}.") for i in range(8)]
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        bring_in(items, folder, Bringing(processes=1, align=Cut()))
    monkeypatch.setattr("ttsadapt.data.bringing.engine.bring", lambda *a, **k: pytest.fail("brought in again"))
    bring_in(items, folder, Bringing(processes=1, align=Whole()))
    assert sum(len(manifest.read(folder, name)) for name in manifest.names(folder)) == 8 and not (folder / "journal.jsonl").exists()


@pytest.mark.parametrize("unseen", [False, True])
def test_what_cannot_be_divided_is_told_before_anything_is_read(tmp_path, unseen, monkeypatch):
    items = [found(tmp_path / f"{i}.wav", f"Text {i % 2}.", set="unseen" if unseen and i else "target") for i in range(4)]
    monkeypatch.setattr("ttsadapt.data.bringing.engine.bring", lambda *a, **k: pytest.fail("was brought in"))
    with pytest.raises(DataError, match="is to be unseen but" if unseen else "2 different sentences"):
        bring_in(items, tmp_path, Bringing(processes=1))


def test_a_mistake_that_shows_late_costs_no_work(tmp_path):
    items = [found(written(tmp_path / "in" / f"{i}.wav", noise(0.3, seed=i)), f"Text {'abcdefgh'[i]}.") for i in range(4)]

    class Late(Whole):
        def fit(self, utterances):
            raise ConfigError("its model is not there")

    class Few(Folder):
        def found(self):
            yield from items

    corpus = Few(str(tmp_path / "in"), bring=Bringing(align=Late()))
    with pytest.raises(ConfigError, match="its model"):
        ensure(artifact := PreparedCorpus(corpus, tmp_path / "cache"))
    left = artifact.folder.with_name(f".{artifact.folder.name}.part")
    assert len(list((left / "wavs").rglob("*.wav"))) == 4 and len(Journal(left / "journal.jsonl").read()) == 4


def test_an_id_that_no_file_can_be_called_is_shortened(tmp_path):
    ids = ["a" * 300, "a" * 299 + "b", "\u00e9" * 150, "short"]
    items = [found(written(tmp_path / "in" / f"{i}.wav", noise(0.3, seed=i)), f"Text {'abcd'[i]}.", id=name) for i, name in enumerate(ids)]
    turn = replace(items[1], group="g", utterance=replace(items[1].utterance, context=(items[0].utterance,)))
    items[0] = replace(items[0], group="g")
    (tmp_path / "out").mkdir()
    bring_in([items[0], turn, *items[2:]], tmp_path / "out", Bringing(fractions=[1, 0, 0]))
    known = manifest.read(tmp_path / "out", "target.train")
    assert len({u.id for u in known}) == 4 and all(len(u.id.encode()) <= 180 and u.audio.is_file() for u in known)
    assert [u.context[0].id[:160] for u in known if u.context] == ["a" * 160]


def test_what_is_far_too_long_is_refused_unread(tmp_path, monkeypatch):
    path = written(tmp_path / "long.wav", np.zeros(RATE * 12))
    read = []
    real = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, *a, **k: read.append(1) or real(self, *a, **k))
    for how in (Bringing(longest=10, shortest=0.1), Bringing(longest=1, trim=40)):
        told = bring(found(path), tmp_path / "out.wav", how)
        assert told.kind == "too long" and "long.wav lasts 12.0 s" in told.told and not read
    assert bring(found(path), tmp_path / "out.wav", Bringing(longest=2, trim=40)).kind == "silent" and read
    assert bring(found(path, start=1, end=3), tmp_path / "out.wav", Bringing(longest=3)).kind == "silent"


# -- what is told, what is remembered


def test_the_summary_says_what_is_there(tmp_path):
    items = [
        found(written(tmp_path / "in" / f"{i}.wav", noise(0.3, seed=i)), f"Text {'abcdefgh'[i]}.", speaker=f"s{i % 2}", emotion="happy")
        for i in range(8)
    ]
    items = [replace(one, utterance=replace(one.utterance, label="HAP")) for one in items]
    items.append(found(written(tmp_path / "in" / "again.wav", noise(0.3, seed=0)), "Text a."))
    items.append(found(written(tmp_path / "in" / "third.wav", noise(0.3, seed=0)), "text A"))
    (tmp_path / "in" / "bad.wav").write_bytes(b"bad")

    class Few(Folder):
        def found(self):
            yield from [*items, found(tmp_path / "in" / "bad.wav"), *[Rejected(f"row {i}", "row", f"row {i} is bad") for i in range(5)]]

    prepared = PreparedCorpus(Few(str(tmp_path / "in")), tmp_path / "cache")
    ensure(prepared)
    rejected = [Rejected(f"row {i}", "row", f"row {i} is bad") for i in range(5)]
    lines = "\n".join(told(prepared.card, rejected, prepared.folder))
    assert "target.train" in lines and "emotions: happy 8 (there: HAP), neutral 1" in lines and "eve 0.3 s" in lines
    assert "refused: 5" in lines and "row 2 is bad" in lines and "row 3" not in lines and str(prepared.folder) in lines
    assert "the same samples with other texts, labels or sets, 1 of them (target/0 = target/again): all are kept" in lines
    assert prepared.card["rejected"] == {"row": 5, "unreadable": 1, "duplicate recording": 1}
    assert prepared.card["sets"]["target.train"]["durations"] == [
        0.3,
        0.3,
        0.3,
    ]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"happy": 9, "smug": 3, "Joyful": 4}, "not in the vocabulary of emotions: Joyful 4 (the vocabulary's happy), smug 3: if these"),
        ({"shelby": 107}, "WARNING: no emotion is in the vocabulary, neutral"),
        ({f"{i:03d}": 1 for i in range(107)}, "WARNING: nearly every recording has an emotion of its own (000 1, 001 1"),
    ],
)
def test_words_that_are_no_known_emotion_are_named(said, words):
    (line,) = strange({"target.train": {"emotions": said}})
    assert line.startswith(words) and "data.pattern" in line and "emotion_aliases" in line and line.count(" 1") < 10


def test_what_a_split_lacks_is_named():
    sets = {"target.train": {"emotions": {"happy": 9, "sad": 3}}, "target.test": {"emotions": {"happy": 1}}}
    (line,) = lacking(sets)
    assert line.startswith("target.test has no recording that is sad: ") and not strange(sets)


def test_how_sure_an_alignment_is_is_told(tmp_path):
    items = [found(written(tmp_path / "in" / f"{i}.wav", noise(0.6, seed=i)), f"{'abcd'[i]} a") for i in range(4)]
    (tmp_path / "out").mkdir()
    bring_in([*items, replace(items[0], utterance=replace(items[0].utterance, id="2-1"))], tmp_path / "out", Bringing(align=Whole()))
    card = read_json(tmp_path / "out" / "alignment.json")
    assert card | {"tenth": None} == {"given": 0, "aligned": 4, "left_out": 0, "median": 0.6, "tenth": None, "poor": 0.3}
    assert timed(card | {"left_out": 1, "tenth": 0.2}) == [
        "aligned: 4, 1 left out (below, as alignment); confidence (0 to 1): median 0.60, a tenth of them below 0.20; less than 0.3 is poor"
    ]
    assert timed(card | {"median": 0.2})[0].endswith("less than 0.3 is poor: do the texts say what is said?") and timed(None) == []


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path, monkeypatch):
    from ttsadapt.data import hashes

    old = time.time() - 60
    for name in ("a/x.wav", "a/sub/y.wav"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (old, old))
    read = []
    monkeypatch.setattr(hashes, "content_hash", lambda path: read.append(path.name) or path.read_text())
    kept, first = Hashes(tmp_path / "cache"), Hashes(None).of([tmp_path / "data"])
    read.clear()
    assert kept.of([tmp_path / "data"]) == first and sorted(read) == ["x.wav", "y.wav"]
    assert kept.of([tmp_path / "data"]) == first and len(read) == 2
    (tmp_path / "data").rename(tmp_path / "moved")
    assert kept.of([tmp_path / "moved"]) == first and len(read) == 4
    os.utime(tmp_path / "moved/a/x.wav", (old + 1, old + 1))
    assert kept.of([tmp_path / "moved"]) == first and read[4:] == ["x.wav"]
    (tmp_path / "moved/a/x.wav").rename(tmp_path / "moved/a/z.wav")
    assert kept.of([tmp_path / "moved"]) != first


# -- denoising


def test_denoising_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "ttsadapt\[denoise\]"') as error:
        SpectralGate()
    assert "\n" not in str(error.value)


def test_denoising_takes_noise_away_and_leaves_the_voice(tmp_path):
    pytest.importorskip("noisereduce")
    said = engine().say("This is a long sentence, and it has a pause in it, so that noise is heard.", "en-us").pcm / 32768
    clean = np.concatenate([np.zeros(ESPEAK // 2), said, np.zeros(ESPEAK // 2)])
    noise = 0.3 * said.std() * np.random.default_rng(0).standard_normal(len(clean))
    _, samples = one(tmp_path, clean + noise, ESPEAK, Bringing(sample_rate=ESPEAK, denoise=SpectralGate()))
    assert len(samples) == len(clean) and np.corrcoef(samples, clean)[0, 1] > 0.9
    assert samples[:8000].std() < 0.3 * noise[:8000].std()
