"""The two sides of each timed pair do the same work, but for what is timed."""

import pytest
import torch

from ttsadapt.bench.base import rounds
from ttsadapt.bench.ewc import EWCCase, full, stepping
from ttsadapt.bench.speech import Layout, setting

TINY = Layout(hidden=16, intermediate=24, blocks=1, heads=2, kv_heads=1, rows=80, targets=31, text=(2, 4), speech=(5, 9), utterances=4)
CASE = EWCCase(TINY, batch=2, rank=2)


@pytest.mark.parametrize("how", [CASE.lora, full])
@pytest.mark.parametrize("rank1", [False, True])
def test_a_step_with_ewc_is_the_step_without_and_a_penalty(how, rank1):
    made = [setting(TINY) for _ in range(2)]
    learner, other = made[0].learner(how() | {"ewc": CASE.ewc(rank1=rank1)}), made[1].learner(how())
    batch = made[0].batches(2)[0]
    for one in (learner, other):
        stepping(one)(batch)
    terms, without = learner.terms(batch), other.terms(batch)
    assert terms["ewc"] > 0 and set(terms) - set(without) == {"ewc"}
    torch.testing.assert_close(terms["tokens"], without["tokens"])


def test_sides_that_are_compared_go_through_the_same_tokens():
    (done,) = rounds(CASE, 1, told=lambda line: None)
    assert set(done) == set(CASE.sides())
    assert all(done[c.side].units == done[c.over].units > 0 for c in CASE.comparisons())
