"""A look at the diversity of recordings for people: a table in the terminal, and a picture."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttsadapt.text_table import aligned, lasting

Array = NDArray[np.float64]
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "clips": ("clips", "{:d}".format),
    "hours": ("length", lambda hours: lasting(3600 * hours)),
    "energy_sd": ("energy s.d. dB", "{:.1f}".format),
    "f0_range": ("F0 range st", "{:.1f}".format),
    "f0_sd": ("F0 s.d. st", "{:.1f}".format),
    "dnsmos": ("DNS-MOS", "{:.2f}".format),
    "dnsmos_sd": ("its s.d.", "{:.2f}".format),
    "snr": ("SNR dB", "{:.0f}".format),
    "snr_sd": ("its s.d.", "{:.1f}".format),
    "phones": ("phones", "{:d}".format),
    "diphones": ("diphones", "{:d}".format),
    "inventory_share": ("of source's", "{:.0%}".format),
    "rate": ("syll/s", "{:.1f}".format),
    "rate_sd": ("its s.d.", "{:.2f}".format),
}
"""figure -> heading, how it is written"""
MOST_SPEAKERS = 12


def table(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line a speaker; a figure that is not known is a dash, one that is known of nobody has no column."""
    columns = {key: column for key, column in COLUMNS.items() if any(of[key] is not None for of in figures.values())}
    head = ["speaker", *(title for title, _ in columns.values())]
    rows = ([name, *("-" if of[key] is None else form(of[key]) for key, (_, form) in columns.items())] for name, of in figures.items())
    return aligned([head, *rows])


def picture(heard: Mapping[str, Sequence[tuple[Array, Array]]], figures: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """A row a speaker, last all together where there are several: how often frames have a level, and voiced ones a pitch.

    At most MOST_SPEAKERS of them.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from ttsadapt.reports.plots import SERIES, STYLE, save_png

    *speakers, everyone = heard
    shown = [*speakers[:MOST_SPEAKERS], *([everyone] if len(speakers) > 1 else [])]
    pooled = {name: [np.concatenate(parts) for parts in zip(*heard[name])] for name in shown}
    titles = (("energy_sd", "level, dB of full scale", "s.d. {} dB"), ("f0_sd", "F0, semitones above 27.5 Hz", "s.d. {} semitones"))
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.1 * len(shown) + 0.7), layout="constrained")
        axes = figure.subplots(len(shown), 2, squeeze=False, sharex="col")
        for row, name in zip(axes, shown):
            for k, (axis, (key, label, said)) in enumerate(zip(row, titles)):
                if len(pooled[name][k]):  # a whisper has no pitch
                    axis.hist(pooled[name][k], bins=60, density=True, color=SERIES[k], histtype="stepfilled", alpha=0.8)
                value = figures[name][key]
                axis.set_title(f"{name}: " + said.format("-" if value is None else f"{value:.1f}"))
                axis.set_yticks([])
                axis.grid(axis="y", visible=False)
                if name == shown[-1]:
                    axis.set_xlabel(label)
        save_png(figure, path)
