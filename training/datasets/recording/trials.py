"""Which sample of a recording showed which picture: the table's rows brought together with the recording's markers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.event_table import code_of
from ....runtime.errors import InputError
from .source import NOWHERE, Recording
from .table import Row, Table

GAP, SPOILT, OUTSIDE = "in a gap of the recording", "in a part that is marked as bad", "outside the recording"
_NAMED = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """The trials of one recording, in the order of their samples.

    Attributes
    ----------
    samples
        (n,) int64, of the event in the recording.
    pictures
        (n,) int64, which of the table's pictures.
    dropped
        How many events are no trial, by reason.
    """

    samples: NDArray[np.int64]
    pictures: NDArray[np.int64]
    dropped: dict[str, int]


def trials_of(table: Table, recordings: Sequence[Recording], delay: float) -> tuple[list[Trials], list[str]]:
    """The trials of each recording, and sentences about what of the table or the recordings is not used.

    Parameters
    ----------
    table
        What was shown.
    recordings
        Those of the subject.
    delay
        Seconds from an event to the picture on the screen, added to each event.

    Raises
    ------
    InputError
        No row of the table belongs to any recording; the message has the events that were found.
    """
    if not math.isfinite(delay):
        raise InputError(f"the delay between an event and its picture is {delay} s: give --delay a number of seconds")
    found: list[Trials] = []
    used: set[int] = set()
    others: Counter[str] = Counter()
    for recording in recordings:
        rows = [row for row in table.rows if row.file is None or _is_file(row.file, recording)]
        pairs = _by_marks(rows, recording, used, others) if table.by == "event" else _by_times(rows, recording, used)
        found.append(_in_segments(pairs, recording, delay))
    n_trials = sum(len(trials.samples) for trials in found)
    if n_trials == 0:
        seen = Counter(text for recording in recordings for _sample, text in recording.marks)
        there = ", ".join(f"{text!r} ({count})" for text, count in seen.most_common(_NAMED)) or "none"
        raise InputError(
            f"no row of {table.path} belongs to a sample of the recordings: the {table.by} column has "
            f"{_example(table)!r}, and the markers there are {there}"
        )
    notes = []
    unused = [row for row in table.rows if row.line not in used]
    if unused:
        lines = ", ".join(str(row.line) for row in unused[:_NAMED])
        more = ", ..." if len(unused) > _NAMED else ""
        notes.append(f"{len(unused)} rows of {table.path.name} belong to no recorded event: lines {lines}{more}")
    if others:
        named = ", ".join(f"{text!r} ({count})" for text, count in others.most_common(_NAMED))
        more = ", ..." if len(others) > _NAMED else ""
        notes.append(f"markers that are not in {table.path.name}: {named}{more}")
    if table.n_without:
        notes.append(f"{table.n_without} rows of {table.path.name} name no picture")
    return found, notes


def _example(table: Table) -> object:
    return getattr(table.rows[0], table.by)


def _is_file(name: str, recording: Recording) -> bool:
    """Whether a table means this recording: by its name, with or without the ending, and the folders it gives."""
    *folders, last = PurePosixPath(name.replace("\\", "/")).parts or (name,)
    own = recording.path.absolute().parts
    return last in (recording.name, own[-1]) and tuple(folders) == own[len(own) - 1 - len(folders) : -1]


def _by_marks(rows: Sequence[Row], recording: Recording, used: set[int], others: Counter[str]) -> list[tuple[int, int]]:
    """(sample, picture) of each marker that a row names."""
    codes = {code_of(str(row.event)): row for row in rows if row.file is None}
    codes.update({code_of(str(row.event)): row for row in rows if row.file is not None})
    pairs = []
    for sample, text in recording.marks:
        row = codes.get(code_of(text))
        if row is None:
            others[text] += 1
        else:
            used.add(row.line)
            pairs.append((sample, row.picture))
    return pairs


def _by_times(rows: Sequence[Row], recording: Recording, used: set[int]) -> list[tuple[int, int]]:
    """(sample, picture) of each row."""
    used.update(row.line for row in rows)
    last = recording.segments[-1][1] if recording.segments else 0
    pairs = []
    for row in rows:
        if row.onset is not None:
            pairs.append((recording.at(row.onset), row.picture))
        elif row.sample is not None:
            pairs.append((row.sample if row.sample < last else NOWHERE, row.picture))
    return pairs


def _in_segments(pairs: Sequence[tuple[int, int]], recording: Recording, delay: float) -> Trials:
    """The pairs that lie in a stretch of the recording, in their order."""
    shift = round(delay * recording.sfreq)
    dropped: dict[str, int] = defaultdict(int)
    kept = []
    for sample, picture in sorted(pairs):
        place = sample + shift
        if sample == NOWHERE or not any(start <= place < stop for start, stop in recording.segments):
            dropped[GAP if len(recording.segments) > 1 else OUTSIDE] += 1
        else:
            kept.append((place, picture))
    array = np.array(kept, np.int64).reshape(-1, 2)
    return Trials(samples=array[:, 0], pictures=array[:, 1], dropped=dict(dropped))
