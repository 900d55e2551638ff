"""An LSL of the test run's own: no stream of the machine or of another run is found, and none of ours by others.

liblsl reads its settings when it is first used, so that this is loaded before any test: by tests/conftest.py.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from minddiffuser.streaming.lsl.private import VARIABLE, write_private


def settings(folder: Path) -> dict[str, str]:
    """The environment of a process that has an LSL of its own, in which only such processes find each other."""
    return {**os.environ, VARIABLE: str(write_private(folder))}


_folder = tempfile.TemporaryDirectory(prefix="lsl")
os.environ[VARIABLE] = settings(Path(_folder.name))[VARIABLE]
