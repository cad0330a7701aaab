"""`ttsadapt <command> [overrides]`: finds the command and becomes it."""

import os
import runpy
import sys
from importlib import import_module

COMMANDS = {
    "prepare": "lay a corpus out on disk: recordings, transcripts, durations",
    "train": "adapt a model (pretraining it first where needed), score it, keep everything in a run folder",
    "evaluate": "synthesise and score the test sentences of a finished run, or any recordings",
    "compare": "ask whether one finished run is better than another: a paired bootstrap of their scores",
    "decode": "compare settings of decoding (temperature, top-k ...) on a finished run",
    "analyze": "rank the blocks of a model, or (analysis=diversity) say how diverse recordings are",
    "synthesize": "speak a text with a finished run",
    "export": "write a finished run's model in its authors' own format, adapters merged in",
    "report": "compare the runs of a study: tables, plots, a page to listen to",
    "bench": "measure speed and memory in alternating pairs: our code against plain loops and other trainers",
}

_COMPLETION = ("-sc", "--shell-completion", "--shell_completion")

_EXAMPLES = """\
examples:
  ttsadapt train                                            LoRA on the embedded corpus
  ttsadapt train strategy=[full,ewc,kd] optimizer.lr=1e-4   other strategies, another learning rate
  ttsadapt train -m strategy=[lora],[csp] seed=0,1,2        a sweep: every combination, a process each
  ttsadapt train experiments=quickstart/compare             a sweep that is kept in experiments/
  ttsadapt train --cfg job                                  show the composed config and stop
  ttsadapt report study=quickstart                          the page again
  ttsadapt synthesize run=quickstart/<run id> text="Hello there."

`ttsadapt <command> --help` lists a command's keys and groups, `--help data=folder` the keys of an option.
A mistake is told in one line; HYDRA_FULL_ERROR=1 tells all.
Tab completion: eval "$(ttsadapt -sc install=bash)"   (also zsh and fish)"""


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {says}" for name, says in COMMANDS.items()]
    return "\n".join(["usage: ttsadapt <command> [overrides]", "", "commands:", *lines, "", _EXAMPLES])


def main() -> None:
    first, *rest = sys.argv[1:] or ["--help"]
    if first in ("-h", "--help", "help"):
        print(usage())
    elif first == "--version":
        from ttsadapt import __version__

        print(f"ttsadapt {__version__}")
    elif first in _COMPLETION:
        complete(first, rest)
    elif first in COMMANDS:
        become(first, rest)
    else:
        sys.exit(unknown(first))


def become(command: str, arguments: list[str]) -> None:
    """Run `ttsadapt.<command>` as `python -m` does: Lightning's ranks and the sweep launcher start it again by that name."""
    sys.argv[1:] = arguments
    if arguments[:1] and arguments[0] in _COMPLETION:  # Hydra writes its script for the program named in argv[0]
        import_module(f"ttsadapt.{command}").main()
    else:
        runpy.run_module(f"ttsadapt.{command}", run_name="__main__", alter_sys=True)


def complete(flag: str, arguments: list[str]) -> None:
    """The shell's script asks `ttsadapt -sc query=<shell>`: the command is completed here, and hidden from Hydra's own completion."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    asked, _, shell = (arguments or [""])[0].partition("=")
    if asked in ("install", "uninstall", "query") and shell not in ("bash", "zsh", "fish"):
        print(f"error: {asked}={shell}: there is completion for bash, zsh and fish", file=sys.stderr)
        sys.exit(2)
    if asked != "query":
        become("train", [flag, *arguments])
    elif len(words) > 2 or (len(words) == 2 and line.endswith(" ")):
        if words[1] in COMMANDS:
            os.environ["COMP_LINE"] = line.replace(f" {words[1]}", "", 1)
            become(words[1], [flag, *arguments])
    else:
        print(" ".join(name for name in COMMANDS if name.startswith(words[1] if len(words) == 2 else "")))


def unknown(command: str) -> int:
    from ttsadapt.config.nearest import hint

    kind, names = ("option", ["--help", "--version"]) if command.startswith("-") else ("command", list(COMMANDS))
    print(f"error: there is no {kind} {command!r}{hint(command, names)} (ttsadapt --help)", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
