"""What was found of a subject: files, trials by piece, what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.data.folder import DataFolder
from ...runtime.data.nan import numbers
from .reader import Reader

_PIECES_NAMED = 12


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ``md-train prepare`` prints, and keeps in the provenance as JSON.

    Attributes
    ----------
    data_set, subject, response_shape
        Of the data folder.
    files
        Each with path, size in bytes and what it is.
    pieces
        Name to how many trials were taken, and how many were left out, by reason.
    splits
        Name to pictures, recorded_trials, the fewest and most repetitions of a picture, and what was written.
    notes
        The reader's sentences.
    """

    data_set: str
    subject: str
    response_shape: tuple[int, ...]
    files: Sequence[Mapping[str, Any]]
    pieces: Mapping[str, tuple[int, Mapping[str, int]]]
    splits: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()

    @property
    def dropped(self) -> dict[str, int]:
        """How many trials were left out in all, by reason."""
        total: Counter[str] = Counter()
        for _n_trials, dropped in self.pieces.values():
            total.update(dropped)
        return dict(sorted(total.items()))

    def as_json(self) -> dict[str, Any]:
        """The report for the data folder's provenance."""
        return {
            "files": [dict(file) for file in self.files],
            "pieces": {name: {"trials": n, "dropped": dict(dropped)} for name, (n, dropped) in self.pieces.items()},
            "dropped": self.dropped,
            "splits": {split: dict(about) for split, about in self.splits.items()},
            "notes": list(self.notes),
        }

    def text(self, data: DataFolder) -> str:
        """The report for a person, some lines, about the data folder that was written."""
        size = sum(file["bytes"] for file in self.files)
        n_taken = sum(n for n, _dropped in self.pieces.values())
        lines = [
            f"{self.data_set}, {self.subject}: {data.layout.modality} {self.response_shape} in {len(self.files)} files "
            f"({size / 1e6:,.1f} MB)",
            f"{len(self.pieces)} pieces with {n_taken} trials",
        ]
        named = [f"  {name}: {n} trials{_left_out(dropped)}" for name, (n, dropped) in self.pieces.items()]
        lines += named[:_PIECES_NAMED]
        if len(named) > _PIECES_NAMED:
            lines.append(f"  and {len(named) - _PIECES_NAMED} more")
        if self.dropped:
            lines.append(f"left out: {_counts(self.dropped)}")
        for split, about in self.splits.items():
            fewest, most = about["repetitions"]
            shown = f"{fewest} to {most} times" if fewest < most else f"{most} times" if most > 1 else "once"
            lines.append(
                f"{split}: {about['pictures']} pictures, each shown {shown}; {len(data.stimulus(split))} trials "
                f"written ({about['written']})"
            )
        constant = data.constant_places
        if len(constant):
            lines.append(f"never changing over the training trials: {numbers(data.layout.axis, constant)}")
        return "\n".join([*lines, *self.notes])


def files_of(reader: Reader) -> list[dict[str, Any]]:
    """Path, size and role of each file of a reader."""
    return [{"path": str(path), "bytes": _size(path), "what": what} for path, what in reader.files.items()]


def _size(path: Path) -> int:
    return path.stat().st_size


def _left_out(dropped: Mapping[str, int]) -> str:
    return f", left out: {_counts(dropped)}" if dropped else ""


def _counts(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} ({reason})" for reason, count in dropped.items())
