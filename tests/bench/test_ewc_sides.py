"""The two sides of each timed pair do the same work, but for what is timed."""

import pytest
import torch

from ttsadapt.bench import ewc

TINY = ewc.Sizes(
    blocks=1, width=16, hidden=24, heads=2, text_rows=20, speech_rows=30, text=(2, 4), speech=(5, 9), batch=2, batches=2, rank=2
)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("rank1", [False, True])
def test_a_step_with_ewc_is_the_step_without_and_a_penalty(full, rank1):
    plain, held = ewc.training_step(TINY, full=full), ewc.training_step(TINY, penalty=True, rank1=rank1, full=full)
    assert plain() == held() > 0
    learner, other = (ewc._learner(TINY, penalty, rank1, full) for penalty in (True, False))
    batch = ewc.batches(TINY)[0]
    for one in (learner, other):
        step = ewc._stepping(one)
        step(batch)
    terms, without = learner.terms(batch), other.terms(batch)
    assert terms["ewc"] > 0 and set(terms) - set(without) == {"ewc"}
    torch.testing.assert_close(terms["tokens"], without["tokens"])


def test_the_passes_go_through_the_same_tokens():
    assert (
        ewc.fisher_pass(TINY)() == ewc.full_pass(TINY)() == ewc.full_pass(TINY, optimise=False)() == sum(map(ewc.count, ewc.batches(TINY)))
    )
