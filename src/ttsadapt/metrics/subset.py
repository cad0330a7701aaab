"""A stated part of a set, the same one for every system that is compared."""

import random
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def subset(items: Iterable[T], count: int | None) -> list[T]:
    """`count` of the items in their order, drawn once and for all; every item when `count` is None or large enough.

    Drawn rather than evenly spaced: corpora cycle through voices and emotions, and a stride may miss some of them.
    """
    listed = list(items)
    if count is None or count >= len(listed):
        return listed
    return [listed[i] for i in sorted(random.Random(0).sample(range(len(listed)), count))]
