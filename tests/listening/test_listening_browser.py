"""Whole sessions in headless Chromium: hear, answer, reload in the middle, finish, save; then the file is read back."""

import json
import re
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from simulate import key_of, made, short_study

from browser import CHROMIUM, Browser
from ttsadapt.listening.checksum import checksum, sheet_of
from ttsadapt.listening.results import gather

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary on the PATH (apt-get install chromium)")
SMALL = ["page.sentences=5", "page.per_listener=5", "page.training=2", "page.checks=2", "page.repeats=1"]
WAIT = 60


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = short_study(tmp_path_factory.mktemp("outputs"))
    made("mos", *SMALL).build(folder)
    for page in ("abx", "cmos"):
        made(page, *SMALL[:-1], "page.sentences=2", "page.per_listener=2", "page.checks=1").build(folder)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        yield browser
    finally:
        browser.close()


def until(browser: Browser, expression: str) -> None:
    end = time.monotonic() + WAIT
    while not browser.run(expression):
        assert time.monotonic() < end, f"never: {expression}: {browser.run('document.body.innerText')}"
        time.sleep(0.03)


def click(browser: Browser, text: str) -> None:
    found = browser.run(f"(() => {{ const b = [...document.querySelectorAll('button')].find((b) => b.textContent === {json.dumps(text)});"
                        " if (!b || b.disabled) return false; b.click(); return true; })()")  # fmt: skip
    assert found, f"no button {text!r}: {browser.run('document.body.innerText')}"


def begin(browser: Browser, page: Path, listener: str) -> None:
    browser.open(page)
    browser.run(f"""(() => {{
        document.getElementById("field-code").value = {json.dumps(listener)};
        for (const s of document.querySelectorAll("select")) s.selectedIndex = 1;
        document.getElementById("field-agree").click();
    }})()""")
    click(browser, "Begin")
    assert browser.run("document.querySelector('.go').disabled")  # first the volume
    hear_all(browser, "!document.querySelector('.go').disabled")
    click(browser, "I hear it well")
    click(browser, "Start practising")


def hear_all(browser: Browser, done: str) -> None:
    for i in range(browser.run("document.querySelectorAll('.player').length")):
        browser.run(f"document.querySelectorAll('.player')[{i}].click()")
        until(browser, f"document.querySelectorAll('.player')[{i}].classList.contains('heard')")
    until(browser, done)


ENABLED = "!document.querySelector('.answer input').disabled"


def answer(browser: Browser, place: int) -> None:
    hear_all(browser, ENABLED)
    browser.run(f"document.querySelectorAll('.answer input')[{place}].click()")
    click(browser, "Next")


def saved(browser: Browser, folder: Path) -> Path:
    folder.mkdir()
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    click(browser, "Save my answers")
    end = time.monotonic() + WAIT
    while not list(folder.glob("*.json")):
        assert time.monotonic() < end
        time.sleep(0.05)
    return next(folder.glob("*.json"))


def test_a_whole_session_is_read_back(browser, heard, tmp_path):
    page, key = heard / "listening" / "mos" / "mos.html", key_of(heard, "mos")
    begin(browser, page, "3")
    for place in (0, 4):
        answer(browser, place)
    click(browser, "Start")
    chosen = []
    wanted = len(key.sheets[2])
    for n in range(wanted):
        if n == 3:  # reload in the middle, a clip half heard
            before = browser.run("document.getElementById('where').textContent")
            browser.open(page)
            assert browser.run("document.getElementById('where').textContent") == before
            assert "as listener 3" in browser.run("document.body.innerText")
            assert browser.run("document.querySelector('.answer input').disabled")
        chosen.append(str(5 - n % 5))
        answer(browser, n % 5)
    file = saved(browser, tmp_path / "saved")
    sessions, refused = gather([file], key)
    assert refused == [] and [s.listener for s in sessions] == ["3"]
    stated = json.loads(file.read_text())["body"]
    assert [t["answer"] for t in stated["trials"][2:]] == chosen
    assert sessions[0].answers.keys() == set(key.sheets[2]) and sessions[0].questions["age"] == "under 18"
    repeat = [t["trial"] for t in stated["trials"]]
    again = [c for c in repeat if c in key.trials and key.trials[c].repeats]
    assert len(again) == 1 and repeat.index(again[0]) > repeat.index(key.trials[again[0]].repeats)
    browser.open(page)  # a finished session can be saved again, and made room for another listener
    assert "Thank you" in browser.run("document.body.innerText")
    browser.run("window.confirm = () => true")
    click(browser, "I am somebody else")
    assert browser.run("document.getElementById('field-code').value") == "" and browser.run("localStorage.length") == 0


def test_a_session_by_keyboard_alone(browser, heard, tmp_path):
    """ABX with no pointer: letters play, digits answer, Enter goes on."""
    key = key_of(heard, "abx")
    begin(browser, heard / "listening" / "abx" / "abx.html", "ana")

    def by_keys() -> None:
        browser.key("1", 49, "1")
        assert browser.run("document.querySelector('.answer input:checked')") is None  # not before everything was heard
        for i, letter in enumerate("XAB"):
            browser.key(letter.lower(), ord(letter), letter.lower())
            until(browser, f"document.querySelectorAll('.player')[{i}].classList.contains('heard')")
        until(browser, ENABLED)
        browser.key("2", 50, "2")
        browser.key("Enter", 13, "\r")

    for _ in key.training:
        by_keys()
    browser.key("Tab", 9)
    browser.key("Enter", 13, "\r")
    sheet = next(s for s in key.sheets if set(s) >= set(shown(browser, key)))
    for _ in sheet:
        by_keys()
    sessions, refused = gather([saved(browser, tmp_path / "saved")], key)
    assert refused == [] and set(sessions[0].answers.values()) == {"b"}


SCALES = {
    "mos": ("5 4 3 2 1", {"5": "Excellent", "1": "Bad"}),
    "cmos": ("3 2 1 0 −1 −2 −3", {"3": "Much better", "-3": "Much worse", "0": "About the same"}),
}
"""{test: (the keys in the order shown, {what is typed: the answer that it gives})}"""


@pytest.mark.parametrize("page", SCALES)
def test_the_key_of_an_answer_is_its_score(browser, heard, page):
    """As it stands beside the answer, and as it is recorded."""
    keys, typed = SCALES[page]
    kept_as(browser, heard / "listening" / page / f"{page}.html", stage="main")
    assert browser.run("[...document.querySelectorAll('kbd')].map((k) => k.textContent).join(' ')") == keys
    assert f"{keys} to answer" in browser.run("document.querySelector('.keys').textContent")
    hear_all(browser, ENABLED)
    for score, label in typed.items():
        for sign in score:
            browser.key(sign, ord(sign), sign)
        chosen = "document.querySelector('.answer input:checked')"
        assert browser.run(f"{chosen}.value") == score
        assert browser.run(f"{chosen}.parentElement.querySelector('span').textContent") == label
    browser.key("Enter", 13, "\r")
    assert browser.run("JSON.parse(localStorage.getItem(localStorage.key(0))).done[0].answer") == list(typed)[-1]


def shown(browser: Browser, key) -> list[str]:
    """The trials that the listener in localStorage will hear."""
    listener = browser.run("JSON.parse(localStorage.getItem(localStorage.key(0))).listener")
    return key.sheets[sheet_of(listener, len(key.sheets))]


def test_clips_that_were_stopped_do_not_count(browser, heard):
    browser.run("localStorage.clear()")
    begin(browser, heard / "listening" / "mos" / "mos.html", "9")
    browser.run("document.querySelector('.player').click()")
    until(browser, "document.querySelector('.does').textContent.includes('Stop')")
    browser.run("document.querySelector('.player').click()")
    until(browser, "document.querySelector('.does').textContent.includes('Play')")
    assert browser.run("document.querySelector('.answer input').disabled") and browser.run("document.querySelector('.go').disabled")


def test_order_differs_between_listeners_and_not_between_visits(browser, heard):
    page = heard / "listening" / "mos" / "mos.html"
    texts = {}
    for visit, listener in enumerate(["1", "1", "6"]):  # 1 and 6 have the same sheet
        browser.open(page)
        browser.run("localStorage.clear()")
        body = {"listener": listener, "stage": "main", "practised": [], "done": [], "questions": {}, "started": "x", "instructed": True}
        said = []
        for n in range(4):
            state = json.dumps(body | {"done": [{}] * n})
            browser.run(
                f"localStorage.setItem('ttsadapt.listening.' + JSON.parse(document.getElementById('data').textContent).id, {state!r})"
            )
            browser.open(page)
            said.append(browser.run("document.querySelector('.said').textContent"))
        texts[visit] = said
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_windows_and_both_themes(browser, heard, scheme):
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.call("Emulation.setDeviceMetricsOverride", width=380, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(heard / "listening" / "mos" / "mos.html")
    assert browser.run("document.documentElement.scrollWidth") <= 380
    dark = browser.run("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0] < 128")
    assert dark == (scheme == "dark")
    browser.call("Emulation.clearDeviceMetricsOverride")


def kept_as(browser: Browser, page: Path, **state) -> None:
    """Opens the page as listener 1 who has come so far."""
    known = {"listener": "1", "practised": [], "done": [], "questions": {}, "started": "x", "instructed": True} | state
    slot = "'ttsadapt.listening.' + JSON.parse(document.getElementById('data').textContent).id"
    browser.open(page)
    browser.run(f"localStorage.clear(); localStorage.setItem({slot}, {json.dumps(json.dumps(known))})")
    browser.open(page)


def test_a_clip_heard_again_ends_with_its_screen(browser, heard):
    kept_as(browser, heard / "listening" / "mos" / "mos.html", stage="main")
    browser.run("window.played = []; HTMLMediaElement.prototype.play = ((own) => function () { played.push(this); return own.call(this); })"
                "(HTMLMediaElement.prototype.play)")  # fmt: skip
    hear_all(browser, ENABLED)
    browser.run("HTMLMediaElement.prototype.pause = ((own) => function () { this.stopped = true; own.call(this); })"
                "(HTMLMediaElement.prototype.pause); document.querySelector('.player').click()")  # fmt: skip
    browser.run("played[0].stopped = false; document.querySelector('.answer input').click()")
    click(browser, "Next")
    assert browser.run("played[0].stopped") and browser.run("document.querySelector('.answer input').disabled")


def test_of_two_tabs_the_one_used_last_goes_on(browser, heard):
    page = heard / "listening" / "mos" / "mos.html"
    kept_as(browser, page, stage="main")
    first, browser.session = browser.session, None
    target = browser.call("Target.createTarget", url=page.as_uri())["targetId"]
    browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    until(browser, "!!document.querySelector('.answer')")
    answer(browser, 0)
    browser.session = first
    until(browser, "document.body.innerText.includes('open twice')")
    assert browser.run("document.querySelector('.answer')") is None
    click(browser, "Go on here")
    until(browser, "document.getElementById('where')?.textContent.startsWith('2 of')")  # not while the page is loading
    browser.session = None
    browser.call("Target.closeTarget", targetId=target)
    browser.session = first


def test_where_nothing_can_be_kept_it_is_said(browser, heard):
    kept_as(browser, heard / "listening" / "mos" / "mos.html", stage="main")
    leaving = "(() => { const e = new Event('beforeunload', { cancelable: true }); dispatchEvent(e); return e.defaultPrevented; })()"
    assert not browser.run(leaving)
    browser.run("window.own = Storage.prototype.setItem; "
                "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }")  # fmt: skip
    answer(browser, 1)
    assert "keeps nothing" in browser.run("document.body.innerText") and browser.run(leaving)
    browser.run("Storage.prototype.setItem = own")
    answer(browser, 1)
    assert browser.run("document.getElementById('where').textContent").startswith("3 of") and not browser.run(leaving)


def test_clips_that_cannot_be_played_and_texts_without_an_end(browser, heard, tmp_path):
    source = (heard / "listening" / "mos" / "mos.html").read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    text = re.sub(r'("audio":\{.*?\})', lambda m: re.sub(r':"[^"]*"', ':"AAAA"', m.group()), source)
    broken.write_text(re.sub(r'("text":")[^"]+', r"\1" + "Donaudampfschiff" * 30, text).replace("Excellent", "m" * 200), encoding="utf-8")
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    kept_as(browser, broken, stage="main", listener="w" * 60)
    until(browser, "!!document.querySelector('.unplayable')")
    assert browser.run("document.querySelector('.answer input').disabled")
    assert browser.run("document.documentElement.scrollWidth") <= 390
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_nothing_was_asked_of_the_network_and_nothing_failed(browser):
    """Here on purpose: everything above has run in this tab."""
    bad = [e for e in browser.events if e.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")]
    assert bad == []
    urls = {e["params"]["request"]["url"].partition(":")[0] for e in browser.events if e.get("method") == "Network.requestWillBeSent"}
    assert "file" in urls and urls <= {"file", "data", "blob"}


def test_answers_are_sent_where_the_config_says_and_kept_when_that_fails(browser, heard):
    """After the check for silence, since this one talks: to a server of its own, then to nobody."""
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    made("mos", *SMALL, "page.name=posted", f"page.post=http://127.0.0.1:{server.server_port}/answers").build(heard)
    page = heard / "listening" / "posted" / "posted.html"
    answers = [{"trial": "a", "answer": "5", "plays": [1], "ms": 4000}]
    state = {
        "listener": "Zoë 7",
        "stage": "end",
        "practised": [],
        "done": answers,
        "questions": {"q:age": "18–29"},
        "started": "x",
        "finished": "y",
    }
    browser.open(page)
    slot = "'ttsadapt.listening.' + JSON.parse(document.getElementById('data').textContent).id"
    keep = f"localStorage.setItem({slot}, {json.dumps(json.dumps(state))})"
    browser.run(keep)
    browser.open(page)
    until(browser, "document.body.innerText.includes('have been received')")
    assert received[0]["body"]["listener"] == "Zoë 7" and received[0]["checksum"] == checksum(received[0]["body"])
    browser.open(page)
    assert browser.run("document.body.innerText.includes('have been received')") and len(received) == 1  # not once more
    server.shutdown()
    server.server_close()
    browser.run(keep)
    browser.open(page)
    until(browser, "document.body.innerText.includes('could not be sent')")
    assert browser.run("[...document.querySelectorAll('button')].filter((b) => b.checkVisibility()).map((b) => b.textContent)")[1:3] == [
        "Try again",
        "Save my answers",
    ]
