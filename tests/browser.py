"""Headless Chromium, driven over the DevTools protocol's pipe: nothing to install but the browser."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "--mute-audio",
)  # fmt: skip
LONG = 120  # seconds that any answer may take on a busy machine


class Browser:
    """One tab: commands out, answers and events in, messages end in a NUL byte."""

    def __init__(self, profile: Path) -> None:
        theirs_in, self.out = os.pipe()
        self.into, theirs_out = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in (theirs_in, theirs_out)]

        def place() -> None:  # the protocol's pipe is fixed to 3 (in) and 4 (out)
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for fd in (theirs_in, theirs_out, *high):
            os.close(fd)
        os.set_blocking(self.into, False)
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        self._buffer, self._last = b"", 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        session = {"sessionId": self.session} if self.session else {}
        os.write(self.out, json.dumps({"id": self._last, "method": method, "params": parameters} | session).encode() + b"\0")
        answer = self.wait(lambda m: m.get("id") == self._last)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def wait(self, wanted: Any) -> dict[str, Any]:
        """The first message that is wanted; every event before it is kept."""
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            while b"\0" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(line)
                self.events.append(message)
                if wanted(message):
                    return message
            try:
                chunk = os.read(self.into, 1 << 20)
                assert chunk, "chromium ended"
                self._buffer += chunk
            except BlockingIOError:
                time.sleep(0.01)
        raise TimeoutError("chromium does not answer")

    def open(self, path: Path) -> None:
        self.call("Page.navigate", url=path.as_uri())
        self.wait(lambda m: m.get("method") == "Page.loadEventFired")

    def run(self, script: str) -> Any:
        """Value of an expression; promises are awaited, and the page believes that a user asked."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def key(self, name: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, text=text)

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.out)
        os.close(self.into)
