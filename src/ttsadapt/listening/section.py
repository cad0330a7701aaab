"""The study's listening tests as its report shows them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ttsadapt.listening.reading import found_in
from ttsadapt.listening.told import agreement, figure, rows, screening
from ttsadapt.reports.plots import svg
from ttsadapt.reports.systems import Systems


def sections(study_folder: Path, systems: Systems) -> list[Mapping[str, Any]]:
    """What listening_section.html wants, one entry a test with usable answers in its results/."""
    return [
        {
            "name": found["name"],
            "title": f"{found['name'].upper()}: {found['title']}",
            "screening": screening(found),
            "agreement": agreement(found),
            "ratings": found["ratings"],
            "sentences": found["sentences"],
            "automatic": bool(found["automatic"]),
            "exact": bool(found["exact"]),
            "rows": rows(found),
            "correlates": bool(found["correlations"]),
            "plot": Markup(svg(figure(found), f"listening-{found['name']}", "Means with intervals; the figures are in the table above.")),
        }
        for found in found_in(study_folder, systems)
    ]
