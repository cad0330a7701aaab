"""`ttsadapt analyze` on the smallest corpus: every group of blocks is judged, and strategies find the analysis done."""

import json

import pytest

from ttsadapt.analyze import job as analyze
from ttsadapt.config.base import composed
from ttsadapt.config.identity import run_folder
from ttsadapt.errors import UserError


@pytest.fixture
def cfg(mini):
    overrides = [o for o in mini.args() if not o.startswith(("base=", "data.source_train="))]
    quick = ("data.source_train=112", "analysis.utterances=112", "analysis.epochs=10", "analysis.seeds=2")
    return composed(*overrides, "base=null", *quick, "study=analysis", name="analyze")


def test_every_group_is_ranked_or_said_to_be_unrankable(cfg, capsys):
    try:
        analyze(cfg)
    except UserError as error:  # weights drawn at random need not know anything
        assert "no label can be read off the decoder blocks" in str(error)
    said, folder = capsys.readouterr().out, run_folder(cfg)
    entries = json.loads((folder / "layers.json").read_text())
    assert [e["group"] for e in entries] == ["encoder", "decoder"]
    assert (folder / "layers.png").read_bytes().startswith(b"\x89PNG")
    for entry in entries:
        assert all(f"{entry['group']}.{name}" in said for name in entry["blocks"])
        assert len(entry["speaker"]) == len(entry["spread"]["speaker"]) == len(entry["blocks"])
        assert entry["settings"]["seeds"] == 2 and entry["stability"]["speaker"]["highest_changes"] in (0, 1)
        assert ("unrankable" in said) >= (not entry["probe"]["used"])
        assert len(entry["chosen"]) == (min(2, len(entry["blocks"])) if entry["probe"]["used"] else 0)
