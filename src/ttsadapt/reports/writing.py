"""From a study's folder to its report."""

from pathlib import Path

from ttsadapt.files import write_text
from ttsadapt.listening.section import sections
from ttsadapt.reports import plots, tables
from ttsadapt.reports.clips import listening
from ttsadapt.reports.compare import change_table, preservation_table
from ttsadapt.reports.page import render
from ttsadapt.reports.provenance import facts
from ttsadapt.reports.sequences import sequences, to_markdown
from ttsadapt.reports.study import read_study
from ttsadapt.reports.systems import Systems


def write_report(study_folder: Path) -> Path:
    """See `ttsadapt.reports.build`."""
    systems = Systems(read_study(study_folder))
    changes, preservation = change_table(systems), preservation_table(systems)
    heard, stages = listening(systems), sequences(systems)
    figures = plots.draw(systems, changes)
    write_text(study_folder / "table.csv", tables.to_csv(systems))
    write_text(study_folder / "table.tex", tables.to_latex(systems))
    write_text(study_folder / "report.md", tables.to_markdown(systems, preservation, facts(systems.study)) + to_markdown(stages))
    pictures = figures | ({"mel_pairs": plots.mel_pairs(heard)} if heard else {})
    for name, figure in pictures.items():
        plots.save_png(figure, study_folder / "plots" / f"{name}.png")
    page = study_folder / "report.html"
    write_text(page, render(systems, changes, preservation, heard, figures, stages, sections(study_folder, systems)))
    return page
