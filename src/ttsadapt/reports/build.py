"""From a study's folder to its report."""

from pathlib import Path

from ttsadapt.files import write_text
from ttsadapt.reports import plots, tables
from ttsadapt.reports.clips import listening
from ttsadapt.reports.compare import change_table, preservation_table
from ttsadapt.reports.page import render
from ttsadapt.reports.provenance import facts
from ttsadapt.reports.study import read_study
from ttsadapt.reports.systems import Systems


def build(study_folder: Path) -> Path:
    """Writes report.html, report.md, table.csv, table.tex and plots/*.png into the study; returns the page's path.

    Raises UserError, naming the studies present, when there is no such study or none of its runs has finished.
    """
    systems = Systems(read_study(study_folder))
    changes, preservation = change_table(systems), preservation_table(systems)
    heard = listening(systems)
    figures = plots.draw(systems, changes)
    write_text(study_folder / "table.csv", tables.to_csv(systems))
    write_text(study_folder / "table.tex", tables.to_latex(systems))
    write_text(study_folder / "report.md", tables.to_markdown(systems, preservation, facts(systems.study)))
    pictures = figures | ({"mel_pairs": plots.mel_pairs(heard)} if heard else {})
    for name, figure in pictures.items():
        plots.save_png(figure, study_folder / "plots" / f"{name}.png")
    page = study_folder / "report.html"
    write_text(page, render(systems, changes, preservation, heard, figures))
    return page


def console_table(study_folder: Path) -> str:
    """The study's main table for a terminal, at most 120 columns wide, with the reading of the result below."""
    return tables.to_console(Systems(read_study(study_folder)))
