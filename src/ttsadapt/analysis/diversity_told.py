"""A look at the diversity of recordings for people: a table in the terminal, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttsadapt.text_table import aligned

Array = NDArray[np.float64]
COLUMNS = {
    "clips": ("clips", "{:d}"),
    "hours": ("hours", "{:.2f}"),
    "energy_sd": ("energy s.d. dB", "{:.1f}"),
    "f0_range": ("F0 range st", "{:.1f}"),
    "f0_sd": ("F0 s.d. st", "{:.1f}"),
    "dnsmos": ("DNS-MOS", "{:.2f}"),
    "dnsmos_sd": ("its s.d.", "{:.2f}"),
    "snr": ("SNR dB", "{:.0f}"),
    "snr_sd": ("its s.d.", "{:.1f}"),
    "phones": ("phones", "{:d}"),
    "diphones": ("diphones", "{:d}"),
    "inventory_share": ("of source's", "{:.0%}"),
    "rate": ("syll/s", "{:.1f}"),
    "rate_sd": ("its s.d.", "{:.2f}"),
}
"""figure -> heading, form"""
MOST_SPEAKERS = 12


def table(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line a speaker; a figure that is not known is a dash."""
    head = ["speaker", *(title for title, _ in COLUMNS.values())]
    return aligned([head, *([name, *(_cell(of[key], form) for key, (_, form) in COLUMNS.items())] for name, of in figures.items())])


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def picture(heard: Mapping[str, Sequence[tuple[Array, Array]]], figures: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """A row a speaker, all together last: how often frames have a level, and voiced ones a pitch. At most MOST_SPEAKERS of them."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from ttsadapt.reports.plots import SERIES, STYLE, save_png

    *speakers, everyone = heard
    shown = [*speakers[:MOST_SPEAKERS], everyone]
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
