"""Screenshots of the dashboard for the documents: ``python tests/dashboard_screenshots.py docs/images``.

The session is made up (dashboard_story.py, with faults on purpose); its pictures grew in the demonstration that ships
with the package. Needs Chromium and its driver, and half a minute on two cores.
"""

import json
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from dashboard_story import opening, story
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from minddiffuser.runtime.images import png_bytes
from minddiffuser.runtime.notebook import demo
from minddiffuser.streaming.dashboard.hub import Hub
from minddiffuser.streaming.dashboard.messages import Stream
from minddiffuser.streaming.dashboard.server import DashboardServer

N_FRAMES = 10
SECONDS = 20.0  # a gap lies 5 s back, and a picture grows
SHOTS = (
    ("dashboard_light", "light", False),
    ("dashboard_dark", "dark", False),
    ("dashboard_far", "dark", True),
)


def grown() -> list[tuple[str, list[bytes]]]:
    """What was shown in each trial, and stage 1 and the frames of stage 2 as PNG files."""
    frames: dict[int, list[np.ndarray]] = {}

    def keep(phase: str, trials: list[int], pictures: np.ndarray) -> None:
        for trial, picture in zip(trials, pictures, strict=True):
            frames.setdefault(trial, []).append(picture.copy())

    with tempfile.TemporaryDirectory() as run:
        done = demo().reconstruct(out=Path(run) / "run", on_frame=keep, candidates=1)
        about = json.loads((Path(run) / "run" / "trials.json").read_text())
    names = {trial["trial"]: trial["concept"]["decoded"] for trial in about}
    trials = []
    for number, stage1, final in zip(done.trials, done.pictures["stage1"], done.final, strict=True):
        steps = np.linspace(0, len(frames[number]) - 1, N_FRAMES - 2).round().astype(int)
        shown = (stage1, *(frames[number][k] for k in steps), final)
        trials.append((names[number], [png_bytes(one) for one in shown]))
    return trials


def browser(profile: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))


def main(folder: Path) -> None:
    hub, over = Hub(), threading.Event()
    stream = next(message for message in opening() if isinstance(message, Stream))
    for _, message in story(SECONDS, pictures=grown()):
        hub.publish(message)
        stream = message if isinstance(message, Stream) else stream

    def go_on() -> None:
        while not over.wait(0.3):
            hub.publish(stream)

    threading.Thread(target=go_on, daemon=True).start()
    with tempfile.TemporaryDirectory() as profile, DashboardServer(hub) as server:
        page = browser(profile)
        metrics = {"width": 1600, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        page.get(server.address())
        WebDriverWait(page, 60).until(lambda _: len(page.find_elements("css selector", "#history li")) > 3)
        for name, scheme, far in SHOTS:
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            if far:
                page.find_element("tag name", "body").send_keys("v")
            threading.Event().wait(1.5)  # the traces are drawn ten times a second
            page.save_screenshot(str(folder / f"{name}.png"))
        page.quit()
        over.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
