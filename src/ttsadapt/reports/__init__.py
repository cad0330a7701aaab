"""Tables, plots and the page of a study; reads the files that runs leave behind, never a model."""

from pathlib import Path


def build(study_folder: Path) -> Path:
    """Writes report.html, report.md, table.csv, table.tex and plots/*.png into the study; returns the page's path.

    Raises UserError, naming the studies present, when there is no such study or none of its runs has finished.
    """
    from ttsadapt.reports.writing import write_report  # matplotlib: only when something is drawn

    return write_report(study_folder)


def console_table(study_folder: Path) -> str:
    """The study's main table for a terminal, at most 120 columns wide, with the reading of the result below. Raises as `build`."""
    from ttsadapt.reports.study import read_study
    from ttsadapt.reports.systems import Systems
    from ttsadapt.reports.tables import to_console

    return to_console(Systems(read_study(study_folder)))
