"""The page in headless Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary on the PATH (apt-get install chromium)")


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
