"""An LSL of the test run's own: no stream of the machine or of another run is found, and none of ours by others.

liblsl reads its settings when it is first used, so that this is loaded before any test: by tests/conftest.py.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path

_SETTINGS = """[ports]
IPv6 = disable
[multicast]
ResolveScope = machine
[lab]
KnownPeers = {{127.0.0.1}}
SessionID = {session}
[log]
level = -3
"""


def settings(folder: Path) -> dict[str, str]:
    """The environment of a process that has an LSL of its own, in which only such processes find each other."""
    path = folder / "lsl_api.cfg"
    path.write_text(_SETTINGS.format(session=uuid.uuid4()))
    return {**os.environ, "LSLAPICFG": str(path)}


_folder = tempfile.TemporaryDirectory(prefix="lsl")
os.environ["LSLAPICFG"] = settings(Path(_folder.name))["LSLAPICFG"]
