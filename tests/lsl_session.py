"""An LSL of the test run's own: no stream of the machine or of another run is found, and none of ours by others.

liblsl reads its settings when it is first used, so that this is loaded before any test: by tests/conftest.py.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from minddiffuser.streaming.lsl.private import VARIABLE, write_private

# As often as by default a clock is asked before it is known, 8 times, but in a quarter of the time.
_SOON = "[tuning]\nTimeProbeInterval = 0.016\n"


def settings(folder: Path) -> dict[str, str]:
    """The environment of a process that has an LSL of its own, in which only such processes find each other."""
    path = write_private(folder)
    path.write_text(path.read_text(encoding="utf-8") + _SOON, encoding="utf-8")
    return {**os.environ, VARIABLE: str(path)}


_folder = tempfile.TemporaryDirectory(prefix="lsl")
os.environ[VARIABLE] = settings(Path(_folder.name))[VARIABLE]
