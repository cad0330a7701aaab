"""Is fine-tuning on these recordings likely to help? A plain sentence or two, with the evidence and how good that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAPER = "arXiv 2603.10904"


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
    energy, (low, high) = figures["energy_sd"], gates.energy
    if energy is None:
        return {"likely": "unknown", "said": f"{name}: {OUTCOMES['unknown']}: there is no speech in the recordings."}
    likely = "no" if energy < low else "perhaps" if energy < high else "yes"
    bounds = {"no": f"below {low:g} dB", "perhaps": f"between {low:g} and {high:g} dB", "yes": f"{high:g} dB or more"}
    lacking = _lacking(figures, gates)
    if lacking and likely == "yes":
        likely, said = "perhaps", f"its energy varies by {energy:.1f} dB ({bounds['yes']}"
    else:
        said = f"its energy varies by {energy:.1f} dB ({bounds[likely]}"
    evidence = f"{said}; a second-hand figure, {PAPER})"
    warned = f" But {'; '.join(lacking)}." if lacking else ""
    return {"likely": likely, "said": f"{name}: {OUTCOMES[likely]}: {evidence}.{warned}"}


def _lacking(figures: Mapping[str, Any], gates: Gates) -> list[str]:
    """What speaks against it besides energy."""
    quality, snr, hours, said = figures["dnsmos_sd"], figures["snr"], figures["hours"], []
    if gates.quality is not None and quality is not None and quality < gates.quality:
        source = f"the threshold is yours; that quality should vary is in the abstract of {PAPER}"
        said.append(f"DNS-MOS varies by {quality:.2f} only, less than {gates.quality:g} ({source})")
    if gates.snr is not None and snr is not None and snr < gates.snr:
        source = f"our threshold; that a model clones noise as well is in the abstract of {PAPER}"
        said.append(f"the recordings are noisy, {snr:.0f} dB by WADA-SNR, less than {gates.snr:g} ({source})")
    if gates.hours is not None and hours < gates.hours:
        source = "that paper's speakers are said to have 3.5 to 18.5, second-hand"
        said.append(f"there are {hours:.2f} hours, less than {gates.hours:g} ({source})")
    return said
