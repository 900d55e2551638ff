"""One record per finished batch, written last: whatever a kill left behind without its record is made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..files import check_format, read_json, sha256_of, write_json

JOURNAL_VERSION = 2
_SEAL = "seal"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished batch: its trials, the seconds of each phase, and the hash of each file by its path in the folder.

    `failed` are those of its trials of which a refinement broke off; `lost` those that have no picture, and why.
    """

    batch: int
    trials: tuple[int, ...]
    seconds: Mapping[str, float]
    files: Mapping[str, str]
    failed: tuple[int, ...] = ()
    lost: Mapping[int, str] = field(default_factory=dict)


def write_record(
    run: Path,
    batch: int,
    trials: Sequence[int],
    seconds: Mapping[str, float],
    files: Sequence[str],
    failed: Collection[int] = (),
    lost: Mapping[int, str] | None = None,
) -> Record:
    """Record a batch whose files are all written and renamed."""
    record = Record(
        batch=batch,
        trials=tuple(trials),
        seconds=dict(seconds),
        files={name: sha256_of(run / name) for name in files},
        failed=tuple(sorted(failed)),
        lost=dict(lost or {}),
    )
    content = {
        "format": "minddiffuser-journal",
        "version": JOURNAL_VERSION,
        "batch": batch,
        "trials": list(record.trials),
        "seconds": record.seconds,
        "files": record.files,
        "failed": list(record.failed),
        "lost": {str(trial): reason for trial, reason in record.lost.items()},
    }
    write_json(_path(run, batch), {**content, _SEAL: _seal(content)})
    return record


def finished(run: Path, batch: int, trials: Sequence[int]) -> Record | None:
    """The record of a batch, or None where it is to be made (again).

    That is so where there is no record, where the record is damaged, was edited or is of an older release, and where a
    picture has gone or was changed: making a batch again gives the same pictures.

    Raises
    ------
    FileError
        A newer release wrote the record.
    """
    path = _path(run, batch)
    if not path.exists():
        return None
    try:
        content = read_json(path, "the journal's record")
    except FileError:
        return None
    version = content.get("version")
    if isinstance(version, int) and version > JOURNAL_VERSION:
        check_format(content, path, "journal", JOURNAL_VERSION)
    seal = content.pop(_SEAL, None)
    # A record with its seal is what write_record wrote: no field needs a second look.
    if seal != _seal(content) or (content["batch"], content["trials"]) != (batch, list(trials)):
        return None
    files: dict[str, str] = content["files"]
    if not all((run / name).is_file() and sha256_of(run / name) == digest for name, digest in files.items()):
        return None
    return Record(
        batch=batch,
        trials=tuple(trials),
        seconds=content["seconds"],
        files=files,
        failed=tuple(content["failed"]),
        lost={int(trial): reason for trial, reason in content["lost"].items()},
    )


def _seal(content: Mapping[str, Any]) -> str:
    """A hash over a record, by which an edit of any field is found."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _path(run: Path, batch: int) -> Path:
    return run / "journal" / f"{batch:06d}.json"
