import itertools

import pytest
import torch

from ttsadapt.backbones.base import SOURCE, TARGET
from ttsadapt.data.sampling import SMALLEST_STEP, StepSampler, bucketed
from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Mix


class Lengths:
    """What the sampler reads of a feature set."""

    def __init__(self, n, origin, prefix):
        g = torch.Generator().manual_seed(origin)
        self.ids = [f"{prefix}{i}" for i in range(n)]
        frames = torch.randint(60, 200, (n,), generator=g).tolist()
        self.lengths = {i: {"frames": f, "phones": f // 6} for i, f in zip(self.ids, frames)}
        self.origin = origin

    def __len__(self):
        return len(self.ids)

    @property
    def frames(self):
        return {i: self.lengths[i]["frames"] for i in self.ids}

    def usable(self, utterance):
        return True


def make(**kw):
    target = Lengths(100, TARGET, "t")
    return StepSampler(target, frames=1500, seed=3, **kw)


def rehearsed(**kw):
    source = Lengths(300, SOURCE, "s")
    return make(source=source, mix=Mix(0.25, source.ids), **kw)


def test_an_epoch_visits_nearly_all_once_in_steps_of_similar_length():
    sampler = make()
    steps = list(sampler)
    assert len(steps) == len(sampler)
    drawn = [i for step in steps for _, i in step.rows]
    assert len(set(drawn)) == len(drawn) >= 100 - SMALLEST_STEP
    assert all(step.totals["frames"][TARGET] <= 1500 + 3 * 200 for step in steps)
    spread = [max(f) / min(f) for f in ([sampler.target.lengths[i]["frames"] for _, i in s.rows] for s in steps)]
    assert sorted(spread)[len(spread) // 2] < 2


def test_epochs_differ_and_runs_do_not():
    sampler = make()
    first, second = list(sampler), list(sampler)
    assert first != second
    again = make()
    assert list(again) == first and list(again) == second


@pytest.mark.parametrize("done", [0, 1, 7, 15, 22])
def test_resume_goes_on_exactly(done):
    straight = rehearsed()
    everything = [*straight, *straight, *straight]
    killed = rehearsed()
    for _ in itertools.islice(itertools.chain(killed, killed, killed), done):
        pass
    resumed = rehearsed()
    resumed.load_state_dict(dict(killed.state_dict()))
    rest = list(resumed)
    while done + len(rest) < len(everything):
        rest += list(resumed)
    assert rest == everything[done:]


def test_the_rehearsed_share_of_frames_is_exact():
    sampler = rehearsed()
    steps = list(itertools.islice(itertools.chain.from_iterable(iter(lambda: sampler, None)), 120))
    for start in (0, 30, 70):
        window = steps[start : start + 50]
        target, source = (sum(s.totals["frames"][o] for s in window) for o in (TARGET, SOURCE))
        assert abs(source / (source + target) - 0.25) < 0.01


AWKWARD = {
    "two lengths": ([30] * 100 + [900] * 40, [25] * 150 + [800] * 30),
    "all of one": ([77] * 90, [611] * 20),
    "three utterances": ([50, 60, 70, 800, 900, 20], [10, 900, 700]),
    "long ones": (list(range(40, 240)), list(range(300, 890, 5))),
}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("lengths", AWKWARD.values(), ids=AWKWARD)
def test_the_share_is_exact_in_any_fifty_steps_whatever_the_lengths(lengths, share):
    """Within 1 % as long as no source utterance is longer than half a step's target frames / (1 - share)^2."""
    target, source = (Lengths(len(frames), origin, str(origin)) for origin, frames in zip((TARGET, SOURCE), lengths))
    for features, frames in zip((target, source), lengths):
        features.lengths = {i: {"frames": f} for i, f in zip(features.ids, frames)}
    sampler = StepSampler(target, frames=1800, seed=3, source=source, mix=Mix(share, source.ids))
    steps = list(itertools.islice(itertools.chain.from_iterable(iter(lambda: sampler, None)), 250))
    frames = torch.tensor([step.totals["frames"] for step in steps])
    assert max(lengths[1]) < 0.5 * frames[:, TARGET].float().mean() / (1 - share) ** 2
    windows = frames.unfold(0, 50, 1).sum(-1).double()  # (starts, origins)
    shares = windows[:, SOURCE] / windows.sum(1)
    assert len(shares) == 201 and (shares - share).abs().max() < 0.01
    drawn = [i for step in steps for origin, i in step.rows if origin == SOURCE]
    counts = [drawn.count(i) for i in source.ids]
    assert max(counts) - min(counts) <= 1, "all of the buffer before any comes again"


def test_ranks_and_accumulation_split_the_same_steps():
    whole = list(rehearsed())
    parts = [list(rehearsed(rank=r, ranks=2, accumulate=2)) for r in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 2 * len(whole)
    for k, step in enumerate(whole):
        pieces = [p for part in parts for p in part[2 * k : 2 * k + 2]]
        assert sorted(row for p in pieces for row in p.rows) == sorted(step.rows)
        assert all(p.rows and p.totals == step.totals and p.share == 0.25 for p in pieces)


def test_too_many_parts_are_refused():
    with pytest.raises(ConfigError, match=r"trainer\.devices"):
        make(ranks=4, accumulate=2)


def lengths_of(frames):
    made = Lengths(0, TARGET, "t")
    made.ids = [f"t{i}" for i in range(len(frames))]
    made.lengths = {i: {"frames": int(f)} for i, f in zip(made.ids, frames)}
    return made


SPREADS = {
    "even": lambda g: torch.randint(80, 401, (1200,), generator=g),
    "heavy-tailed": lambda g: torch.exp(5 + 0.8 * torch.randn(1200, generator=g)).clamp(20, 3000).int(),
    "bell": lambda g: (250 + 60 * torch.randn(1200, generator=g)).clamp(60, 600).int(),
}


@pytest.mark.parametrize("spread", SPREADS)
def test_padding_is_at_most_five_hundredths(spread):
    target = lengths_of(SPREADS[spread](torch.Generator().manual_seed(0)).tolist())
    sampler = StepSampler(target, 4000, seed=0)
    first, second = ([[target.lengths[i]["frames"] for _, i in step.rows] for step in sampler] for _ in range(2))
    for steps in (first, second):
        assert sum(map(len, steps)) == 1200, "every utterance once"
        padded = [max(frames) * len(frames) for frames in steps]
        assert 1 - sum(map(sum, steps)) / sum(padded) <= 0.05
        assert all(p <= 4000 or len(frames) == SMALLEST_STEP for p, frames in zip(padded, steps))
        assert min(map(len, steps)) >= SMALLEST_STEP
    assert first[:5] != sorted(first[:5], key=sum), "steps come in random order"


def test_an_utterance_meets_others_in_another_pass():
    target = lengths_of(SPREADS["even"](torch.Generator().manual_seed(0)).tolist())
    sampler = StepSampler(target, 4000, seed=0)
    one, other = ({i: {j for _, j in step.rows} for step in sampler for _, i in step.rows} for _ in range(2))
    stayed = [len(one[i] & other[i]) / len(one[i]) for i in one if i in other]
    assert sum(stayed) / len(stayed) < 0.5


def test_a_set_smaller_than_a_step_is_gone_through_again_and_again():
    parts = [list(StepSampler(lengths_of([100, 90, 80]), 10, seed=0, rank=r, ranks=2, accumulate=2)) for r in (0, 1)]
    rows = [d.rows for part in parts for d in part]
    assert [len(part) for part in parts] == [2, 2] and all(rows)
    assert {i for row in rows for _, i in row} == {"t0", "t1", "t2"}


@pytest.mark.parametrize("count", range(1, 40))
def test_groups_of_like_length_hold_every_utterance_once(count):
    draw = torch.Generator().manual_seed(count)
    frames = torch.randint(20, 200, (count,), generator=draw).tolist()
    groups = bucketed(frames, 500, 4, draw)
    assert sorted(i for group in groups for i in group) == list(range(count))
    assert all(len(group) >= min(4, count) for group in groups)
