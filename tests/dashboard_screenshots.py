"""Screenshots of the dashboard for the documents: ``python tests/dashboard_screenshots.py docs/images``.

They are of ``md-stream demo``, a minute after its start. Needs Chromium and its driver, and two minutes.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

SECONDS, N_PICTURES = 60.0, 8
SHOTS = (("dashboard_light", "light", False), ("dashboard_far", "dark", True))


def browser(profile: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    for flag in (*flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))


def address_of(demo: subprocess.Popen[str]) -> str:
    """What it prints where there is no screen."""
    assert demo.stderr is not None
    said = []
    for line in demo.stderr:
        said.append(line)
        found = re.search(r"http://\S+token=[\w-]+", line)
        if found:
            return found[0]
    raise SystemExit(f"the demonstration ended before its page was there: {''.join(said)}")


def main(folder: Path) -> None:
    no_screen = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        command = [sys.executable, "-m", "minddiffuser.streaming.cli", "demo", "--record", f"{made}/session"]
        with subprocess.Popen(command, env=no_screen, stderr=subprocess.PIPE, text=True) as demo:
            metrics = {"width": 1600, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            address = address_of(demo)
            page = browser(f"{made}/profile")
            page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            page.get(address)
            WebDriverWait(page, 300).until(
                lambda _: len(page.find_elements("css selector", "#history li")) >= N_PICTURES
            )
            time.sleep(SECONDS)  # so that there is something to average
            for name, scheme, far in SHOTS:
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
                if far:
                    page.find_element("tag name", "body").send_keys("v")
                time.sleep(1.5)  # the traces are drawn ten times a second
                page.save_screenshot(str(folder / f"{name}.png"))
            page.quit()
            demo.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
