"""Runs one composed config for the process that needs it and holds its lock: `python -m ttsadapt.job <config.yaml>`."""

import sys

from omegaconf import OmegaConf

from ttsadapt.config.app import die_with_the_launcher, quiet_output, say
from ttsadapt.errors import UserError
from ttsadapt.stopping import Stopped, stop_on_signals


def main() -> int:
    die_with_the_launcher()
    stop_on_signals()
    quiet_output()
    from ttsadapt.run import train

    config = OmegaConf.load(sys.argv[1])
    try:
        train(config, locked=True)  # type: ignore[arg-type]
    except UserError as error:
        return say(str(error), 1)
    except Stopped as error:  # whoever waits for this run says so
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
