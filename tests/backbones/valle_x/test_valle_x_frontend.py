"""Features, references, what a batch shows, and what is refused."""

import copy
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from backbones.valle_x.fakes import SIZES, Codec, plain_frontend
from ttsadapt.backbones.valle_x_frontend import VALLEXFrontend
from ttsadapt.backbones.valle_x_prompts import Excerpt, Given, Prefix
from ttsadapt.errors import CheckpointError, ConfigError, DataError, TooLong
from ttsadapt.text.vallex import CorpusText


@pytest.fixture(scope="module")
def continuing(utterances):
    frontend = plain_frontend(SIZES["levels"], SIZES["codewords"], continuation=True, references=2)
    frontend.fit(utterances)
    frontend.enroll(utterances)
    return frontend


def test_a_request_goes_on_from_its_own_voice_and_emotion(continuing, utterances):
    for utterance in utterances:
        reference = continuing.request(utterance).reference
        same = [u for u in utterances if (u.speaker, u.emotion) == (utterance.speaker, utterance.emotion)]
        assert reference.phones in [tuple(p.symbol for p in u.phones) for u in same]
    longest = max(utterances[:4:2], key=lambda u: u.duration)  # anna's, nearest to 3 s
    assert continuing.request(utterances[0]).reference.phones == tuple(p.symbol for p in longest.phones)


def test_an_unheard_emotion_falls_back_on_the_neutral_voice(continuing, utterances):
    plain = continuing.request(utterances[1]).reference
    assert continuing.request(replace(utterances[1], emotion="bored")).reference is plain
    only = copy.deepcopy(continuing)
    only.enroll([replace(utterances[4], speaker="cleo")])
    assert only.request(replace(utterances[0], speaker="cleo")).reference.phones == tuple(p.symbol for p in utterances[4].phones)


def test_enrolled_voices_join_and_known_ones_stay(continuing, utterances):
    own = copy.deepcopy(continuing)
    before = [own.request(u).reference for u in utterances]
    own.enroll([replace(u, speaker=f"new {u.speaker}") for u in utterances] + [replace(u, id=f"again {u.id}") for u in utterances])
    assert [own.request(u).reference for u in utterances] == before
    assert own.voices[: len(continuing.voices)] == continuing.voices and len(own.voices) == 2 * len(continuing.voices)
    shuffled = copy.deepcopy(continuing)
    shuffled.enroll(list(reversed([replace(u, speaker=f"new {u.speaker}") for u in utterances])))
    assert shuffled.voices == own.voices and shuffled._owners == own._owners


def test_training_goes_on_from_another_recording_of_the_voice(continuing, utterances):
    item = continuing(utterances[2])
    heard = set()
    for seed in range(8):
        torch.manual_seed(seed)
        batch = continuing.collate([item])
        prompt = int(batch["prompt"])
        reference = batch["codes"][0, :prompt]
        assert not torch.equal(reference, item["codes"])
        assert torch.equal(batch["codes"][0, prompt:], item["codes"])
        assert torch.equal(batch["phones"][0, -len(item["phones"]) :], item["phones"])
        assert int(batch["known"].sum()) == prompt and int(batch["wanted"].sum()) == len(item["codes"])
        heard.add(prompt)
    assert heard == {len(continuing(utterances[0])["codes"])}  # anna has two neutral recordings, one of them is itself
    single = replace(utterances[3], speaker="dora")
    alone = copy.deepcopy(continuing)
    alone.enroll([single])
    assert int(alone.collate([alone(single)])["prompt"]) == 0


def test_paced_positions_put_frames_beside_their_phones(utterances):
    paced = plain_frontend(SIZES["levels"], SIZES["codewords"], continuation=True, references=2, paced_positions=True)
    paced.fit(utterances)
    paced.enroll(utterances)
    torch.manual_seed(0)
    batch = paced.collate([paced(utterances[0])])
    heard, own = int(batch["prompt"]), len(utterances[0].phones)
    positions = batch["positions"][0]
    starts = paced.pacing.starts([p.symbol for p in utterances[0].phones], utterances[0].emotion)[:-1] * paced.frame_rate
    assert torch.equal(positions[-own:], (heard + starts).round().long())
    assert positions[0] == 0 and heard // 2 < positions[:-own].max() < heard  # what the reference says fills its frames
    request = paced.request(utterances[0])
    prompt = paced.prompt(request)
    assert torch.equal(prompt.positions[-own:], (len(request.reference.codes) + starts).round().long())
    restored = plain_frontend(SIZES["levels"], SIZES["codewords"], continuation=True, references=2, paced_positions=True)
    restored.restore(paced.state())
    assert torch.equal(restored.prompt(restored.request(utterances[0])).positions, prompt.positions)


def test_draws_are_the_global_generator_s(continuing, utterances):
    items = [continuing(u) for u in utterances]
    batches = []
    for seed in (1, 1, 2, 3, 4, 5, 6):
        torch.manual_seed(seed)
        batches.append(continuing.collate(items))
    same = [all(torch.equal(torch.as_tensor(a[n]), torch.as_tensor(b[n])) for n in a) for a, b in pairwise(batches)]
    assert same[0] and not all(same[1:])
    torch.manual_seed(0)
    stages = [continuing.collate(items[:1])["stage"] for _ in range(90)]
    assert set(stages) == set(range(1, SIZES["levels"]))
    early = copy.copy(continuing)
    early.early = 3.0
    often = [early.collate(items[:1])["stage"] for _ in range(90)]
    assert set(often) == set(stages) and often.count(1) > 1.5 * stages.count(1)


def codes_of(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    frames = torch.tensor(lengths)
    codes = torch.arange(int(frames.max()) * 3).view(1, -1, 3).repeat(len(lengths), 1, 1)
    return codes, frames


def test_prefix_is_the_beginning_of_the_utterance():
    codes, frames = codes_of(40, 24)
    drawn = set()
    for seed in range(60):
        torch.manual_seed(seed)
        shown = Prefix()(codes, frames, torch.zeros(2, dtype=torch.long), 75.0)
        length = int(shown.known[0].sum())
        drawn.add(length)
        assert torch.equal(shown.known.sum(1), torch.tensor([length] * 2)) and shown.known[:, :length].all()
        assert torch.equal(shown.wanted.sum(1), frames - length)
        assert shown.scale == pytest.approx(64 / (64 - 2 * length))
    assert drawn == set(range(6, 12))  # a quarter to less than a half of the shortest
    capped = Prefix(seconds=0.04)(codes, frames, frames, 75.0)
    assert int(capped.known[0].sum()) == 3
    assert Prefix(share=0.0)(codes, frames, frames, 75.0).known is None


def test_excerpt_stands_before_the_utterance_and_is_not_predicted():
    codes, frames = codes_of(40, 24)
    torch.manual_seed(0)
    shown = Excerpt()(codes, frames, frames, 75.0)
    assert shown.codes.shape[1] == 46 and torch.equal(shown.codes[:, 6:], codes)
    for i, n in enumerate(frames.tolist()):
        start = int(shown.codes[i, 0, 0]) // 3
        assert torch.equal(shown.codes[i, :6], codes[i, start : start + 6])
        expected = torch.ones(n, dtype=torch.bool)
        expected[start : start + 6] = False
        assert torch.equal(shown.wanted[i, 6 : 6 + n], expected) and not shown.wanted[i, :6].any() and not shown.wanted[i, 6 + n :].any()
    assert shown.scale == pytest.approx(64 / 52)


def test_given_shows_the_reference():
    codes, frames = codes_of(10, 6)
    shown = Given()(codes, frames, torch.tensor([4, 0]), 75.0)
    assert shown.known.sum(1).tolist() == [4, 0] and shown.wanted.sum(1).tolist() == [6, 6] and shown.scale == 1
    for wrong in (Prefix, Excerpt):
        with pytest.raises(ConfigError, match="prompting"):
            wrong(share=-0.1)


def test_frontend_survives_pickle_and_file(continuing, utterances, tmp_path):
    torch.save(continuing.state(), tmp_path / "frontend.pt")
    restored = plain_frontend(SIZES["levels"], SIZES["codewords"], continuation=True, references=2)
    restored.restore(torch.load(tmp_path / "frontend.pt", weights_only=True))
    for other in (restored, pickle.loads(pickle.dumps(continuing))):
        item, own = other(utterances[2]), continuing(utterances[2])
        assert item.keys() == own.keys() and all(torch.equal(item[n], own[n]) for n in own)
        assert other.prompt(other.request(utterances[3])).codes.equal(continuing.prompt(continuing.request(utterances[3])).codes)
        assert other.pace == continuing.pace
    with pytest.raises(CheckpointError, match="is not VALL-E X's"):
        restored.restore({"voices": []})


def test_bounds_of_what_is_said(continuing, utterances):
    prompt = continuing.prompt(continuing.request(utterances[2]))
    low, high = (bound * len(utterances[2].phones) for bound in continuing.pace)
    assert prompt.least <= low and high <= prompt.most <= 1.5 * high + 1
    authors = copy.copy(continuing)
    authors.frames_per_phone = 16.0
    prompt = authors.prompt(authors.request(utterances[2]))
    assert (prompt.least, prompt.most) == (1, 16 * len(prompt.phones))


@pytest.mark.parametrize(
    ("error", "words", "act"),
    [
        (DataError, "voice of 'cleo'", lambda f, u: f(replace(u, speaker="cleo"))),
        (DataError, "no phones", lambda f, u: f(replace(u, phones=(u.phones[0],)))),
        (DataError, "no recording", lambda f, u: f(replace(u, audio=Path("missing.wav")))),
        (DataError, "no symbols yet", lambda f, u: VALLEXFrontend(Codec(), CorpusText())(u)),
        (DataError, "split the text", lambda f, u: f.prompt(replace(f.request(u), phones=("a",) * 700))),
        (DataError, "split the text", lambda f, u: f.prompt(replace(f.request(u), phones=("a",) * 500))),
    ],
)
def test_refusals_are_one_line(continuing, utterances, error, words, act):
    frontend = copy.copy(continuing)
    frontend.max_frames = 1000
    with pytest.raises(error) as caught:
        act(frontend, utterances[0])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_recording_too_short_is_no_reference(utterances):
    frontend = plain_frontend(continuation=True)
    frontend.fit(utterances)
    frontend.enroll([replace(utterances[0], duration=0.1)])
    with pytest.raises(DataError, match=r"no recording of 0\.2 s or more"):
        frontend.request(utterances[0])


def test_too_long_is_left_out_not_cut(continuing, utterances):
    short = copy.copy(continuing)
    longest = max(len(r.codes) for rs in continuing.references for r in rs)
    short.max_frames = len(continuing(utterances[0])["codes"]) + longest
    assert short(utterances[0])["codes"].equal(continuing(utterances[0])["codes"])
    with pytest.raises(TooLong, match="max_frames"):
        short(utterances[2])
    short.max_frames, short.max_phones = 1000, 4
    with pytest.raises(TooLong, match="max_phones"):
        short(utterances[0])
