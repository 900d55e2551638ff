"""The page in a real browser: it shows what is published, by keyboard too, and what is hostile stays text."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dashboard_served import WAIT_S, Served
from dashboard_story import NAMES, channels, opening, story

from minddiffuser.runtime.images import png_bytes
from minddiffuser.streaming.dashboard.hub import Hub
from minddiffuser.streaming.dashboard.messages import (
    Concept,
    Control,
    Decoded,
    Entry,
    Ledger,
    Marker,
    Message,
    Montage,
    Notice,
    Picture,
    Quality,
    Recording,
    Session,
    Stream,
)

webdriver = pytest.importorskip("selenium.webdriver")
waits = pytest.importorskip("selenium.webdriver.support.ui")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed (CI installs them)"
)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1600,1000",
)
HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">{{7*7}}"
RUNNING = Stream(
    state="running", name="BrainAmp", nominal=250.0, measured=249.98, age=0.004, offset=0.001, uncertainty=0.0001
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, served: Served) -> Iterator[webdriver.Chrome]:
    """A browser that came in, light, at 1600 x 1000."""
    browser.get_log("browser")
    screen(browser, 1600, 1000)
    scheme(browser, "light")
    browser.get(served.server.address())
    when(browser, lambda: browser.execute_script("return location.pathname") == "/")
    when(browser, lambda: served.hub.n_clients == 1)
    browser.execute_script("localStorage.clear()")
    yield browser
    browser.get("about:blank")


def when(browser: webdriver.Chrome, true: Callable[[], object]) -> None:
    waits.WebDriverWait(browser, WAIT_S, poll_frequency=0.05).until(lambda _: true())


def screen(browser: webdriver.Chrome, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def scheme(browser: webdriver.Chrome, value: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": value}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def text(browser: webdriver.Chrome, selector: str) -> str:
    found = browser.find_element("css selector", selector).get_attribute("textContent")
    return " ".join(found.split())


def shows(browser: webdriver.Chrome, selector: str, wanted: str) -> None:
    when(browser, lambda: wanted in text(browser, selector))


def press(browser: webdriver.Chrome, keys: str) -> None:
    browser.find_element("tag name", "body").send_keys(keys)


def publish(hub: Hub, *messages: Message) -> None:
    for message in messages:
        hub.publish(message)


def picture(ordinal: int, stage: int, frame: int, level: int, *, final: bool = False) -> Picture:
    png = png_bytes(np.full((8, 8, 3), level, np.uint8))
    return Picture(
        ordinal=ordinal, text=f"s{ordinal}", stage=stage, frame=frame, n_frames=4, png=png, final=final, seconds=0.5
    )


def decoded(ordinal: int, name: str) -> Decoded:
    top = tuple(Concept(name=n, score=s) for n, s in ((name, 0.31), ("second", 0.2), ("third", 0.1)))
    control = Control(label="Right concept", n=12, value=0.5, shuffled=0.125, chance=0.1)
    return Decoded(
        ordinal=ordinal,
        text=f"s{ordinal}",
        top=top,
        measure="probability among 10 concepts",
        chance=0.1,
        control=control,
    )


def shown_level(browser: webdriver.Chrome) -> int | None:
    """The grey of the picture that the page shows, read from its pixels."""
    level: int | None = browser.execute_script(
        "const image = document.getElementById('picture'); if (!image.complete || !image.naturalWidth) return null;"
        "const canvas = document.createElement('canvas'); const pen = canvas.getContext('2d');"
        "pen.drawImage(image, 0, 0); return pen.getImageData(1, 1, 1, 1).data[0];"
    )
    return level


def test_a_whole_session_is_shown_without_a_complaint(page: webdriver.Chrome, served: Served) -> None:
    last: dict[str, Message] = {}
    for _, message in story(18.0):
        last[message.kind] = message
        served.hub.publish(message)
    served.hub.publish(RUNNING)
    shows(page, "#state", "Live")
    shows(page, "#label", "Generated by a model")
    shows(page, "#facts", "250.0 of 250 Hz")
    shows(page, "#recording", "REC 0:17")
    shows(page, "#notices", "The signal has a gap of 0.40 s")
    ledger = last["ledger"]
    assert isinstance(ledger, Ledger)
    shows(page, "#ledger-received", f"{ledger.received} received")
    shows(page, "#ledger-balance", "✓ Balanced")
    when(page, lambda: len(page.find_elements("css selector", "#map g[data-fault]")) == 32)
    faults = {
        e.get_attribute("data-fault"): e.text for e in page.find_elements("css selector", "#faults li[data-fault]")
    }
    assert {"flat": "T7", "railed": "F8", "hum": "T8", "noisy": "Fp2"} == {
        k: v.split("\n")[-1] for k, v in faults.items()
    }
    assert {k: v[0] for k, v in faults.items()} == {"flat": "F", "railed": "R", "hum": "H", "noisy": "N"}
    assert len(page.find_elements("css selector", "#stages tr")) == 9
    when(page, lambda: page.execute_script("return document.getElementById('signal').width > 100"))
    drawn = (
        "const c = document.getElementById('signal');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / (d.length / 4);"
    )
    when(page, lambda: page.execute_script(drawn) > 0.05)
    assert page.get_log("browser") == []


def test_the_token_leaves_the_address_bar_and_the_history(page: webdriver.Chrome, served: Served) -> None:
    assert page.current_url == f"{served.origin}/"
    page.back()
    assert "token" not in page.current_url
    page.get(f"{served.origin}/")
    assert page.execute_script("return document.cookie") == "", "no script reads the cookie"


def test_a_picture_grows_from_stage_1_through_stage_2(page: webdriver.Chrome, served: Served) -> None:
    assert text(page, "#picture-none")
    assert not page.find_element("id", "stamp").is_displayed()
    publish(served.hub, decoded(0, "star"), picture(0, 1, 4, 30))
    shows(page, "#picture-progress", "stage 1…")
    when(page, lambda: shown_level(page) == 30)
    assert page.find_element("id", "stamp").text == "Generated"
    for frame, level in ((1, 60), (3, 90)):
        served.hub.publish(picture(0, 2, frame, level))
        when(page, lambda level=level: shown_level(page) == level)
        assert f"stage 2, frame {frame} of 4" in text(page, "#picture-progress")
    width = page.execute_script("return document.querySelector('[data-stage=\"2\"] .fill').style.width")
    assert width == "75%"
    served.hub.publish(picture(0, 2, 4, 120, final=True))
    shows(page, "#picture-progress", "✓ finished")
    assert text(page, "#picture-concept") == "star"
    assert "marker 0, decoded as star" in page.find_element("id", "picture").get_attribute("alt")
    assert len(page.find_elements("css selector", "#history li")) == 1, "one picture, however often it grew"


def test_looking_back_by_keyboard_and_by_mouse(page: webdriver.Chrome, served: Served) -> None:
    for ordinal in range(4):
        publish(served.hub, decoded(ordinal, f"c{ordinal}"), picture(ordinal, 2, 4, 10 * ordinal + 10, final=True))
    when(page, lambda: len(page.find_elements("css selector", "#history li")) == 4)
    assert [e.text for e in page.find_elements("css selector", "#history .concept")] == ["c3", "c2", "c1", "c0"]
    right, left, home = "\ue014", "\ue012", "\ue011"
    press(page, right + right)
    when(page, lambda: shown_level(page) == 20)
    assert "looking back: #1" in text(page, "#picture-marker")
    publish(served.hub, decoded(4, "c4"), picture(4, 2, 4, 99, final=True))
    when(page, lambda: len(page.find_elements("css selector", "#history li")) == 5)
    assert shown_level(page) == 20, "who looks back is not torn away"
    press(page, left)
    when(page, lambda: shown_level(page) == 30)
    press(page, home)
    when(page, lambda: shown_level(page) == 99)
    page.find_elements("css selector", "#history button")[4].click()
    when(page, lambda: shown_level(page) == 10)
    page.find_element("id", "to-live").click()
    when(page, lambda: shown_level(page) == 99)
    assert page.get_log("browser") == []


def test_concepts_stand_beside_chance_and_control(page: webdriver.Chrome, served: Served) -> None:
    served.hub.publish(replace(decoded(7, "star"), warning="The signal left the range of training."))
    shows(page, "#decoded-marker", "#7 s7")
    rows = page.find_elements("css selector", "#concepts li")
    assert [row.text.split("\n") for row in rows] == [["star", "31 %"], ["second", "20 %"], ["third", "10 %"]]
    assert text(page, "#chance") == "┆ chance 10 %"
    widths = page.execute_script("return [...document.querySelectorAll('#concepts .fill')].map(e => e.style.width)")
    tick = page.execute_script("return document.querySelector('#concepts .tick').style.left")
    assert [float(width[:-1]) for width in widths] == pytest.approx([62, 40, 20])  # bars to 50 %
    assert tick == "20%"
    assert "12 epochs" in text(page, "#control-label")
    assert text(page, '[data-row="shuffled"]') == "Shuffled markers13 %"
    assert text(page, "#warning") == "▲ The signal left the range of training."
    served.hub.publish(replace(decoded(8, "tree"), control=None))
    shows(page, "#decoded-marker", "#8")
    assert not page.find_element("id", "control").is_displayed()
    assert not page.find_element("id", "warning").is_displayed()


def test_books_that_do_not_balance_are_said(page: webdriver.Chrome, served: Served) -> None:
    entry = Entry(ordinal=3, text="s3", state="refused", reason="the epoch touches a gap")
    served.hub.publish(Ledger(received=4, totals={"decoded": 2, "refused": 1}, pictures={"drawn": 2}, entries=(entry,)))
    shows(page, "#ledger-balance", "▲ Not balanced: 2 + 1 = 3, not 4")
    assert text(page, "#entries li") == "⊘#3s3refused: the epoch touches a gap"
    assert text(page, "#ledger-pictures") == "Pictures: 2 drawn"


def test_every_state_has_a_sign_and_a_word(page: webdriver.Chrome, served: Served) -> None:
    for state, sign, word in (
        ("waiting", "○", "Waiting for the signal"),
        ("warming up", "◐", "Warming up, 1.50 s"),
        ("running", "●", "Live"),
        ("silent", "▲", "No signal"),
        ("stale", "▲", "Signal is old"),
        ("lost", "▲", "Stream is lost"),
        ("ended", "■", "Ended"),
    ):
        served.hub.publish(replace(RUNNING, state=state, warm_up=1.5))
        when(page, lambda sign=sign, word=word: text(page, "#state") == f"{sign} {word}")
    served.hub.publish(replace(RUNNING, measured=200.0, gaps=2, dropped=10))
    shows(page, '[data-fact="rate"]', "▲ 200.0 of 250 Hz")
    assert text(page, '[data-fact="gaps"]') == "Gaps▲ 2"
    assert text(page, '[data-fact="dropped"]') == "Dropped▲ 10"
    served.hub.publish(Recording(on=False, folder="s", n_bytes=1500, seconds=3, stopped="the disk is full"))
    shows(page, "#recording", "▲ Recording stopped: the disk is full 1.5 kB")


def test_silence_and_loss_are_said(page: webdriver.Chrome, served: Served) -> None:
    publish(served.hub, *opening(), RUNNING)
    shows(page, "#state", "Live")
    shows(page, "#state", "Nothing from md-stream for")
    served.server.close()
    shows(page, "#alert", "md-stream does not answer")
    shows(page, "#state", "▲ Not connected")


def test_a_session_that_ends_says_so_and_stays(page: webdriver.Chrome, served: Served) -> None:
    first = opening()[0]
    assert isinstance(first, Session)
    publish(served.hub, first, RUNNING, decoded(0, "star"), picture(0, 2, 4, 77, final=True))
    shows(page, "#state", "Live")
    served.hub.publish(replace(first, ended="stopped by the keyboard"))
    shows(page, "#state", "■ Ended: stopped by the keyboard")
    served.server.close()
    when(page, lambda: shown_level(page) == 77)
    assert not page.find_element("id", "alert").is_displayed()


def test_what_is_hostile_stays_text(page: webdriver.Chrome, served: Served) -> None:
    channel = Montage(names=(HOSTILE,), types=("eeg",), units=("µV",), places=((0.0, 0.0),))
    publish(
        served.hub,
        Session(bundle=HOSTILE, source=HOSTILE, modality="eeg", label=HOSTILE),
        replace(RUNNING, name=HOSTILE, state="running"),
        channel,
        Quality(window=2.0, faults=(("flat",),), deviations=(0.0,), hum=(None,)),
        Marker(at=0.0, ordinal=0, text=HOSTILE),
        replace(decoded(0, HOSTILE), text=HOSTILE, measure=HOSTILE, warning=HOSTILE, control=Control(
            label=HOSTILE, n=1, value=0.0, shuffled=0.0, chance=0.0)),
        replace(picture(0, 2, 4, 50), text=HOSTILE),
        Ledger(received=1, totals={HOSTILE: 1, "__proto__": 0, "constructor": 0}, pictures={HOSTILE: 1},
               entries=(Entry(ordinal=0, text=HOSTILE, state=HOSTILE, reason=HOSTILE),)),
        Recording(on=True, folder=HOSTILE),
        Notice(at=0.0, level=HOSTILE, text=HOSTILE),
    )  # fmt: skip
    shows(page, "#notices", HOSTILE)
    for selector in (
        "#what",
        "#label",
        "#picture-marker",
        "#concepts",
        "#control-label",
        "#entries",
        "#ledger-totals",
        "#faults",
    ):
        assert HOSTILE in text(page, selector), selector
    assert page.title == "MindDiffuser live"
    assert len(page.find_elements("tag name", "script")) == 1
    assert len(page.find_elements("css selector", "img[src=x]")) == 0
    assert page.get_log("browser") == []


def test_the_policy_stops_a_script_that_got_in_all_the_same(page: webdriver.Chrome) -> None:
    page.execute_script("const s = document.createElement('div'); document.body.append(s); window.made = s")
    blocked = page.execute_script("try { window.made.innerHTML = '<b>x</b>'; return false } catch { return true }")
    assert blocked, "markup from text is no longer possible"
    fetched = page.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:1/').then(() => done('sent'), () => done('stopped'))"
    )
    assert fetched == "stopped"
    complaints = json.dumps(page.get_log("browser"))
    assert "Content Security Policy" in complaints
    assert "connect-src" in complaints


def test_keys_do_what_the_list_says(page: webdriver.Chrome, served: Served) -> None:
    publish(served.hub, *opening())
    when(page, lambda: len(page.find_elements("css selector", "#map g")) == len(NAMES))
    press(page, "?")
    when(page, lambda: page.find_element("id", "help").is_displayed())
    keys = {key.text for key in page.find_elements("css selector", "#help dt kbd")}
    assert {"f", "v", "t", "p", "b", "?", "Home"} < keys
    press(page, "\ue00c")  # Escape
    when(page, lambda: not page.find_element("id", "help").is_displayed())
    for key, selector in (("p", "#pause"), ("b", "#only-faults"), ("v", "#far")):
        press(page, key)
        when(page, lambda s=selector: page.find_element("css selector", s).get_attribute("aria-pressed") == "true")
        press(page, key)
        when(page, lambda s=selector: page.find_element("css selector", s).get_attribute("aria-pressed") == "false")
    press(page, "t")
    when(page, lambda: brightness(page) < 60)
    press(page, "t")
    when(page, lambda: brightness(page) > 200)
    assert page.get_log("browser") == []


def brightness(browser: webdriver.Chrome) -> float:
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 3


def test_channels_without_places_stand_in_rows(page: webdriver.Chrome, served: Served) -> None:
    names = tuple(f"E{k}" for k in range(10))
    publish(
        served.hub,
        Montage(names=names, types=("eeg",) * 10, units=("µV",) * 10, places=(None,) * 10),
        Quality(window=2.0, faults=((),) * 10, deviations=(1.0,) * 10, hum=(None,) * 10),
    )
    shows(page, "#faults", "Positions are not known")
    assert len(page.find_elements("css selector", "#map g")) == 10
    assert not page.find_elements("css selector", "#map .skull")
    assert "No fault in any channel" in text(page, "#faults")


def tell(hub: Hub) -> None:
    """Everything that a page can show at once, the warning too."""
    newest = decoded(0, "a")
    for _, message in story(18.0):
        hub.publish(message)
        newest = message if isinstance(message, Decoded) else newest
    publish(hub, RUNNING, replace(newest, warning="outside the range of training: variance, alpha power, slow drift"))


@pytest.mark.parametrize(
    "size", [(320, 700), (390, 844), (900, 700), (1280, 720), (1366, 768), (1920, 1080), (3840, 2160)]
)
@pytest.mark.parametrize("far", [False, True], ids=["near", "far"])
def test_nothing_overflows_sideways_and_a_screen_holds_all(
    page: webdriver.Chrome, served: Served, size: tuple[int, int], far: bool
) -> None:
    if far and size[0] < 1200:
        pytest.skip("large type is for large screens")
    tell(served.hub)
    shows(page, "#warning", "outside")
    screen(page, *size)
    if far:
        press(page, "v")
    when(page, lambda: page.execute_script("return innerWidth") == size[0])
    assert page.execute_script("return document.documentElement.scrollWidth") <= size[0]
    if size[0] >= 1280:
        assert page.execute_script("return document.documentElement.scrollHeight") <= size[1]
        cut = page.execute_script(
            "return [...document.querySelectorAll('.panel')].filter(e => e.checkVisibility())"
            ".filter(e => e.scrollHeight > e.clientHeight + 2 || e.scrollWidth > e.clientWidth + 2)"
            ".map(e => e.className)"
        )
        assert cut == [], "what a panel holds is not cut off"


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (2560, 1440), (3840, 2160)])
def test_the_large_type_is_read_from_two_metres(page: webdriver.Chrome, served: Served, size: tuple[int, int]) -> None:
    """2.6 % of the screen's height is 7.8 mm on a 24 inch screen (299 mm high): 13 minutes of arc at two metres."""
    tell(served.hub)
    shows(page, "#ledger-balance", "Balanced")
    screen(page, *size)
    press(page, "v")
    when(page, lambda: page.execute_script("return document.documentElement.dataset.view") == "far")
    sizes = page.execute_script(
        "const out = []; const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);"
        "while (walk.nextNode()) { const e = walk.currentNode.parentElement;"
        "  if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest('svg, .skip, dialog')) continue;"
        "  out.push([parseFloat(getComputedStyle(e).fontSize), walk.currentNode.data]); } return out;"
    )
    assert len(sizes) > 20
    small = [(px, what) for px, what in sizes if px < 0.026 * size[1]]
    assert small == []


def test_text_stands_out_from_its_ground_in_both_schemes(page: webdriver.Chrome, served: Served) -> None:
    measure = """
      const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255)
          .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b; };
      const ground = e => { while (e) { const c = getComputedStyle(e).backgroundColor;
        if (!c.startsWith('rgba(0, 0, 0, 0')) return c; e = e.parentElement; } return 'rgb(255,255,255)'; };
      return [...document.querySelectorAll('p, span, td, th, dt, dd, h1, h2, h3, button:enabled, li, time')]
        .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
        .filter(e => !e.closest('.stack, .stamp'))
        .map(e => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
          return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent]; })
        .filter(([contrast]) => contrast < 4.5);
    """
    tell(served.hub)
    publish(
        served.hub, replace(RUNNING, state="lost", gaps=3), Recording(on=True, folder="s", stopped="the disk is full")
    )
    publish(served.hub, Notice(at=1.0, level="error", text="an error"), replace(decoded(9, "a"), warning="b"))
    shows(page, "#notices", "an error")
    for value in ("light", "dark"):
        scheme(page, value)
        when(page, lambda value=value: (brightness(page) > 128) == (value == "light"))
        assert page.execute_script(measure) == []  # WCAG 2.2, AA


def test_a_picture_of_the_screen_is_taken(page: webdriver.Chrome, served: Served, tmp_path: Path) -> None:
    from minddiffuser.runtime.images import read_image

    tell(served.hub)
    shows(page, "#ledger-balance", "Balanced")
    when(page, lambda: shown_level(page) is not None)
    assert page.save_screenshot(str(tmp_path / "page.png"))
    image = read_image(tmp_path / "page.png")
    assert image.shape == (1000, 1600, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 500, "the page is not blank"


def test_the_story_places_its_channels() -> None:
    assert [channel.name for channel in channels()] == NAMES
