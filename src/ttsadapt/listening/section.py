"""The study's listening tests as its report shows them: as they were last read, so that both say the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ttsadapt.files import read_json
from ttsadapt.listening.told import Outcome, agreement, figure, notes, rows, screening
from ttsadapt.reports.plots import svg


def sections(study_folder: Path) -> list[Mapping[str, Any]]:
    """What listening_section.html wants, one entry a test that has been read (its listening.json) or has answers in its results/."""
    entries: list[Mapping[str, Any]] = []
    for folder in sorted(p for p in (study_folder / "listening").glob("*/") if p.is_dir()):
        found = read_json(folder / "listening.json") if (folder / "listening.json").is_file() else None
        read = found["files"] if found else []
        waiting = [p.name for p in (folder / "results").glob("*.json") if p.name not in read]
        if found or waiting:
            entries.append(
                {"name": folder.name, "waiting": _waiting(waiting, folder), "read": _read(found, folder.name) if found else None}
            )
    return entries


def _waiting(files: Sequence[str], folder: Path) -> str:
    """How answers are read, where some are not; else nothing."""
    many = f"{len(files)} files of answers are" if len(files) > 1 else "1 file of answers is"
    how = f"the command that built the page, with results={folder / 'results'} added, reads them"
    return f"{many} not in these figures: {how}." if files else ""


def _read(found: Outcome, name: str) -> dict[str, Any]:
    return {
        "title": found["title"],
        "screening": screening(found),
        "agreement": agreement(found),
        "ratings": found["ratings"],
        "sentences": found["sentences"],
        "automatic": bool(found["automatic"]),
        "notes": notes(found),
        "rows": rows(found),
        "correlates": bool(found["correlations"]),
        "plot": Markup(svg(figure(found), f"listening-{name}", "Means with intervals; the figures are in the table above.")),
    }
