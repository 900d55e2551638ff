"""One record per finished batch, written last: whatever a kill left behind without its record is made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import check_format, read_json, sha256_of, write_json

JOURNAL_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished batch: its trials, the seconds of each phase, and the hash of each file by its path in the folder.

    `failed` are those of its trials of which a refinement broke off.
    """

    batch: int
    trials: tuple[int, ...]
    seconds: Mapping[str, float]
    files: Mapping[str, str]
    failed: tuple[int, ...] = ()


def write_record(
    run: Path,
    batch: int,
    trials: Sequence[int],
    seconds: Mapping[str, float],
    files: Sequence[str],
    failed: Sequence[int] = (),
) -> Record:
    """Record a batch whose files are all written and renamed."""
    record = Record(
        batch=batch,
        trials=tuple(trials),
        seconds=dict(seconds),
        files={name: sha256_of(run / name) for name in files},
        failed=tuple(failed),
    )
    content = {
        "format": "minddiffuser-journal",
        "version": JOURNAL_VERSION,
        "batch": batch,
        "trials": list(record.trials),
        "seconds": record.seconds,
        "files": record.files,
        "failed": list(record.failed),
    }
    write_json(_path(run, batch), content)
    return record


def finished(run: Path, batch: int, trials: Sequence[int]) -> Record | None:
    """The record of a batch, or None where it is not finished: no record, or a picture has gone or was changed.

    Raises
    ------
    FileError
        The record is damaged or of another version.
    """
    path = _path(run, batch)
    if not path.exists():
        return None
    content = read_json(path, "the journal's record")
    check_format(content, path, "journal", JOURNAL_VERSION)
    files: Any = content.get("files")
    if content.get("trials") != list(trials) or not isinstance(files, dict):
        return None
    if not all((run / name).is_file() and sha256_of(run / name) == digest for name, digest in files.items()):
        return None
    seconds = {str(name): float(value) for name, value in content.get("seconds", {}).items()}
    broken: Any = content.get("failed")
    failed = tuple(trial for trial in trials if trial in broken) if isinstance(broken, list) else ()
    return Record(batch=batch, trials=tuple(trials), seconds=seconds, files=files, failed=failed)


def _path(run: Path, batch: int) -> Path:
    return run / "journal" / f"{batch:06d}.json"
