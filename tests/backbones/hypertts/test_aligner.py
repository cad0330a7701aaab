"""Alignment against slow, obvious versions of the same thing."""

import itertools

import pytest
import torch
from scipy.stats import betabinom

from ttsadapt.backbones.aligner import Aligner, Schedule, beta_binomial, forward_sum, monotonic_path

PHONES, FRAMES = [3, 5, 1], [7, 5, 4]


def masks():
    phones, frames = torch.tensor(PHONES), torch.tensor(FRAMES)
    return torch.arange(5) < phones[:, None], torch.arange(7) < frames[:, None]


def paths(phones: int, frames: int):
    """Every way to walk from the first to the last phone by steps of none or one."""
    for steps in itertools.combinations(range(1, frames), phones - 1):
        yield [sum(t >= s for s in steps) for t in range(frames)]


def test_the_best_path_is_found():
    torch.manual_seed(0)
    scores = torch.randn(3, 7, 5)
    phone_mask, frame_mask = masks()
    owner, durations = monotonic_path(scores.masked_fill(~phone_mask[:, None], -1e4), phone_mask.sum(1), frame_mask)
    for b, (p, t) in enumerate(zip(PHONES, FRAMES)):
        best = max(paths(p, t), key=lambda path, b=b: sum(float(scores[b, i, k]) for i, k in enumerate(path)))
        assert owner[b, :t].tolist() == best
        assert durations[b].tolist() == [best.count(k) for k in range(5)]


def test_the_forward_sum_is_over_every_path():
    """With a blank, phones may also be skipped over in time, never in order: enumerate CTC's own rule."""
    torch.manual_seed(1)
    scores = torch.randn(1, 4, 2)
    table = torch.cat([torch.full((1, 4, 1), -1.0), scores], 2).log_softmax(-1)[0]
    total = [
        sum(float(table[t, s]) for t, s in enumerate(seq))
        for seq in itertools.product(range(3), repeat=4)
        if [k for k, _ in itertools.groupby(seq) if k] == [1, 2]
    ]
    assert forward_sum(scores, [2], [4]).item() == pytest.approx(-torch.tensor(total).logsumexp(0).item() / 2, abs=1e-5)


def test_the_forward_sum_takes_no_notice_of_padding():
    torch.manual_seed(2)
    scores = torch.randn(3, 7, 5, requires_grad=True)
    phone_mask, _ = masks()
    together = forward_sum(scores.masked_fill(~phone_mask[:, None], -1e4), PHONES, FRAMES)
    together.sum().backward()
    for b, (p, t) in enumerate(zip(PHONES, FRAMES)):
        alone = forward_sum(scores[b : b + 1, :t, :p].detach(), [p], [t])
        torch.testing.assert_close(together[b : b + 1].detach(), alone)
        assert not scores.grad[b, t:].any() and not scores.grad[b, :, p:].any()
    assert scores.grad.isfinite().all()


def test_prior_is_the_beta_binomial():
    prior = beta_binomial(torch.tensor(PHONES), torch.tensor(FRAMES), 7, 5)
    for b, (p, t) in enumerate(zip(PHONES, FRAMES)):
        for frame in range(t):
            expected = betabinom(p, frame + 1, t - frame).pmf(range(p))
            torch.testing.assert_close(prior[b, frame, :p].double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-4)


def test_distances_are_the_authors():
    """|q - k|^2 summed over channels, as equation 2 of Badlani et al. has it, though no tensor of that size is made."""
    torch.manual_seed(3)
    aligner = Aligner(6, 4, temperature=0.3)
    phones, mel, voice = torch.randn(1, 5, 6), torch.randn(1, 7, 4), torch.randn(1, 6)
    got = aligner(phones, mel, voice, torch.ones(1, 5, dtype=torch.bool), torch.ones(1, 7, dtype=torch.bool))
    keys, queries = (phones + aligner.key_voice(voice)).mT, (mel + aligner.query_voice(voice)).mT
    for i, layer in enumerate(aligner.key):
        keys = layer(keys.relu() if i else keys)
    for i, layer in enumerate(aligner.query):
        queries = layer(queries.relu() if i else queries)
    distance = (queries[:, :, :, None] - keys[:, :, None]).square().sum(1)
    prior = (beta_binomial(torch.tensor([5]), torch.tensor([7]), 7, 5) + 1e-8).log()
    torch.testing.assert_close(got.log_scores, (-0.3 * distance).log_softmax(-1) + prior, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got.soft().sum(-1), torch.ones(1, 7))


def test_a_signal_is_aligned():
    """Rows of sounds of unknown length: after some steps the borders are known far better than by cutting evenly."""
    torch.manual_seed(4)
    sounds, truth = torch.randn(8, 4), torch.randint(3, 8, (64, 8))
    ids = torch.stack([torch.randperm(8) for _ in truth])
    frames = truth.sum(1)
    mel = torch.nn.utils.rnn.pad_sequence([sounds[i].repeat_interleave(n, 0) for i, n in zip(ids, truth)], batch_first=True)
    embedding, aligner = torch.nn.Embedding(8, 32), Aligner(32, 4, channels=16, temperature=0.02)
    masks = torch.ones(64, 8, dtype=torch.bool), torch.arange(mel.shape[1]) < frames[:, None]
    optimizer = torch.optim.Adam([*embedding.parameters(), *aligner.parameters()], lr=1e-2)
    for step in range(80):
        found = aligner(embedding(ids), mel, torch.zeros(64, 32), *masks)
        loss = found.forward_sum([8] * 64, frames.tolist()).mean()
        loss = loss + (step > 40) * found.binarization()[masks[1]].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    borders, evenly = truth.cumsum(1), torch.arange(1, 9) * frames[:, None] / 8
    error, guess = ((x - borders)[:, :-1].abs().float().mean() for x in (found.durations.cumsum(1), evenly))
    assert torch.equal(found.durations.sum(1), frames) and error < 0.5 * guess, (error, guess)


def test_stages_follow_the_passes_and_come_back_from_disk():
    schedule = Schedule(hard_from=2, binarize_from=3, binarize_over=2, variances_from=4)
    seen = []
    for _ in range(6):
        seen.append((schedule.hard, schedule.binarization, schedule.variances))
        schedule.advance()
    assert seen == [(False, 0, 0), (False, 0, 0), (True, 0, 0), (True, 0, 0), (True, 0.5, 1), (True, 1, 1)]
    other = Schedule(hard_from=2, binarize_from=3, binarize_over=2, variances_from=4)
    other.load_state_dict(schedule.state_dict())
    assert other.done == 6 and other.binarization == 1
