"""An LSL of its own on this machine: nobody on the network sees its streams, and they are found without a network.

liblsl reads its settings once, when it is first used, from the file that the environment variable `VARIABLE` names.
"""

from __future__ import annotations

import uuid
from pathlib import Path

VARIABLE = "LSLAPICFG"
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


def write_private(folder: Path) -> Path:
    """Write settings into `folder` that no other processes have; those that share the file find each other."""
    path = folder / "lsl_api.cfg"
    path.write_text(_SETTINGS.format(session=uuid.uuid4()), encoding="utf-8")
    return path
