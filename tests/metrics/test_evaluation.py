import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile
import torch
from sounds import said, voice
from torchmetrics import MetricCollection

from ttsadapt import evaluation
from ttsadapt.errors import DataError
from ttsadapt.evaluation import References, score_set, summarise
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.intervals import interval, paired_interval
from ttsadapt.metrics.mcd import MelCepstralDistortion
from ttsadapt.metrics.rate import DurationError
from ttsadapt.metrics.rows import COLUMNS, read_scores, write_scores
from ttsadapt.metrics.signal import RATE
from ttsadapt.metrics.subset import subset


class Peak(UtteranceMetric):
    name: ClassVar[str] = "peak"
    unit: ClassVar[str] = "%"
    better: ClassVar[str] = "higher"
    model = "max"
    version = "1"

    def score(self, audio, rate, utterance):
        return 100 * float(audio.abs().max()) if audio.any() else float("nan")

    def weight(self, utterance):
        return float(len(utterance.text))


class Loudness(Peak):
    name: ClassVar[str] = "loudness"

    def score(self, audio, rate, utterance):
        return float(audio.square().mean())


def row(name, utterance, value, metric="per", better="lower", weight=1.0, text=None, seed=""):
    about = {"unit": "%", "model": "m", "version": "1", "speaker": "s", "emotion": "e", "text": text or utterance}
    about |= {"seed": seed, "share": "", "why": "" if math.isfinite(value) else "nothing is said"}
    return {"set": name, "utterance": utterance, "metric": metric, "value": value, "better": better, "weight": weight} | about


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [interval(rng.normal(3, 2, 30), draws=400, seed=i) for i in range(200)]
    inside = np.mean([i.low <= 3 <= i.high for i in found])
    assert 0.88 <= inside <= 0.99
    width = np.mean([i.high - i.low for i in found])
    assert width == pytest.approx(2 * 1.96 * 2 / math.sqrt(30), rel=0.1)


def test_weights_make_a_micro_average():
    found = interval([0.0, 50.0, 10.0], weights=[1, 1, 8])
    assert found.mean == pytest.approx(13.0) and found.n == 3
    assert found.low < 13 < found.high


def test_groups_are_drawn_as_wholes():
    rng = np.random.default_rng(0)
    per_text = rng.normal(0, 1, 10)
    values, texts = np.repeat(per_text, 20), [str(i) for i in np.repeat(np.arange(10), 20)]
    alone, together = interval(values), interval(values, groups=texts)
    assert alone.mean == pytest.approx(together.mean) and together.n == 200
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_nan_is_left_out_and_counted_out():
    found = interval([1.0, math.nan, 3.0])
    assert found.mean == 2 and found.n == 2
    assert interval([math.nan]).n == 0 and math.isnan(interval([]).mean)
    assert math.isnan(interval([5.0]).low)


def test_a_share_of_all_is_not_certain():
    found = interval([100.0] * 20, share=True)
    assert interval([0.0] * 20) == (0.0, 0.0, 0.0, 20), "a distortion of 0 everywhere is no share"
    assert found.mean == 100 and found.low == pytest.approx(83.9, abs=0.1) and found.high == 100


def test_same_seed_same_interval():
    values = np.random.default_rng(2).exponential(size=25)
    assert interval(values) == interval(values)
    assert interval(values, seed=1) != interval(values)


def test_pairing_removes_what_utterances_share():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 40)
    change = paired_interval(hard + 1 + rng.normal(0, 0.1, 40), hard)
    assert 0.9 < change.low < change.mean < change.high < 1.1


@pytest.mark.parametrize(("better", "sign"), [("lower", 1), ("higher", -1)])
def test_signs_of_gain_and_forgetting(better, sign):
    """The tuned values are 10 below the base's on the target and 5 above it on the source."""
    rows = [row("target", str(i), 20.0 + i, better=better) for i in range(5)]
    rows += [row("base/target", str(i), 30.0 + i, better=better) for i in range(5)]
    rows += [row("source", str(i), 9.0 + i, better=better) for i in range(5)]
    rows += [row("base/source", str(i), 4.0 + i, better=better) for i in range(5)]
    found = summarise(rows)
    assert found["gain"]["per"]["mean"] == pytest.approx(sign * 10)
    assert found["forgetting"]["per"]["mean"] == pytest.approx(sign * 5)
    assert found["gain"]["per"]["low"] == pytest.approx(sign * 10) and found["gain"]["per"]["n"] == 5
    assert found["sets"]["base/target"]["per"]["mean"] == 32
    assert set(found["sets"]["target"]["per"]) == {"mean", "low", "high", "n", "unit", "better", "model", "version"}


def test_near_reference_counts_the_distance_to_the_recording():
    rows = [row("target", str(i), 4.0 + i, better="near reference") for i in range(4)]
    rows += [row("base/target", str(i), 9.0 + i, better="near reference") for i in range(4)]
    rows += [row("recordings/target", str(i), 5.0 + i, better="near reference") for i in range(4)]
    assert summarise(rows)["gain"]["per"]["mean"] == pytest.approx(3.0)


def test_several_seeds_are_as_far_from_the_recording_as_each_of_them():
    """The mean of 4 and 6 lies on a recording of 5; neither of them does."""
    rows = [row("recordings/target", str(i), 5.0, better="near reference") for i in range(3)]
    rows += [row("base/target", str(i), 6.5, better="near reference", seed="0") for i in range(3)]
    rows += [row("target", str(i), 4.0, better="near reference", seed="0") for i in range(3)]
    rows += [row("target", f"{i}--s1", 6.0, better="near reference", seed="1") for i in range(3)]
    assert summarise(rows)["gain"]["per"]["mean"] == pytest.approx(0.5)


def test_pairs_with_a_nan_are_left_out_and_unknown_is_null():
    rows = [row("target", "a", math.nan), row("target", "b", 1.0), row("base/target", "a", 5.0), row("base/target", "b", 4.0)]
    found = summarise(rows)
    assert found["gain"]["per"] == {"mean": 3.0, "low": None, "high": None, "n": 1}
    assert found["sets"]["target"]["per"]["n"] == 1
    assert summarise([row("target", "a", math.nan)])["sets"]["target"]["per"]["mean"] is None


def test_scores_survive_the_file(tmp_path):
    rows = [row("target", "a,b", 1 / 3, weight=7.0, text='he said "no",\nand left'), row("target", "c", math.nan)]
    write_scores(tmp_path / "scores.csv", rows)
    back = read_scores(tmp_path / "scores.csv")
    assert back[0] == rows[0] and math.isnan(back[1]["value"])


def test_foreign_table_is_one_line(tmp_path):
    (tmp_path / "scores.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"scores\.csv is no table of scores"):
        read_scores(tmp_path / "scores.csv")
    with pytest.raises(DataError, match="ttsadapt evaluate"):
        read_scores(tmp_path / "none.csv")


def test_two_halves_synced_equal_the_whole():
    """What DDP does: the other ranks' states are gathered and reduced by torchmetrics."""
    clips = [torch.full((100,), 0.1 * (i + 1)) for i in range(5)] + [torch.zeros(100)]
    texts = [said_text("x" * (i + 1)) for i in range(6)]
    whole, left, right = Peak(), Peak(), Peak()
    for i, (clip, text) in enumerate(zip(clips, texts)):
        for metric in (whole, left if i % 2 else right):
            metric.update(clip, RATE, text)
    expected = whole.compute()
    assert not torch.isclose(right.compute(), expected)
    states = {n: [torch.cat(getattr(left, n)), torch.cat(getattr(right, n))] for n in ("values", "weights")}
    gathered = iter([states["values"], states["weights"]])
    left.dist_sync_fn, left.distributed_available_fn = lambda *_, **__: next(gathered), lambda: True
    assert torch.isclose(left.compute(), expected)
    merged = Peak()
    merged.values, merged.weights = [states["values"][0]], [states["weights"][0]]
    merged.merge_state(right)
    assert torch.isclose(merged.compute(), expected)


def said_text(text):
    from ttsadapt.data.utterance import Utterance

    return Utterance(id=text, audio=Path(text), text=text, speaker="one")


def test_a_collection_keeps_equal_states_apart():
    collection = MetricCollection({"peak": Peak(), "loudness": Loudness()}, compute_groups=False)
    for level in (0.1, 0.3):
        collection.update(torch.full((100,), level), RATE, said_text("x"))
    found = collection.compute()
    assert found["peak"] == pytest.approx(20) and found["loudness"] == pytest.approx(0.05)


def spoken_set(tmp_path, levels):
    utterances = [said(tmp_path / "rec", f"u{i}", voice(110.0)) for i in range(len(levels))]
    audio = {u.id: said(tmp_path / "syn", u.id, level * voice(110.0)).audio for u, level in zip(utterances, levels)}
    return utterances, audio


def test_score_set_gives_every_column(tmp_path):
    utterances, audio = spoken_set(tmp_path, [1.0, 0.5, 0.0])
    rows = score_set({"peak": Peak(), "rate": DurationError()}, "target", audio, utterances, tmp_path, tmp_path / "cache")
    assert len(rows) == 6 and all(set(r) == set(COLUMNS) for r in rows)
    peaks = [r["value"] for r in rows if r["metric"] == "peak"]
    assert peaks[0] == pytest.approx(20, abs=0.1) and peaks[1] == pytest.approx(10, abs=0.1)
    assert math.isnan(peaks[2])  # a silent clip is the model's failure, not the user's
    assert {r["unit"] for r in rows} == {"%"} and rows[0]["weight"] == 2.0


def test_a_limit_is_the_same_part_for_every_system(tmp_path):
    utterances, audio = spoken_set(tmp_path, [1.0] * 6)
    few = Peak()
    few.limit = 2
    picked = [
        {
            r["utterance"]
            for r in score_set({"few": few, "all": Peak()}, name, audio, utterances, tmp_path, tmp_path)
            if r["metric"] == "few"
        }
        for name in ("target", "base/target")
    ]
    assert picked[0] == picked[1] and len(picked[0]) == 2
    assert picked[0] == {u.id for u in subset(utterances, 2)}


def test_subset_does_not_follow_a_cycle():
    assert {i % 2 for i in subset(range(100), 50)} == {0, 1}
    assert subset(range(3), None) == subset(range(3), 5) == [0, 1, 2]


def test_missing_and_broken_clips_are_one_line(tmp_path):
    utterances, audio = spoken_set(tmp_path, [1.0, 1.0])
    with pytest.raises(DataError, match="no clip of 'u1'"):
        score_set({"peak": Peak()}, "target", {"u0": audio["u0"]}, utterances, tmp_path, tmp_path)
    audio["u1"].write_bytes(b"not a wav")
    with pytest.raises(DataError, match="cannot read"):
        score_set({"peak": Peak()}, "target", audio, utterances, tmp_path, tmp_path)
    soundfile.write(audio["u1"], np.array([0.1, np.nan], np.float32), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match="not finite"):
        score_set({"peak": Peak()}, "target", audio, utterances, tmp_path, tmp_path)


def test_references_are_scored_once(tmp_path):
    utterances, _ = spoken_set(tmp_path, [1.0, 1.0])
    calls = []

    def half(audio):
        calls.append(len(audio))
        return audio / 2

    def references(key="half"):
        metrics = {"peak": Peak(), "mcd": MelCepstralDistortion()}
        return References({"target": utterances}, metrics, tmp_path, tmp_path / "cache", half, RATE, key)

    from ttsadapt.artifacts import ensure

    ensure(references())
    ensure(references())
    assert len(calls) == 2
    found = summarise(references().rows())["sets"]
    assert set(found) == {"recordings/target", "resynthesis/target"}
    assert found["recordings/target"]["mcd"]["mean"] == pytest.approx(0, abs=1e-6)
    assert found["resynthesis/target"]["peak"]["mean"] == pytest.approx(found["recordings/target"]["peak"]["mean"] / 2, rel=0.01)
    assert all(p.is_file() for p in references().wavs("target").values())
    assert references("other codec").folder != references().folder


def test_seeds_are_averaged_before_texts_are_drawn():
    rows = [row("target", f"u{i}{suffix}", 10.0 * i + add, text=f"t{i}", seed=seed)
            for i in range(6) for suffix, add, seed in (("", 1.0, "3"), ("--s4", 3.0, "4"))]  # fmt: skip
    rows += [row("base/target", f"u{i}{suffix}", 10.0 * i + 5, text=f"t{i}", seed=seed) for i in range(6) for suffix, seed in (("", "3"),)]
    found = summarise(rows)
    one = found["sets"]["target"]["per"]
    alone = summarise([row("target", f"u{i}", 10.0 * i + 2) for i in range(6)])["sets"]["target"]["per"]
    assert {k: one[k] for k in ("mean", "low", "high", "n")} == {k: alone[k] for k in ("mean", "low", "high", "n")}
    assert one["seeds"] == 2 and one["seed_deviation"] == pytest.approx(math.sqrt(2))
    assert found["gain"]["per"]["mean"] == pytest.approx(3.0) and found["gain"]["per"]["n"] == 6


def test_a_seed_without_a_value_leaves_the_others():
    rows = [row("target", "u", math.nan, seed="0"), row("target", "u--s1", 4.0, seed="1"), row("target", "v", 2.0, seed="0")]
    found = summarise(rows)["sets"]["target"]["per"]
    assert found["mean"] == pytest.approx(3.0) and "unknown" not in found


def test_why_there_is_no_value_is_said(tmp_path):
    utterances, audio = spoken_set(tmp_path, [1.0, 0.0])
    rows = score_set({"rate": DurationError()}, "target", audio, utterances, tmp_path, tmp_path)
    assert [r["why"] for r in rows] == ["", "nothing is said"]
    sets = summarise(rows)["sets"]
    assert sets["target"]["rate"]["unknown"] == {"nothing is said": 1}
    assert "n = 1; 1 left out: nothing is said" in evaluation.listed(sets)[0]


def test_nothing_is_said_of_recordings_against_themselves(tmp_path):
    """What compares with the recordings can only be 0 for them; other figures of theirs are the ceiling."""
    sets = summarise([row(f"{kind}target", u, v) for kind, v in (("", 3.0), ("recordings/", 0.0)) for u in "uv"])["sets"]
    both = evaluation.listed(sets)
    assert len(both) == 2 and evaluation.listed(sets, ["per"]) == [line for line in both if "recordings/" not in line]
    summary = {"name": "lora", "study": "s", "sets": sets, "compares": ["per"]}
    assert "recordings/target" not in evaluation.told(summary, tmp_path) and "recordings/target" in evaluation.told(
        summary | {"compares": []}, tmp_path
    )


def test_threads_change_no_digit(tmp_path):
    utterances, audio = spoken_set(tmp_path, [1.0, 0.5])
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(score_set({"mcd": MelCepstralDistortion()}, "target", audio, utterances, tmp_path, tmp_path / str(threads)))
    torch.set_num_threads(1)
    assert found[0] == found[1]
