"""What is quoted for the shell reaches the config as it was typed."""

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ttsadapt.config.app import command
from ttsadapt.config.base import composed
from ttsadapt.config.plain import plain

TEXTS = {
    "synthesize": ["text=Müller schläft.", "text=今日は", "text=What's up (now)?", "text=It was you, all along.", "text=2024", "text=x = y",

                   "text=[laughs] Hello!", "text='Tis the season", 'text=She said "no" and left\\', "out=/home/Müller/a (1).wav",
                   "speaker=11"],
    "evaluate": ["text=Yes, it is.", "wavs=/home/Müller/said"],
    "train": ["data.path=/home/Müller/my recordings", "data.pattern=(?P<emotion>[^_]+)_", r"data.pattern=[^_]+_(?P<emotion>[^_]+)_\d{3}"],
}  # fmt: skip

AS_THEY_ARE = ["seed=1", "optimizer.lr=1e-4", "strategy=[lora,kd]", "strategy=[lora", "only.speaker={a: 1", "only.speaker=[a,0011]",
               "lora", "--cfg", "-m",                "study=a,b", "study='a, b'", "study=null", "study=${seed}",
               "train_on=target", "~strategy.lora", "seed=0,1", "data/bring=as_is"]  # fmt: skip


@pytest.mark.parametrize(("name", "argument"), [(name, argument) for name, given in TEXTS.items() for argument in given])
def test_a_text_is_taken_as_it_stands(name, argument):
    key, _, text = argument.partition("=")
    (again,) = plain([argument], name)
    read = OverridesParser.create().parse_override(again)
    assert read.key_or_group == key and str(read.value()) == text and isinstance(read.value(), str)
    assert plain([again], name) == [again]


def test_what_hydra_reads_as_it_was_meant_is_left_alone():
    assert [plain([argument], "train") for argument in AS_THEY_ARE] == [[argument] for argument in AS_THEY_ARE]
    swept = ["-m", "study=a, b", "data.path=ä,ö"]
    assert plain(swept, "train") == swept


def test_the_command_gets_it(monkeypatch, capsys, tmp_path):
    seen = []
    given = ["run=a", "text=Wo ist er (heute)?", f"out={tmp_path}/Müller, 1.wav", f"paths.outputs={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["ttsadapt", *given])
    command("synthesize", lambda cfg: seen.append((cfg.text, cfg.out)))()
    assert seen == [("Wo ist er (heute)?", f"{tmp_path}/Müller, 1.wav")]


def test_the_example_of_a_pattern_works_in_a_shell():
    """As it stands in the comment of folder.yaml, between its quotes."""
    from ttsadapt.config import paths

    (line,) = (line for line in (paths.conf() / "data" / "folder.yaml").read_text().splitlines() if line.startswith("pattern:"))
    (typed,) = plain([line.split("'")[1]], "train")
    cfg = composed("data=folder", "data.path=x", typed)
    assert OmegaConf.select(cfg, "data.pattern") == "(?P<speaker>[^_]+)_(?P<emotion>[^_]+)"
