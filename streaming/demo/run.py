"""The demonstration: the shipped session on real LSL streams, decoded and drawn by the shipped bundle."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from ...runtime.backends.base import Options
from ...runtime.demo.quick import open_shipped
from ...runtime.demo.session import read_session
from ...runtime.demo.steps import usable_threads
from ...runtime.engines.here import why_no_provider
from ...runtime.errors import MissingExtra
from ...runtime.progress import unheard
from ..intake.settings import IntakeSettings
from ..lsl.play import PlayingProcess
from ..lsl.private import VARIABLE, write_private
from ..session.live import Ended
from ..session.run import Request, run_session
from .ending import EndingFeed
from .playing import played

# Asked for before any process is started, each of which would say in its own words what it lacks.
_NEEDED = ("pylsl", "mne", "pyxdf", "scipy", "starlette", "uvicorn", "websockets")
MODALITIES = ("eeg", "meg")
EVENTS = ("picture/*",)
# Two cores are enough; more would only draw faster than pictures are shown.
_THREADS = 2
# Threads that decode and draw yield to acquisition by this much.
_NICENESS = 5
# For somebody who receives, and for the streams to be there: this and another process are loading.
_PATIENCE = 600.0


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What a person may choose.

    Attributes
    ----------
    modality
        Of `MODALITIES`.
    deadline
        Seconds from an epoch's end to its picture.
    average
        Whether the growing mean over a picture's showings is decoded, instead of each showing.
    record
        A new folder for the session, or None.
    dashboard, port
        Whether there is a page, and where; port 0 is a free one.
    """

    modality: str = "eeg"
    deadline: float = 2.0
    average: bool = True
    record: Path | None = None
    dashboard: bool = True
    port: int = 0


def run_demo(demo: Demo, *, out: Callable[[str], None] = unheard, say: Callable[[str], None] = unheard) -> Ended:
    """Run the demonstration until its session is over.

    Parameters
    ----------
    demo
    out, say
        Receive lines of results, and lines about what happens.

    Raises
    ------
    MissingExtra
        ONNX Runtime, or what the extra `stream` brings, is not installed.
    FileError
        The shipped files are missing or damaged, or a folder cannot be written.
    """
    reason = why_no_provider("ort")
    if reason is not None:
        raise MissingExtra(f"the demonstration runs on ONNX Runtime: {reason}")
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"the demonstration needs {', '.join(missing)}: pip install 'minddiffuser[stream]'")
    with TemporaryDirectory(prefix="md-stream-demo-") as temporary, _own_lsl(Path(temporary)):
        folder = open_shipped(lambda: Path(temporary) / "shipped", say, demo.modality)
        session = read_session(folder / "session")
        seconds = session.data.shape[1] / session.sfreq
        say(
            f"a simulated {demo.modality.upper()} session of {seconds:.0f} s: {len(session.channels)} channels, "
            f"{len(session.markers)} markers; the pictures that were shown: {folder / 'session' / 'shown'}"
        )
        source_id = f"md-stream-demo-{uuid.uuid4()}"
        player = PlayingProcess(partial(played, folder / "session", source_id), wait=_PATIENCE)
        try:
            request = request_of(demo, folder / "bundle", source_id)
            n_markers = len(session.markers)
            return run_session(
                request,
                out=out,
                say=say,
                around=lambda feed: EndingFeed(feed, n_markers, before=player.wait_until_ready),
            )
        finally:
            player.stop()


def request_of(demo: Demo, bundle: Path, source_id: str) -> Request:
    """The demonstration as ``md-stream run`` would be asked for it."""
    return Request(
        bundle=bundle,
        source=f"lsl:id={source_id},markers={source_id}-markers",
        intake=IntakeSettings(events=EVENTS),
        timeout=_PATIENCE,
        options=Options(backend="ort", threads=usable_threads(_THREADS), share_threads=True),
        deadline=demo.deadline,
        average=demo.average,
        record=demo.record,
        dashboard=demo.dashboard,
        port=demo.port,
        niceness=_NICENESS,
    )


@contextmanager
def _own_lsl(folder: Path) -> Iterator[None]:
    """An LSL of this process's and its children's own, if none of them has loaded liblsl yet."""
    name = VARIABLE
    before = os.environ.get(name)
    os.environ[name] = str(write_private(folder))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
