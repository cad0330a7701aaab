"""Progress on a terminal and in a log."""

import io
import sys

import pytest
from tqdm import tqdm

from ttsadapt import bars
from ttsadapt.bars import Bar
from ttsadapt.config.app import command
from ttsadapt.errors import UserError


class Terminal(io.StringIO):
    def isatty(self):
        return True


def nested(stream):
    for _ in Bar(range(3), "outer", file=stream, leave=False):
        for _ in Bar(range(3), "inner", file=stream, leave=False):
            pass


def test_a_log_has_lines_of_what_takes_long_and_nothing_of_what_does_not(monkeypatch):
    log = io.StringIO()
    nested(log)
    assert log.getvalue() == ""
    monkeypatch.setattr(bars, "QUIET", 0.0)
    nested(log)
    lines = log.getvalue().splitlines()
    assert lines and all(line.startswith("outer: ") and line.isprintable() for line in lines)
    assert not {"\r", "\x1b"} & set(log.getvalue())


def test_a_note_beside_a_bar_is_a_line(monkeypatch):
    log = io.StringIO()
    for _ in Bar(range(1), "outer", file=log):
        Bar.write("a note", file=log)
    assert log.getvalue() == "a note\n"


def test_on_a_terminal_it_is_drawn():
    screen = Terminal()
    nested(screen)
    assert "\router:   0%" in screen.getvalue() and "\x1b[A" in screen.getvalue()


@pytest.mark.parametrize("kind", [Bar, tqdm])
def test_an_error_begins_on_a_line_of_its_own(kind, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TTSADAPT_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["ttsadapt", "base=null"])

    def job(cfg):
        bar = kind(range(3), "phones")
        for _ in bar:
            raise UserError("no")

    with pytest.raises(SystemExit):
        command("train", job)()
    assert capsys.readouterr().err.split("\n")[-2] == "error: no"
