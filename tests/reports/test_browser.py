"""The page in headless Chromium, driven over the DevTools protocol's pipe: nothing to install but the browser."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary on the PATH (apt-get install chromium)")
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


@pytest.fixture(scope="module")
def browser(reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        browser.open(reported / "report.html")
        yield browser
    finally:
        browser.close()


COLUMN = """(index) => [...document.querySelector("#main-table").tBodies[0].rows]
    .map((row) => row.cells[index].dataset.value ?? row.cells[index].textContent).filter((v) => v !== "")"""
HEADS = 'document.querySelectorAll("#main-table [aria-sort]")'


def column(browser: Browser, index: int) -> list[float]:
    return [float(v) for v in browser.run(f"({COLUMN})({index})")]


@pytest.mark.parametrize("index", [1, 9, 15])
def test_a_click_on_a_heading_sorts(browser, index):
    before = column(browser, index)
    browser.run(f'{HEADS}[{index}].querySelector("button").click()')
    assert column(browser, index) == sorted(before)
    assert browser.run(f"{HEADS}[{index}].ariaSort") == "ascending"
    browser.run(f'{HEADS}[{index}].querySelector("button").click()')
    assert column(browser, index) == sorted(before, reverse=True)
    assert browser.run(f"[...{HEADS}].filter((h) => h.ariaSort !== 'none').map((h) => h.cellIndex)") == [index]


def test_missing_values_stay_last(browser):
    script = f"""{HEADS}[15].querySelector("button").click(),
        [...document.querySelector("#main-table").tBodies[0].rows].map((row) => row.cells[15].dataset.value === "")"""
    for _ in range(2):
        assert browser.run(script) == [False] * 4 + [True] * 3


def test_headings_sort_by_keyboard(browser):
    browser.run(f'{HEADS}[2].querySelector("button").focus()')
    browser.key("Enter", 13, "\r")
    assert browser.run(f"{HEADS}[2].ariaSort") == "ascending"
    browser.key("Tab", 9)
    assert browser.run(f"document.activeElement === {HEADS}[3].querySelector('button')")


def test_columns_can_be_put_away(browser):
    visible = '[...document.querySelectorAll("#main-table td.set-source")].filter((c) => c.checkVisibility()).length'
    before = browser.run(visible)
    box = "document.querySelector('.chooser input[data-set=source]')"
    assert before > 0 and browser.run(f"{box}.click(), {visible}") == 0
    assert browser.run(f"{box}.click(), {visible}") == before


def test_every_audio_element_decodes(browser):
    script = """Promise.all([...document.querySelectorAll("audio")].map((audio) => new Promise((done, fail) => {
        audio.oncanplaythrough = () => done(audio.duration);
        audio.onerror = () => fail(new Error(audio.error.message));
        audio.preload = "auto";
        audio.load();
    })))"""
    durations = browser.run(script)
    assert len(durations) == 49 and all(1.3 < d < 3.3 for d in durations)


def test_audio_plays_one_at_a_time(browser):
    script = """(async () => {
        const [a, b] = document.querySelectorAll("audio");
        await a.play();
        await new Promise((done) => { a.ontimeupdate = () => a.currentTime > 0.05 && done(); });
        await b.play();
        const state = [a.currentTime > 0.05, a.paused, b.paused];
        b.pause();
        return state;
    })()"""
    assert browser.run(script) == [True, True, False]


def test_pictures_are_drawn(browser):
    script = """Promise.all([...document.images].map((image) => {
        image.loading = "eager";
        return image.decode().then(() => image.naturalWidth);
    }))"""
    assert min(browser.run(script)) > 50


CONTRAST = """(() => {
    const light = (c) => c.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
    const paper = light(getComputedStyle(document.body).backgroundColor);
    const of = (s) => { const l = light(getComputedStyle(document.querySelector(s)).color);
        return (Math.max(l, paper) + 0.05) / (Math.min(l, paper) + 0.05); };
    return [paper < 0.5, ...["p.lead", "caption", ".ci", "a", "td.better", "td.worse", "thead button"].map(of)];
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_have_contrast(browser, scheme):
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    dark, *ratios = browser.run(CONTRAST)
    assert dark == (scheme == "dark") and min(ratios) >= 4.5
    browser.run('document.getElementById("theme").click()')
    assert browser.run(CONTRAST)[0] != dark
    browser.run("delete document.documentElement.dataset.theme")


def test_a_narrow_window_does_not_scroll_sideways(browser):
    browser.call("Emulation.setDeviceMetricsOverride", width=380, height=800, deviceScaleFactor=1, mobile=True)
    assert browser.run("document.documentElement.scrollWidth") <= 380
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_no_console_error_and_no_request(browser, reported):
    """Last on purpose: everything above has run in this tab."""
    assert browser.run("document.title").startswith(reported.name)
    bad = [e for e in browser.events if e.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")]
    assert bad == []
    urls = {e["params"]["request"]["url"].partition(":")[0] for e in browser.events if e.get("method") == "Network.requestWillBeSent"}
    assert "file" in urls and urls <= {"file", "data"}
