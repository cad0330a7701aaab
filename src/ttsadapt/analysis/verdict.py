"""Is fine-tuning on these recordings likely to help? A plain sentence or two, with the evidence and how good that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ttsadapt.text_table import lasting

PAPER = "arXiv 2603.10904"
FEWEST = 3.5
"""hours that the speakers of the paper are said to have at least"""


@dataclass(frozen=True)
class Gates:
    """Figures that the verdict turns on; None: not looked at."""

    energy: tuple[float, float] = (13.0, 15.0)
    """dB: below the first unlikely to improve quality, from the second on likely. A note on the paper gives 13 as its figure and 15 as
    the note's own; the paper's definition of energy variability is not known"""
    quality: float | None = None
    """deviation of DNS-MOS: the paper names it and its abstract gives no figure"""
    snr: float | None = 15.0
    """dB: no source but our own choice"""
    hours: float | None = None
    """of a speaker: those of the paper are said to have 3.5 to 18.5"""


OUTCOMES = {
    "yes": "fine-tuning is likely to help",
    "perhaps": "fine-tuning may help",
    "no": "fine-tuning will bring the voice closer but is unlikely to improve quality and may spoil it",
    "unknown": "nothing can be said about fine-tuning",
}


def verdict(name: str, figures: Mapping[str, Any], gates: Gates) -> dict[str, str]:
    """{"likely": a key of OUTCOMES, "said": the sentences} of a speaker's figures."""
    lacking = _lacking(figures, gates)
    if figures["energy_sd"] is None:
        return {"likely": "unknown", "said": f"{name}: {OUTCOMES['unknown']}: there is no speech in the recordings."}
    energy = round(figures["energy_sd"], 1)  # what is said is what is decided on
    found, (low, high) = _kind(energy, gates), gates.energy
    ends = [round(end, 1) for key in ("energy_low", "energy_high") if (end := figures[key]) is not None]
    sure = all(_kind(end, gates) == found for end in ends)
    bounds = {"no": f"below {low:g} dB", "perhaps": f"between {low:g} and {high:g} dB", "yes": f"{high:g} dB or more"}
    likely = "perhaps" if (lacking and found == "yes") or not sure else found
    within = f", 95 % interval {ends[0]:.1f} to {ends[1]:.1f}" if ends else ""
    why = f"its energy varies by {energy:.1f} dB{within} ({bounds[found]}; {_evidence(found, gates)})"
    doubt = "" if sure else " With so few clips it may as well lie on the other side of that: more recordings would tell."
    warned = f" {'Besides,' if found == 'no' else 'But'} {'; '.join(lacking)}." if lacking else ""
    return {"likely": likely, "said": f"{name}: {OUTCOMES[likely]}: {why}.{doubt}{warned} {_amount(figures)}"}


def _kind(energy: float, gates: Gates) -> str:
    return "no" if energy < gates.energy[0] else "perhaps" if energy < gates.energy[1] else "yes"


def _amount(figures: Mapping[str, Any]) -> str:
    """What all of this rests on."""
    quality = f", of DNS-MOS {figures['dnsmos']:.1f} (1 to 5) on average" if figures["dnsmos"] is not None else ""
    there = f"{lasting(3600 * figures['hours'])} of speech in {figures['clips']} recordings{quality}"
    few = f"; the speakers of {PAPER} are said to have 3.5 to 18.5 hours, second-hand" if figures["hours"] < FEWEST else ""
    return f"Looked at: {there}{few}."


def _evidence(found: str, gates: Gates) -> str:
    """How good the thresholds of energy are."""
    low, high = gates.energy
    if gates.energy != Gates().energy:
        return f"the threshold is yours; that energy should vary is in the abstract of {PAPER}"
    second_hand = f"{low:g} dB is a second-hand figure, {PAPER}"
    return second_hand if found == "no" else f"{second_hand}, and {high:g} dB our source's own, not the paper's"


def _lacking(figures: Mapping[str, Any], gates: Gates) -> list[str]:
    """What speaks against it besides energy."""
    quality, snr, hours, said = figures["dnsmos_sd"], figures["snr"], figures["hours"], []
    if gates.quality is not None and quality is not None and round(quality, 2) < gates.quality:
        source = f"the threshold is yours; that quality should vary is in the abstract of {PAPER}"
        said.append(f"DNS-MOS varies by {quality:.2f} only, less than {gates.quality:g} ({source})")
    if gates.snr is not None and snr is not None and round(snr, 1) < gates.snr:
        whose = "our threshold" if gates.snr == Gates().snr else "the threshold is yours"
        source = f"{whose}; that a model clones noise as well is in the abstract of {PAPER}"
        said.append(f"the recordings are noisy, {snr:.1f} dB by WADA-SNR, less than {gates.snr:g} ({source})")
    if gates.hours is not None and round(hours, 2) < gates.hours:
        source = f"the threshold is yours; the speakers of {PAPER} are said to have 3.5 to 18.5, second-hand"
        said.append(f"there are {hours:.2f} hours, less than {gates.hours:g} ({source})")
    return said
