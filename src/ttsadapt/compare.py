"""`ttsadapt compare`: is one finished run better than another? Their scores.csv are read, nothing is spoken or scored."""

import re
import sys

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from ttsadapt.comparing import compare

    return compare(cfg)


def chosen(argument: str) -> str:
    """ "metric=[per]" -> "metrics=[per]": here these are names of figures that both runs have; Hydra would look for them in conf/metric."""
    return re.sub(r"^metric=", "metrics=", argument)


_main = command("compare", job)


def main() -> None:
    sys.argv[1:] = [chosen(argument) for argument in sys.argv[1:]]
    _main()


if __name__ == "__main__":
    main()
