"""The operations that the benchmark allows are those that a step computes, and no step computes more."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ttsadapt.bench.base import rounds
from ttsadapt.bench.csp import CSPSpeed, Operations

SMALL = {
    "layout": {
        "hidden": 64, "intermediate": 96, "blocks": 4, "heads": 2, "kv_heads": 1, "rows": 141, "targets": 41, "text": (3, 8),
        "speech": (10, 30), "utterances": 6, "tied": False,
    },
    "batch": 3, "highest": 3, "lowest": (0, 2),
}  # fmt: skip


def test_the_limit_by_hand():
    only_linears = Operations(linear=1.0, attention=0.0, head=0.0, blocks=24)
    assert only_linears.allowed([0, 23], False) == pytest.approx(72 / (24 + 24 + 2))
    assert only_linears.allowed([22, 23], False) == pytest.approx(72 / (24 + 2 + 2))
    assert only_linears.allowed([22, 23], True) == pytest.approx(72 / (2 + 2 + 2))
    assert Operations(linear=0.0, attention=1.0, head=0.0, blocks=24).allowed([0, 23], False) == pytest.approx(1.0)
    assert Operations(linear=0.0, attention=0.0, head=1.0, blocks=24).allowed([0, 23], False) == pytest.approx(1.5)


@pytest.mark.parametrize(("lowest", "kept"), [(None, False), (0, False), (2, False), (2, True)])
def test_a_step_multiplies_no_more_than_that(lowest, kept):
    """Products inside attention are not counted here: its kernels compute some of them twice."""
    case = CSPSpeed(**SMALL)
    o = case.operations
    linears = Operations(o.linear, 0.0, o.head, o.blocks)
    allowed = linears.full if lowest is None else linears.partial([lowest, 3], kept)
    name = "full" if lowest is None else next(n for n in case.sides() if n.startswith(f"{lowest}+3 kept" if kept else f"{lowest}+3,"))
    work = case.sides()[name]()
    with FlopCounterMode(display=False) as counter:
        work()
    counted = sum(n for kind, n in counter.get_flop_counts()["Global"].items() if kind in (torch.ops.aten.mm, torch.ops.aten.addmm)) / 2
    assert counted == pytest.approx(allowed, rel=0.01)


def test_all_sides_run_and_go_through_the_same_positions():
    case = CSPSpeed(**SMALL)
    (done,) = rounds(case, 1, told=lambda line: None)
    assert list(done) == list(case.sides()) and len(done) == 4 and len({f.units for f in done.values()}) == 1
    assert {c.side for c in case.comparisons()} == set(done) - {"full"}
