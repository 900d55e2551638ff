"""What lies in a session's folder, and what its files say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runtime.files import write_json

SESSION_FILE, SIGNAL_FILE, LEDGER_FILE, RESULTS_FILE, PICTURES = (
    "session.json", "signal.xdf", "ledger.jsonl", "results.jsonl", "pictures",
)  # fmt: skip
KIND, VERSION = "session", 1
RECORDING, FINISHED, REPAIRED = "recording", "finished", "repaired"


def signal_lock(folder: Path) -> Path:
    """What the recorder of a session holds, which may outlive the session by a moment when that is killed."""
    return folder / ".signal.lock"


def write_session(path: Path, about: Mapping[str, Any]) -> None:
    """Write session.json, for its owner alone."""
    draft = path / SESSION_FILE
    write_json(draft, about)
    draft.chmod(0o600)
