"""No worker outlives the process that started it, and SIGTERM is as good as Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ttsadapt

POOL = r"""
import os
import sys
import time
from ttsadapt.processes import workers
from ttsadapt.stopping import Stopped, stop_on_signals

def work(name):
    os.write(1, f"{os.getpid()}\n".encode())  # in one piece
    time.sleep(0.2)

if __name__ == "__main__":
    stop_on_signals()
    try:
        with workers(2) as pool:
            list(pool.map(work, range(1000)))
    except Stopped as error:
        sys.exit(error.code)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_workers_go_with_their_parent(tmp_path, number):
    program = tmp_path / "pool.py"
    program.write_text(POOL)
    env = os.environ | {"PYTHONPATH": str(Path(ttsadapt.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids = {int(process.stdout.readline()) for _ in range(5)}
    process.send_signal(number)
    begun = time.monotonic()
    _, error = process.communicate(timeout=20)  # until the last of them closes the pipe
    assert time.monotonic() - begun < 5
    assert len(pids) == 2 and process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in error


def test_every_pool_is_made_in_one_place():
    source = Path(ttsadapt.__file__).parent
    assert [p.name for p in source.rglob("*.py") if "ProcessPoolExecutor(" in p.read_text()] == ["processes.py"]
