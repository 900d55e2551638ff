"""The page in a real browser: no complaint in its console, sorting, both colour schemes, a phone's width."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import chromium, needs_chromium

from minddiffuser.runtime.report.page import write_report

webdriver = pytest.importorskip("selenium.webdriver")
waits = pytest.importorskip("selenium.webdriver.support.ui")
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile"), 1200, 900) as driver:
        yield driver


@pytest.fixture
def page(browser: webdriver.Chrome, full_run: Path) -> webdriver.Chrome:
    browser.get_log("browser")
    browser.get(write_report(full_run).as_uri())
    browser.execute_script("localStorage.clear()")
    scheme(browser, "light")
    browser.refresh()
    return browser


def scheme(browser: webdriver.Chrome, value: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": value}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def order(browser: webdriver.Chrome) -> list[str]:
    return browser.execute_script("return [...document.querySelectorAll('article')].map(a => a.dataset.trial)")


def brightness(browser: webdriver.Chrome) -> float:
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 3


def test_the_console_is_silent_and_the_style_is_applied(page: webdriver.Chrome) -> None:
    assert page.get_log("browser") == []
    assert page.title != "broken"
    assert page.execute_script("return getComputedStyle(document.querySelector('.cards')).display") == "grid"
    loaded = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert page.execute_script(loaded)
    assert page.execute_script("return getComputedStyle(document.images[0]).imageRendering") == "pixelated"


def test_trials_sort_by_keyboard(page: webdriver.Chrome) -> None:
    assert order(page) == ["0", "3", "12"]
    select = page.find_element("id", "sort-key")
    select.send_keys("gain in P")
    assert order(page) == ["12", "0", "3"]
    button = page.find_element("id", "sort-order")
    assert button.text == "Largest first"
    button.send_keys(" ")
    assert order(page) == ["3", "0", "12"]
    assert "gain in PixCorr, smallest first" in page.find_element("id", "sort-status").get_attribute("textContent")
    select.send_keys("trial")
    assert order(page) == ["0", "3", "12"]
    assert page.get_log("browser") == []


def test_dark_follows_the_system_and_the_button_overrules_it(page: webdriver.Chrome) -> None:
    assert brightness(page) > 200
    scheme(page, "dark")
    assert brightness(page) < 60
    button = page.find_element("id", "theme")
    waits.WebDriverWait(page, 60).until(lambda _: button.text == "Light")  # the page hears of the change by an event
    button.send_keys("\n")
    assert brightness(page) > 200
    page.refresh()
    assert brightness(page) > 200, "the choice is remembered"
    assert page.get_log("browser") == []


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_overflows_sideways(page: webdriver.Chrome, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_guided_run_fits_a_phone(browser: webdriver.Chrome, guided_run: Path) -> None:
    browser.get_log("browser")
    browser.get(write_report(guided_run).as_uri())
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 320
        assert [line.text for line in browser.find_elements("class name", "candidates")][0].endswith("1 to 1.5")
        drawn = browser.find_elements("css selector", "#evidence svg")
        assert [len(svg.find_elements("class name", "name")) for svg in drawn] == [3, 3]
        assert "Missing" in browser.find_element("css selector", "#evidence .rungs").text, "the reason is shown at once"
        assert browser.title != "broken"
        places = "return [...document.querySelectorAll('#evidence svg .dot')].map(e => e.cx.baseVal.value)"
        right, left = browser.execute_script(places)
        assert left < right, "of the metric whose smaller values are better 0.5 is worse than the floor"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert browser.get_log("browser") == []


def test_text_stands_out_from_its_ground_in_both_schemes(page: webdriver.Chrome) -> None:
    measure = """
      const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255)
          .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b; };
      const ground = e => { while (e) { const c = getComputedStyle(e).backgroundColor;
        if (!c.startsWith('rgba(0, 0, 0, 0')) return c; e = e.parentElement; } return 'rgb(255,255,255)'; };
      return [...document.querySelectorAll('p, small, td, th, dt, dd span, figcaption, h1, h2, h3, a, button')]
        .filter(e => e.offsetParent).map(e => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
          return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); });
    """
    for value in ("light", "dark"):
        scheme(page, value)
        assert min(page.execute_script(measure)) >= 4.5  # WCAG 2.2, AA
