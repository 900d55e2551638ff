"""The page in a real browser: judged by keyboard at a desk, then by finger on a phone, without a complaint."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium, needs_chromium
from judge_runs import planned, write_run

from minddiffuser.runtime.images import read_image
from minddiffuser.runtime.judge.answers import AnswerFile
from minddiffuser.runtime.judge.judges import admit
from minddiffuser.runtime.judge.server import JudgeServer
from minddiffuser.runtime.judge.session import Session
from minddiffuser.runtime.judge.study import Order, Study

webdriver = pytest.importorskip("selenium.webdriver")
waits = pytest.importorskip("selenium.webdriver.support.ui")
pytestmark = needs_chromium
WAIT_S = 120.0
PHONE = (390, 844)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile"), 1280, 900) as driver:
        yield driver


def when(browser: Any, true: Callable[[], object]) -> None:
    waits.WebDriverWait(browser, WAIT_S, poll_frequency=0.02).until(lambda _: true())


def shown(browser: Any, number: int) -> None:
    """Wait until a showing may be answered."""
    when(browser, lambda: browser.find_element("id", "page").get_attribute("data-shown") == str(number))


def screen(browser: Any, width: int, height: int, *, mobile: bool = False) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": mobile})


def press(browser: Any, keys: str) -> None:
    browser.find_element("tag name", "body").send_keys(keys)


def tap(browser: Any, identifier: str) -> None:
    box = browser.execute_script(
        "const b = document.getElementById(arguments[0]).getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y + b.height / 2];",
        identifier,
    )
    point = [{"x": box[0], "y": box[1]}]
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": point})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def first_pixel(browser: Any, place: str) -> list[int]:
    pixel: list[int] = browser.execute_script(
        "const image = document.querySelector('#' + arguments[0] + ' img');"
        "const canvas = document.createElement('canvas'); const pen = canvas.getContext('2d');"
        "pen.drawImage(image, 0, 0); return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);",
        place,
    )
    return pixel


def fits(browser: Any) -> None:
    """All three pictures have one size and stand whole on the screen; nothing has to be scrolled."""
    sizes = browser.execute_script(
        "return ['stimulus', 'left', 'right'].map((name) => {"
        " const b = document.querySelector('#' + name + ' img').getBoundingClientRect();"
        " const whole = b.left >= 0 && b.top >= 0 && b.right <= innerWidth && b.bottom <= innerHeight;"
        " return [b.width, b.height, whole]; });"
    )
    assert len({tuple(size) for size in sizes}) == 1
    assert sizes[0][0] == sizes[0][1] > 90
    assert sizes[0][2]
    assert browser.execute_script(
        "const e = document.documentElement; return e.scrollWidth <= innerWidth && e.scrollHeight <= innerHeight;"
    )


def expected_pixels(study: Study, order: Order, number: int) -> dict[str, list[int]]:
    showing = order.showings[number]
    row = study.plan["catches" if showing["role"] == "catch" else "items"][showing["number"]]
    right = {"first": "second", "second": "first", "stimulus": "foil", "foil": "stimulus"}[showing["left"]]
    hashes = {"stimulus": row["stimulus"], "left": row[showing["left"]], "right": row[right]}
    return {place: read_image(study.picture(digest))[0, 0].tolist() for place, digest in hashes.items()}


def test_a_study_is_judged_by_keyboard_and_by_finger(browser: Any, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", write_run(tmp_path / "run", n=9), n_catch=1, minimum_ms=100)
    order = admit(study, "anna")
    path = study.answers("anna")
    browser.get_log("browser")
    screen(browser, 1280, 900)
    with AnswerFile(path, order.hash) as answers:
        session = Session(study, order, answers, time.monotonic, lambda: "now")
        with JudgeServer(session) as server:
            browser.get(server.address())
            when(browser, lambda: browser.execute_script("return document.activeElement.id") == "begin")
            assert browser.execute_script("return location.pathname") == "/"
            press(browser, "1")
            assert session.n_done == 0, "nothing is shown yet"
            browser.find_element("id", "begin").send_keys("\ue007")  # Enter

            sides = ["left", "right", "left", "right"]
            for number, key in enumerate(("\ue012", "\ue014", "1", "2")):
                shown(browser, number)
                fits(browser)
                for place, pixel in expected_pixels(study, order, number).items():
                    assert first_pixel(browser, place) == pixel
                press(browser, key * 2)  # the second press comes when the first is on its way
                when(browser, lambda number=number: session.n_done == number + 1)
            shown(browser, 4)
            browser.execute_script("document.getElementById('right').focus()")
            assert "solid" in browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
            browser.switch_to.active_element.send_keys(" ")
            when(browser, lambda: session.n_done == 5)
            shown(browser, 5)
            browser.find_element("id", "left").click()
            when(browser, lambda: session.n_done == 6)

            # The judge goes on at a phone.
            screen(browser, *PHONE, mobile=True)
            browser.get(server.address())
            when(browser, lambda: "6 of 10 are answered" in browser.find_element("id", "so-far").text)
            tap(browser, "begin")
            for number, side in ((6, "right"), (7, "left")):
                shown(browser, number)
                fits(browser)
                tap(browser, side)
                tap(browser, side)
                when(browser, lambda number=number: session.n_done == number + 1)
            screen(browser, PHONE[1], PHONE[0], mobile=True)
            for number, side in ((8, "right"), (9, "right")):
                shown(browser, number)
                fits(browser)
                tap(browser, side)
                when(browser, lambda number=number: session.n_done == number + 1)
            when(browser, lambda: browser.find_element("id", "end").is_displayed())
            assert server.finished.wait(WAIT_S)
            assert not browser.find_element("id", "trouble").is_displayed()
            browser.get("about:blank")

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["choice"] for line in lines] == [*sides, "right", "left", "right", "left", "right", "right"]
    assert [line["input"] for line in lines] == ["keyboard"] * 5 + ["mouse"] + ["touch"] * 4
    assert [line["view"][:2] for line in lines[:1] + lines[6:7]] == [[1280, 900], list(PHONE)]
    for line in lines:
        assert 100 <= line["response_ms"] <= line["server_ms"]
    assert browser.get_log("browser") == []


def test_what_was_not_saved_is_said_and_sent_again(browser: Any, run: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", run, n_catch=0, minimum_ms=0)
    order = admit(study, "anna")
    browser.get_log("browser")
    screen(browser, 1280, 900)
    with AnswerFile(study.answers("anna"), order.hash) as answers:
        session = Session(study, order, answers, time.monotonic, lambda: "now")
        with JudgeServer(session) as server:
            port = server.port
            browser.get(server.address())
            when(browser, lambda: browser.execute_script("return document.activeElement.id") == "begin")
            browser.switch_to.active_element.send_keys("\ue007")
            shown(browser, 0)
            door = server.door
        press(browser, "1")
        when(browser, lambda: "does not answer" in browser.find_element("id", "trouble").text)
        with JudgeServer(session, port=port) as again:
            again.door._inside = door._inside  # the same browser, still let in
            browser.find_element("id", "again").click()
            when(browser, lambda: session.n_done == 1)
            shown(browser, 1)
            assert not browser.find_element("id", "trouble").is_displayed()
            browser.get("about:blank")
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert all("net::ERR_CONNECTION_" in message for message in complaints), complaints
