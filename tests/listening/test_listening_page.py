"""What a page holds: everything a listener needs, and nothing that tells the systems apart."""

import base64
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from simulate import LABELS, RATE, key_of, made, rated_in, short_study
from torchaudio.functional import loudness

from ttsadapt.config import paths
from ttsadapt.config.base import composed
from ttsadapt.config.schema import check
from ttsadapt.config.signatures import signature
from ttsadapt.data.pcm import sixteen_bits
from ttsadapt.errors import ConfigError, UserError
from ttsadapt.listening.anchors import LowPass, ModulatedNoise
from ttsadapt.listening.design import sheets
from ttsadapt.listening.sound import encoded, gain

PAGES = sorted(p.stem for p in (paths.conf() / "page").glob("*.yaml"))
SMALL = ["page.sentences=4"]


@pytest.fixture(scope="module")
def heard(tmp_path_factory) -> Path:
    folder = short_study(tmp_path_factory.mktemp("outputs"), "lora_beats_full")
    for page in PAGES:
        made(page, *SMALL).build(folder)
    return folder


def html(study: Path, page: str) -> str:
    return (study / "listening" / page / f"{page}.html").read_text(encoding="utf-8")


def data(study: Path, page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html(study, page), re.S).group(1))


def test_every_kind_of_test_is_there():
    assert set(PAGES) >= {"mos", "nmos", "smos", "emos", "cmos", "abx", "xab"}


@pytest.mark.parametrize("page", PAGES)
def test_every_argument_is_written_out(page):
    node = composed("study=a", f"page={page}", name="report").page
    assert signature(node._target_).parameters.keys() == {k for k in node if k != "_target_"}
    assert signature(node.task._target_).parameters.keys() == {k for k in node.task if k != "_target_"}
    assert node.name == page


def test_an_unknown_key_is_refused():
    with pytest.raises(ConfigError, match="sentence"):
        check(composed("study=a", "page=mos", "+page.sentence=4", name="report"), "report")


def test_the_folder_that_answers_belong_into_is_there(heard):
    assert all((heard / "listening" / page / "results").is_dir() for page in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_nothing_in_the_source_tells_who_speaks(heard, page):
    """No label, strategy, set, utterance, path, study or answer of a check; and no code can be computed without the salt."""
    content, key = data(heard, page), key_of(heard, page)
    sounds = content.pop("audio")
    source = html(heard, page)
    for sound in sounds.values():
        source = source.replace(sound, "")
    told = json.dumps(content)
    for word in [
        "recordings",
        "resynthesis",
        "adapted",
        "lora",
        "rank",
        "strateg",
        "anchor",
        "accepted",
        "worth",
        "wavs",
        heard.name,
        key.salt,
    ]:
        assert word not in source.lower(), word
    assert not re.search(r"\b(base|full|t\d\d\d|target\d?|check)\b", told.lower())
    assert list(content["trials"]) == sorted(content["trials"]) and list(sounds) == sorted(sounds)
    assert all(sheet == sorted(sheet) for sheet in content["sheets"])
    assert {len(name) for name in [*sounds, *content["trials"]]} == {12}


@pytest.mark.parametrize("page", PAGES)
def test_one_format_one_rate_one_loudness(heard, page):
    content, key = data(heard, page), key_of(heard, page)
    heard_once = {name: base64.b64decode(sound) for name, sound in content["audio"].items()}
    levels, headers = [], set()
    for sound in heard_once.values():
        samples, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
        headers.add((soundfile.info(io.BytesIO(sound)).format, soundfile.info(io.BytesIO(sound)).subtype, rate))
        assert np.abs(samples).max() <= 10 ** (-1 / 20) + 1e-4
        levels.append(float(loudness(torch.from_numpy(np.tile(samples, 2))[None], rate)))
    assert headers == {("FLAC", "PCM_16", RATE)}
    assert np.allclose(levels, key.loudness, atol=0.6) and np.std(levels) < 0.15
    assert len({bytes(s) for s in heard_once.values()}) == len(heard_once)  # X is not bit for bit the A that it is


def test_gain_is_the_one_of_bs1770():
    """EBU Tech 3341: a 997 Hz sine at -20 dBFS in one channel is -23.0 LUFS."""
    time = np.arange(48000 * 2) / 48000
    sine = (10 ** (-20 / 20) * np.sin(2 * np.pi * 997 * time)).astype(np.float32)
    assert 20 * np.log10(gain(sine, 48000, -23.0)) == pytest.approx(0.0, abs=0.1)
    assert 20 * np.log10(gain(sine[: 48000 // 10], 48000, -33.0)) == pytest.approx(-10, abs=0.3)  # shorter than a measuring block


def test_silence_is_not_turned_up():
    assert gain(np.zeros(4000, np.float32), 16000, -23.0) == 1.0
    assert gain(np.full(20, 1e-7, np.float32), 16000, -23.0) == 1.0


class Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.asks: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.asks += [v for k, v in attrs if k in ("src", "href", "action", "srcset") and v != "data:,"]


@pytest.mark.parametrize("page", PAGES)
def test_the_file_stands_alone(heard, page):
    source = html(heard, page)
    assert Parsed(source).asks == [] and "@import" not in source and "connect-src 'none'" in source
    assert html(heard, page).count("<script") == 2


def test_hostile_texts_stay_text(tmp_path):
    folder = short_study(tmp_path)
    for file in folder.glob("*/scores.csv"):
        file.write_text(file.read_text().replace("The harbour", "</script><script>alert(1)</script> The harbour"))
    made("mos", *SMALL).build(folder)
    assert html(folder, "mos").count("<script") == 2
    assert any("</script>" in t["text"] for t in data(folder, "mos")["trials"].values())


def test_the_same_study_gives_the_same_page(heard, monkeypatch):
    """While the key is there; another key is another page."""
    before = html(heard, "mos")
    made("mos", *SMALL).build(heard)
    assert html(heard, "mos") == before
    key = heard / "listening" / "mos" / "key.json"
    kept = key.read_text()
    key.unlink()
    monkeypatch.setattr("secrets.token_hex", lambda n: "a5" * n)
    made("mos", *SMALL).build(heard)
    assert data(heard, "mos")["id"] != json.loads(kept)["page"]
    assert not set(data(heard, "mos")["trials"]) & set(json.loads(kept)["trials"])


@pytest.mark.parametrize(("items", "variants", "n"), [(5, 1, 10), (3, 2, 12), (2, 4, 8)])
def test_latin_squares_are_balanced(items, variants, n):
    plan = sheets(n, items, variants, complete=False, per_listener=None)
    assert len(plan) == items * variants
    assert all(sorted(c.sentence for c in sheet) == list(range(n)) for sheet in plan)  # each listener: each sentence once
    assert set(Counter(plan_cell for sheet in plan for plan_cell in sheet).values()) == {1}  # each sentence: each item and order once
    counts = [Counter(c.item for c in sheet) for sheet in plan]
    assert all(max(c.values()) - min(c.values()) <= (0 if n % items == 0 else 1) for c in counts)


def test_complete_designs_hold_everything_with_orders_in_turn():
    plan = sheets(6, 3, 2, complete=True, per_listener=3)
    assert len(plan) == 4
    assert all(len(sheet) == 9 and len({(c.sentence, c.item) for c in sheet}) == 9 for sheet in plan)
    assert set(Counter(c for sheet in plan for c in sheet).values()) == {1}
    with pytest.raises(UserError, match="per_listener=4"):
        sheets(6, 3, 2, complete=True, per_listener=4)


@pytest.mark.parametrize("complete", [False, True])
def test_a_page_is_balanced_over_its_sheets(heard, complete):
    test = made("mos", "page.sentences=10", f"page.complete={complete}", "page.name=balanced")
    test.build(heard)
    key = key_of(heard, "balanced")
    per_sheet = [Counter(key.trials[c].item for c in sheet if key.trials[c].counts) for sheet in key.sheets]
    assert all(counts == dict.fromkeys(LABELS, 10 if complete else 2) for counts in per_sheet)
    pairs = Counter((key.trials[c].item, key.trials[c].utterance) for sheet in key.sheets for c in sheet if key.trials[c].counts)
    assert len(pairs) == 50 and set(pairs.values()) == {1}
    assert all(sum(key.trials[c].repeats is not None for c in sheet) == 2 for sheet in key.sheets)
    assert all(key.trials[c].repeats in sheet for sheet in key.sheets for c in sheet if key.trials[c].repeats)


@pytest.mark.parametrize("page", PAGES)
def test_checks_have_known_answers_on_sentences_that_are_not_rated(heard, page):
    key = key_of(heard, page)
    checks = [key.trials[c] for c in key.checks()]
    rated = {t.utterance for t in rated_in(key)}
    assert len(checks) == 4 and not {t.utterance for t in checks} & rated
    assert all(set(t.accepted) < set(t.worth) for t in checks)  # some answers fail
    assert len({frozenset(t.accepted) for t in checks}) >= 2  # no answer passes everywhere
    assert not any(set.intersection(*(set(t.accepted) for t in checks)))


def test_values_are_turned_with_the_order(heard):
    """CMOS, XAB and ABX: the value is for the system wherever it stood."""
    for page, first in (("cmos", {"b": "3", "a": "-3"}), ("xab", {"a": "a", "b": "b"})):
        rated = rated_in(key_of(heard, page))
        for trial in rated:
            system = trial.item.split(" against ")[0]
            place = next(name for name, who in trial.systems.items() if who == system and name != "x")
            assert trial.worth[first[place]] == max(trial.worth.values())
        assert {next(n for n, w in t.systems.items() if w == t.item.split(" against ")[0]) for t in rated} == {"a", "b"}
    rated = rated_in(key_of(heard, "abx"))
    assert all(t.worth["a" if t.systems["x"] == t.systems["a"] else "b"] == 1 for t in rated)
    assert len({(t.systems["x"], t.systems["a"]) for t in rated if t.item == "full against base"}) == 4


def test_references_are_other_sentences_of_the_same_voice(heard):
    key = key_of(heard, "smos")
    assert {t.systems["reference"] for t in key.trials.values()} == {"recordings"}
    low = [t for t in key.trials.values() if t.accepted == ["3", "2", "1"]]
    assert low and all(t.systems["sample"] == "anchor" for t in low)


def test_anchors_do_what_they_say():
    rng = np.random.default_rng(0)
    speech = rng.standard_normal(16000).astype(np.float32) * 0.1
    noisy = ModulatedNoise(10.0)(speech, 16000)
    ratio = 10 * np.log10((speech**2).mean() / ((noisy - speech) ** 2).mean())
    assert ratio == pytest.approx(10, abs=0.3) and np.array_equal(noisy, ModulatedNoise(10.0)(speech, 16000))
    spectrum = np.abs(np.fft.rfft(LowPass(3500)(speech, 16000))) ** 2
    assert spectrum[4500:].mean() < 1e-4 * spectrum[:3000].mean()
    assert np.array_equal(LowPass(9000)(speech, 16000), speech)


@pytest.mark.parametrize(
    ("page", "override", "says"),
    [
        ("mos", "page.systems=[base,loro]", "'loro'"),
        ("mos", "page.sets=[ood]", "0 sentences"),
        ("cmos", "page.task.pairs=[[lora,nothing]]", "'nothing'"),
        ("cmos", "page.systems=[recordings,lora]", "give the pairs"),
        ("mos", "page.per_listener=3", "does not divide"),
        ("mos", "page.task.low=3", "page.task.low=3 must be below"),
        ("mos", "page.post='ftp://x'", "https://"),
        ("mos", "page.name=../up", "name of a folder"),
    ],
)
def test_what_cannot_be_is_one_line(heard, page, override, says):
    with pytest.raises(Exception) as error:
        made(page, *SMALL, override, *([] if "name" in override else ["page.name=refused"])).build(heard)
    line = next(str(e) for e in (error.value, error.value.__cause__) if isinstance(e, UserError))
    assert says in line and "\n" not in line


def test_the_only_address_is_the_one_given(heard):
    made("mos", *SMALL, "page.name=posted", "page.post=https://example.org/answers").build(heard)
    source = (heard / "listening" / "posted" / "posted.html").read_text()
    assert "connect-src https://example.org;" in source


@pytest.mark.parametrize("form", ["flac", "opus", "mp3"])
def test_codes_follow_from_what_is_heard_not_from_how_it_is_packed(heard, form, monkeypatch):
    """Ogg numbers its streams at random: bytes differ every time."""
    made("mos", *SMALL, "page.name=again", f"page.form={form}").build(heard)
    key = key_of(heard, "again")
    monkeypatch.setattr("ttsadapt.listening.sound.encoded", lambda samples, rate, form: samples.tobytes()[:8])
    made("mos", *SMALL, "page.name=again", f"page.form={form}").build(heard)
    assert key_of(heard, "again") == key
    made("mos", *SMALL, "page.name=again", f"page.form={form}", "page.loudness=-30").build(heard)
    assert key_of(heard, "again").page != key.page


@pytest.mark.parametrize("form", ["opus", "mp3"])
def test_other_formats_are_smaller_and_sound_alike(heard, form):
    made("mos", *SMALL, f"page.name={form}", f"page.form={form}").build(heard)
    sound = next(iter(data(heard, form)["audio"].values()))
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)), dtype="float32")
    assert rate == key_of(heard, form).rate == RATE
    assert float(loudness(torch.from_numpy(np.tile(samples, 2))[None], rate)) == pytest.approx(key_of(heard, form).loudness, abs=1.5)
    noise = sixteen_bits(np.random.default_rng(0).normal(0, 0.1, RATE * 3).astype(np.float32))
    assert len(encoded(noise, RATE, form)) < 0.5 * len(encoded(noise, RATE, "flac"))
