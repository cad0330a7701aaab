"""`ttsadapt decode`: settings of decoding compared on a finished run, with the model loaded once."""

import re
import sys

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from ttsadapt.config.finding import find

    folder, asked = find(cfg), list(HydraConfig.get().overrides.task)
    from ttsadapt.sweeping import sweep

    return sweep(cfg, folder, asked)


def listed(argument: str) -> str:
    """ "decoding.top_k=5,20" -> "decoding.top_k=[5,20]": one sweep in one process, where Hydra would ask for a process each."""
    return re.sub(r"^(decoding\.\w+)=([^\[\]()]*,[^\[\]()]*)$", r"\1=[\2]", argument)


_main = command("decode", job)


def main() -> None:
    sys.argv[1:] = [listed(argument) for argument in sys.argv[1:]]
    _main()


if __name__ == "__main__":
    main()
