import os
import re
import resource
import subprocess
import sys

import pytest

from ttsadapt import cli
from ttsadapt.config import paths
from ttsadapt.config.app import command
from ttsadapt.errors import UserError

HEAVY = ("torch", "lightning", "peft", "transformers", "lhotse", "numpy", "matplotlib", "speechbrain", "torchaudio")


def run(*arguments, **environment):
    """A command in a process of its own, and the CPU seconds it took: a loaded machine makes those longer, but not by much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"} | environment
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture
def crowding():
    """How much longer this machine takes at the moment than an idle one (0.15 CPU seconds for Hydra's import)."""
    return max(1.0, run("-c", "import hydra, hydra._internal.hydra")[1] / 0.15)


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("TTSADAPT_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def ask(monkeypatch, capsys, *arguments, name="train", job=lambda cfg: None):
    """Run a command in this process; its exit code and what it printed to stderr."""
    monkeypatch.setattr(sys, "argv", ["ttsadapt", *arguments])
    code = 0
    try:
        command(name, job)()
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


def test_help_is_quick_and_lists_the_commands(crowding):
    done, seconds = run("-m", "ttsadapt", "--help")
    assert done.returncode == 0 and done.stdout == cli.usage() + "\n"
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)
    assert seconds <= 0.5 * crowding


def test_no_arguments_give_the_help_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ttsadapt"])
    cli.main()
    assert capsys.readouterr().out == cli.usage() + "\n"


def test_unknown_command():
    done, _ = run("-m", "ttsadapt", "trian")
    assert done.returncode == 2
    assert done.stderr == "error: there is no command 'trian': did you mean 'train'? (ttsadapt --help)\n"


@pytest.mark.parametrize("start", [("-m", "ttsadapt", "train"), ("-m", "ttsadapt.train")])
def test_a_misspelt_override_is_quick(start, crowding, outputs):
    done, seconds = run(*start, "optimzer.lr=1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: optimzer.lr: there is no key optimzer: did you mean 'optimizer.lr'?\n"
    assert seconds <= 1.0 * crowding
    assert not outputs.exists()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_composing_imports_nothing_heavy(name):
    done, _ = run("-X", "importtime", "-m", "ttsadapt", name, "--cfg", "job")
    assert done.returncode == 0, done.stderr[-500:]
    assert "paths:\n" in done.stdout
    assert re.findall(r"\| +ttsadapt\.config\.app$", done.stderr, re.M)
    assert not re.findall(rf"\| +({'|'.join(HEAVY)})$", done.stderr, re.M)


def test_checking_imports_nothing_heavy():
    code = f"""
import sys
from ttsadapt.config.base import composed
from ttsadapt.config.identity import run_id
from ttsadapt.config.schema import check
cfg = composed("strategy=[lora,csp,ewc,kd,rehearsal]")
check(cfg), run_id(cfg)
print([name for name in {HEAVY} if name in sys.modules])
"""
    assert run("-c", code)[0].stdout == "[]\n"


MISTAKES = {
    "strategy=[lroa]": "strategy=lroa: there is no such option: did you mean 'lora'?",
    "backbone=fastspech2_tiny": "backbone=fastspech2_tiny: there is no such option: did you mean 'fastspeech2_tiny'?",
    "experiments=quikstart/compare": "experiments=quikstart/compare: there is no such option: did you mean 'quickstart/compare'?",
    "strategy.lora.rnk=4": "there is no key strategy.lora.rnk: did you mean 'strategy.lora.rank'?",
    "lr=1": "there is no key lr: did you mean 'optimizer.lr'?",
    "backbon=x": "there is no key backbon: did you mean 'backbone'?",
    "strategy.lora.rank=high": "strategy.lora.rank='high' does not fit: int is wanted",
    "train_on=targt": "train_on='targt' does not fit: target or source is wanted",
    "base=quickstart/bse": "base=quickstart/bse: there is no such option: did you mean 'quickstart/base'?",
    "+optimizer.weight_decy=1": "optimizer.weight_decy is not a key of AdamW: did you mean 'weight_decay'?",
    "strategy=[lora": "cannot read 'strategy=[lora'",
    "strategy=lora,kd": "strategy=lora,kd has commas: write 'strategy=[lora,kd]' for a list",
    "lora": "cannot read 'lora': no = in it",
    "trainer.max_steps=???": "trainer.max_steps has no value: add trainer.max_steps=...",
    "data.path=x": "there is no key data.path: the chosen data (Embedded) has no path: choose one that has it, data=cremad, emodb, ",
    "backbone.path=x": "there is no key backbone.path: the chosen backbone (FastSpeech2) has no path: choose one",
    "data.bring.trim=3": "data.bring.trim: there is no key data.bring: the chosen data (Embedded) has no bring: choose one",
    "strategy.ewc.strength=2": "strategy.ewc.strength: there is no key strategy.ewc: add ewc to strategy=[lora]",
    "prefix.half=true": "there is no key prefix.half: no prefix is chosen: choose one that has it, prefix=auto, disk, memory",
    "trainer.devces=2": "there is no key trainer.devces: did you mean 'trainer.devices'?",
    "only.speaker=0011": "only.speaker='0011' does not fit: list[str] or null is wanted: write only.speaker=[0011]",
    "--hlep": "there is no option --hlep: did you mean '--help'?",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, monkeypatch, capsys, outputs):
    code, said = ask(monkeypatch, capsys, mistake)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith(f"error: {MISTAKES[mistake]}")
    assert not outputs.exists()


@pytest.mark.parametrize("mistake", ["strategy=[lroa]", "optimzer.lr=1", "strategy.lora.rank=high"])
def test_mistakes_in_a_sweep_stop_it_before_it_starts(mistake, monkeypatch, capsys):
    started = []
    code, said = ask(monkeypatch, capsys, "-m", "seed=1,2", mistake, job=started.append)
    assert (code, said.count("\n"), started) == (1, 1, [])


def fails(error):
    def job(cfg):
        raise error

    return job


def test_a_job_that_is_refused_leaves_no_folder(monkeypatch, capsys, outputs):
    outputs.mkdir()
    assert ask(monkeypatch, capsys, job=fails(UserError("no")))[0] == 1
    assert list(outputs.iterdir()) == []


def test_a_user_error_of_the_job_is_one_line(monkeypatch, capsys):
    assert ask(monkeypatch, capsys, job=fails(UserError("no such voice:\n try 'f2'"))) == (1, "error: no such voice: try 'f2'\n")


def test_a_user_error_that_a_library_has_wrapped(monkeypatch, capsys):
    def job(cfg):
        try:
            raise UserError("inner")
        except UserError as error:
            raise RuntimeError("outer") from error

    assert ask(monkeypatch, capsys, job=job) == (1, "error: inner\n")


def test_any_other_error_keeps_its_traceback_from_the_job_on(monkeypatch, capsys):
    code, said = ask(monkeypatch, capsys, job=fails(ValueError("a bug")))
    assert code == 1
    assert "Traceback" in said and "in job" in said and said.endswith("ValueError: a bug\n")
    assert "hydra" not in said.splitlines()[1]


@pytest.mark.parametrize("mistake", ["optimzer.lr=1", "seed=a"])
def test_full_error_on_demand(mistake, monkeypatch, capsys):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    code, said = ask(monkeypatch, capsys, mistake)
    assert code == 1 and "Traceback" in said
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_the_job_sees_the_users_environment(monkeypatch, capsys):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    seen = []
    ask(monkeypatch, capsys, job=lambda cfg: seen.append(os.environ.get("HYDRA_FULL_ERROR")))
    assert seen == [None]


def completed(line, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr(sys, "argv", ["ttsadapt", "-sc", "query=bash"])
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code
    return capsys.readouterr().out.split()


def test_tab_completes_commands_and_overrides(monkeypatch, capsys):
    assert completed("ttsadapt ", monkeypatch, capsys) == list(cli.COMMANDS)
    assert completed("ttsadapt tr", monkeypatch, capsys) == ["train"]
    assert completed("ttsadapt train optimizer=ad", monkeypatch, capsys) == ["optimizer=adamw"]
    assert "optimizer.lr=" in completed("ttsadapt train optimizer.", monkeypatch, capsys)


@pytest.mark.parametrize("arguments", [("-sc", "install=bash"), ("train", "-sc", "install=bash")])
def test_the_shell_is_told_to_ask_ttsadapt(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/ttsadapt", *arguments])
    cli.main()
    script = capsys.readouterr().out
    assert script.rstrip().endswith("complete -o nospace -o default -F hydra_bash_completion ttsadapt")


def test_a_command_is_main_under_its_own_name():
    """Lightning's ranks and the sweep launcher start `python -m <name of the main module>` again."""
    code = """
import sys
import ttsadapt.config.app as app
def fake(name, job):
    def main():
        print(sys.modules["__main__"].__spec__.name, sys.argv[1:])
    return main
app.command = fake
sys.argv = ["ttsadapt", "evaluate", "run=a", "seed=1"]
from ttsadapt.cli import main
main()
"""
    assert run("-c", code)[0].stdout == "ttsadapt.evaluate ['run=a', 'seed=1']\n"


def helped(monkeypatch, capsys, name, *arguments):
    monkeypatch.setattr(sys, "argv", ["ttsadapt", "--help", *arguments])
    command(name, fails(AssertionError))()
    return capsys.readouterr().out


def test_help_of_a_command_is_quick(crowding):
    done, seconds = run("-m", "ttsadapt", "train", "--help")
    assert done.returncode == 0 and done.stderr == "" and seconds <= 0.8 * crowding


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_says_what_its_yaml_says(name, monkeypatch, capsys):
    """What it is for, every key of its own with its comment, the groups of its defaults; nothing of Hydra's own."""
    said, text = helped(monkeypatch, capsys, name), (paths.conf() / f"{name}.yaml").read_text()
    first, *_ = (line[2:] for line in text.splitlines() if line.startswith("# "))
    assert said.splitlines()[2] == first and "powered by Hydra" not in said and f"`ttsadapt {name} ... --cfg job`" in said
    words = " ".join(said.split())
    groups = re.findall(r"^  - (\w+): ", text, re.M)
    for line in text.partition("_self_")[2].splitlines():
        if found := re.fullmatch(r"(\w+): (\S+|\[.*?\]) # (.*)", line):
            assert (found[3] if found[1] in groups else f"{found[1]}={found[2]} {found[3]}") in words
    assert all(f"  {group}=" in said or f"  {group}." in said for group in groups if group != "experiments")
    assert all(len(line) <= 140 for line in said.splitlines())


def test_help_lists_what_matters_to_the_command(monkeypatch, capsys):
    train = helped(monkeypatch, capsys, "train")
    assert all(f"\n  {key}" in train for key in ("trainer=", "data/bring/split_by=", "where@strategy.adapter.where=", "only.speaker=null"))
    assert "quickstart/compare" in train and "analysis=" not in train and "page=" not in train
    decode = helped(monkeypatch, capsys, "decode")
    assert "decoding.top_k=null" in decode and "and all that `ttsadapt train --help` lists" in decode and "backbone=" not in decode
    assert "strategy=" not in helped(monkeypatch, capsys, "prepare")


def test_help_of_an_option_is_its_keys(monkeypatch, capsys):
    said = helped(monkeypatch, capsys, "train", "data=folder", "strategy=[ewc]", "backbone=csm_released", "seed=1")
    assert "data=folder:\n  Your own recordings" in said and re.search(r"^  data.path=\?\?\?", said, re.M)
    assert re.search(r"^  strategy\.ewc\.strength=1\.0 +times the nats", said, re.M) and "\n  backbone.path=???" in said
    assert "optimizer=" not in said
