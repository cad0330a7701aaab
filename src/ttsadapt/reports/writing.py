"""From a study's folder to its report."""

from collections.abc import Sequence
from pathlib import Path

from ttsadapt.files import write_text
from ttsadapt.listening.section import sections
from ttsadapt.reports import decoding, divergence, diversity, plots, tables
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
    figures, data = plots.draw(systems, changes), diversity.diversity(systems)
    if (scatter := diversity.drawn(data)) is not None:
        figures["diversity"] = scatter
    found = divergence.courses(systems)
    if (courses := divergence.draw(found)) is not None:
        figures["divergence"] = courses
    sweeps = decoding.of_study(systems)
    write_text(study_folder / "table.csv", tables.to_csv(systems))
    write_text(study_folder / "table.tex", tables.to_latex(systems))
    text = tables.to_markdown(systems, preservation, facts(systems.study)) + to_markdown(stages) + diversity.to_markdown(data)
    said = _listed("Loss against quality", divergence.words(found)) + decoding.to_markdown(sweeps)
    write_text(study_folder / "report.md", text + said)
    pictures = figures | ({"mel_pairs": plots.mel_pairs(heard)} if heard else {})
    for name, figure in pictures.items():
        plots.save_png(figure, study_folder / "plots" / f"{name}.png")
    page = study_folder / "report.html"
    told, asked = divergence.words(found), sections(study_folder)
    write_text(page, render(systems, changes, preservation, heard, figures, stages, data, told, sweeps, asked))
    return page


def _listed(title: str, sentences: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *(f"- {tables.markdown(s)}" for s in sentences), ""]) if sentences else ""
