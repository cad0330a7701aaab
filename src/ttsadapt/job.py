"""Runs one composed config for the process that needs it and holds its lock: `python -m ttsadapt.job <run folder>`."""

import sys
from pathlib import Path

from ttsadapt.config.app import die_with_the_launcher, quiet_output, say
from ttsadapt.config.base import read_config
from ttsadapt.errors import UserError
from ttsadapt.stopping import Stopped, stop_on_signals


def main() -> int:
    die_with_the_launcher()
    stop_on_signals()
    quiet_output()
    from ttsadapt.run import train

    try:
        train(read_config(Path(sys.argv[1])), locked=True)
    except UserError as error:
        return say(str(error), 1)
    except Stopped as error:  # whoever waits for this run says so
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
