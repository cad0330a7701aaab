"""The same numbers every time, whatever ran before and however many threads there are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(seed: int = 0) -> Iterator[None]:
    """One thread (sums depend on their number) and a seeded CPU generator; both are given back as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
