"""Phones are numbered by what they last: by phone and emotion, and within a recording by how long it is."""

from pathlib import Path

import pytest
import torch

from ttsadapt.backbones.pacing import Pacing
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import CheckpointError

LASTING = {"a": 0.2, "b": 0.1, "_": 0.3}
TEMPO = {"calm": 1.0, "hurried": 0.5}


def utterance(number: int, symbols: str, emotion: str, aligned: bool = True) -> Utterance:
    ends = torch.tensor([0.0, *(LASTING[s] * TEMPO[emotion] for s in symbols)]).cumsum(0).tolist()
    phones = tuple(Phone(s, a, b) for s, a, b in zip(symbols, ends, ends[1:])) if aligned else ()
    return Utterance(f"u{number}", Path("none.wav"), symbols, "anna", emotion, duration=ends[-1], phones=phones)


@pytest.fixture(scope="module")
def pacing() -> Pacing:
    texts = ["ab_a", "ba", "a_bb", "aab"]
    utterances = [utterance(i, text, emotion) for i, (text, emotion) in enumerate((t, e) for t in texts for e in TEMPO)]
    made = Pacing()
    made.fit(utterances, {u.id: tuple(u.text) for u in utterances})
    return made


def test_durations_are_told_apart_by_phone_and_emotion(pacing):
    ratio = pacing.tempo["calm"] / pacing.tempo["hurried"]
    assert ratio == pytest.approx(2.0, rel=1e-3)
    assert pacing.starts("ab_", "calm").tolist() == pytest.approx([0.0, 0.2, 0.3, 0.6], rel=1e-3)
    assert pacing.starts("ab_", "hurried").tolist() == pytest.approx([0.0, 0.1, 0.15, 0.3], rel=1e-3)


def test_steps_are_counted_at_a_rate_and_after_a_recording(pacing):
    assert pacing.steps("ab_", "calm", 50.0).tolist() == [0, 10, 15, 30]
    after = pacing.steps("ab", "calm", 50.0, before="ba", taken=60)  # the recording is twice as slow as usual, and more
    assert after.tolist() == [0, 20, 60, 70, 75]
    assert pacing.steps("", None, 50.0, before="ba", taken=60).tolist() == [0, 20, 60]
    assert pacing.steps("", None, 50.0).tolist() == [0]


def test_what_is_not_known_is_as_usual(pacing):
    unknown = pacing.starts(["x", None], "sleepy")
    assert unknown.tolist() == pytest.approx([0.0, pacing.usual, 2 * pacing.usual])


def test_without_alignments_phones_last_equally_long():
    made = Pacing()
    made.fit([utterance(0, "ab_a", "calm", aligned=False)], {"u0": tuple("ab_a")})
    assert made.starts("ab_a", "calm").diff().tolist() == pytest.approx([0.2] * 4)


def test_it_comes_back_from_its_state(pacing):
    other = Pacing()
    other.restore(pacing.state())
    assert torch.equal(other.steps("ab_a", "hurried", 25.0), pacing.steps("ab_a", "hurried", 25.0))
    with pytest.raises(CheckpointError, match="paced_positions=false"):
        other.restore({})
