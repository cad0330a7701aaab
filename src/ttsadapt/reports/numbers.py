"""Means with 95 % intervals, and how they are written."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ttsadapt.metrics.intervals import interval as estimated


class Estimate(NamedTuple):
    """A mean over utterances with its 95 % interval; `low` and `high` are NaN when no interval is known."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2

    @property
    def sign(self) -> int:
        """1 or -1 when the interval lies wholly above or below 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    @classmethod
    def read(cls, entry: Any) -> "Estimate | None":
        """From a `{mean, low, high, n}` of summary.json; None when it holds no number."""
        if not isinstance(entry, Mapping) or not _is_number(entry.get("mean")):
            return None
        low, high = (entry[k] if _is_number(entry.get(k)) else math.nan for k in ("low", "high"))
        return cls(float(entry["mean"]), float(low), float(high), int(entry.get("n") or 0))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def interval(
    values: Mapping[str, float],
    weights: Mapping[str, float] | None = None,
    groups: Mapping[str, str] | None = None,
    share: bool = False,
) -> Estimate | None:
    """Weighted mean over utterances with its 95 % interval as `metrics.intervals` makes it; None without a value.

    All arguments are by utterance. `groups` (texts) are drawn as wholes; from a single group there is no interval. For what no
    run states of itself: seeds averaged, one run against another.
    """
    weight, group = [(weights or {}).get(k, 1.0) for k in values], [(groups or {}).get(k) or k for k in values]
    found = estimated(list(values.values()), weights=weight, groups=group, share=share)
    return Estimate(*found) if found.n else None


def paired(
    after: Mapping[str, float],
    before: Mapping[str, float],
    weights: Mapping[str, float] | None = None,
    groups: Mapping[str, str] | None = None,
) -> Estimate | None:
    """Mean of after - before over the utterances that both hold, with its interval."""
    return interval({k: after[k] - before[k] for k in after if k in before}, weights, groups)


def decimals(estimates: Iterable[Estimate | None]) -> int:
    """Decimals that show two digits of the typical interval's half width: no more, or the table feigns precision."""
    known = [e for e in estimates if e is not None]
    widths = [e.half for e in known if e.half > 0] or [abs(e.mean) / 10 for e in known if e.mean]
    if not widths:
        return 2
    return int(min(3, max(0, 1 - math.floor(math.log10(float(np.median(widths)))))))


def fixed(value: float, digits: int, signed: bool = False) -> str:
    """`value` with a real minus sign and no negative zero."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def bounds(estimate: Estimate, digits: int, signed: bool = False) -> str:
    if math.isnan(estimate.low):
        return ""
    return f"[{fixed(estimate.low, digits, signed)}, {fixed(estimate.high, digits, signed)}]"


def count(value: float | None) -> str:
    """1234567 -> "1.23 M"."""
    if value is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}\u00a0{letter}"
    return f"{value:.0f}"


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def percent(share: float | None) -> str:
    if share is None:
        return "–"
    return f"{100 * share:.3g}\u00a0%"
