"""Which requests were cut at the longest that a model may say: models tell, whoever speaks them listens."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ttsadapt.backbones.base import Request

_CUT: ContextVar[set[str] | None] = ContextVar("cut", default=None)


@contextmanager
def watched() -> Iterator[set[str]]:
    """Gives the ids of the requests that are cut while the block runs."""
    found: set[str] = set()
    token = _CUT.set(found)
    try:
        yield found
    finally:
        _CUT.reset(token)


def tell(requests: Iterable[Request], said: Iterable[int], most: Iterable[int]) -> None:
    """Of each request, how much was said of the most that could be: one that reaches it did not end by itself."""
    found = _CUT.get()
    if found is not None:
        found |= {request.id for request, length, limit in zip(requests, said, most) if length >= limit}
