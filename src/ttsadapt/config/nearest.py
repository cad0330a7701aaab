"""The name that was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The closest of `names`; for dotted keys, one with the same last part counts as close."""
    known = sorted(names)
    if close := get_close_matches(name, known, n=1, cutoff=0.6):
        return close[0]
    leaf = name.rpartition(".")[2]
    return next((k for k in known if k.rpartition(".")[2] == leaf), None)


def hint(name: str, names: Iterable[str], show: int = 12) -> str:
    """` (did you mean 'x'?)`, or the names there are when none is close."""
    known = sorted(names)
    if (close := nearest(name, known)) is not None:
        return f": did you mean {close!r}?"
    more = " ..." if len(known) > show else ""
    return f": there are {', '.join(known[:show])}{more}" if known else ": it takes none"
