"""The table that says what the subject saw: one row per event code or per trial, read from CSV or TSV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ....runtime.data.event_table import code_of, read_cells
from ....runtime.data.schema import SPLITS
from ....runtime.errors import FileError, InputError, shown
from ..reader import Place, Shown

WHEN = ("event", "onset", "sample")
COLUMNS = (*WHEN, "file", "picture", "index", "dataset", "caption", "concept", "split")
_SEVERAL = "|"
# The sentence of the concept route of the context, for pictures that have a concept and no caption.
_CAPTION = "a picture of a {}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """When a picture was shown.

    Attributes
    ----------
    line
        In the file, for messages.
    file
        The recording's name, or None for all recordings.
    event
        The marker that stood for it; or one of the two below.
    onset
        Seconds from the recording's start.
    sample
        Samples from the recording's start.
    picture
        Which of the table's pictures.
    """

    line: int
    file: str | None
    event: str | None
    onset: float | None
    sample: int | None
    picture: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """What a table says: its rows, all pictures in the order in which they are first named, and rows without one."""

    path: Path
    by: str
    rows: Sequence[Row]
    pictures: Sequence[Shown]
    n_without: int

    @property
    def files(self) -> list[str]:
        """The recordings that it names, each once."""
        return list(dict.fromkeys(row.file for row in self.rows if row.file is not None))


def find_table(source: Path) -> Path:
    """The table beside the recordings: the only .csv or .tsv file of the folder, or its events.csv or events.tsv.

    Raises
    ------
    FileError
        There is none, or there are several.
    """
    folder = source if source.is_dir() else source.parent
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".csv", ".tsv") and path.is_file())
    named = [path for path in found if path.stem.lower() == "events"]
    if len(named) == 1 or len(found) == 1:
        return (named or found)[0]
    several = f"{len(found)} tables ({', '.join(path.name for path in found[:4])})" if found else "no .csv or .tsv file"
    raise FileError(f"{folder} holds {several}: give the table of events and pictures with --table")


def read_table(path: Path, pictures: Path | None = None) -> Table:
    """Read a table of events and pictures.

    Parameters
    ----------
    path
        With a header; columns are separated by tabs, semicolons or commas. Other columns than those of `COLUMNS` are
        passed over, and rows without a picture are no trials.
    pictures
        The folder below which the pictures lie; None for the table's own.

    Raises
    ------
    FileError
        It is missing, is no table, or lacks a column.
    InputError
        A row contradicts another one, or names what does not exist; the message names the line.
    """
    columns, rows = read_cells(
        path, ("picture", "split"), f"give picture, split, one of {', '.join(WHEN)}, and caption or concept"
    )
    by = _when(path, columns)
    root = (path.parent if pictures is None else pictures).resolve()
    places: dict[Place, int] = {}
    shown_pictures: list[Shown] = []
    first: list[int] = []
    found: list[Row] = []
    n_without = 0
    for line, cells in rows:
        if "picture" not in cells:
            n_without += 1
            continue
        where = f"{path.name}, line {line}"
        place = _place(cells, root, where)
        picture = _picture(cells, place, where)
        number = places.setdefault(place, len(places))
        if number == len(shown_pictures):
            _check_exists(place, where)
            shown_pictures.append(picture)
            first.append(line)
        else:
            both = f"{path.name}, lines {first[number]} and {line}"
            shown_pictures[number] = _joined(shown_pictures[number], picture, place, both)
        found.append(_row(cells, by, line, number, where))
    if not found:
        raise FileError(f"{path} names no picture: give one per event, in the column picture")
    _check_concepts(shown_pictures, first, path)
    _check_codes(found, path)
    return Table(path=path, by=by, rows=found, pictures=shown_pictures, n_without=n_without)


def _when(path: Path, columns: Sequence[str]) -> str:
    given = [name for name in WHEN if name in columns]
    if len(given) != 1:
        what = "none of" if not given else "the columns " + " and ".join(given) + ", and needs one of"
        raise FileError(
            f"{path} has {what} event (a marker's text or a trigger's number), onset (seconds from the recording's "
            "start) and sample: give one of them"
        )
    return given[0]


def _place(cells: Mapping[str, str], root: Path, where: str) -> Place:
    index = cells.get("index")
    if index is not None and not index.isdecimal():
        raise InputError(f"{where}: index is {shown(index)}: give which picture of the array file, from 0")
    number = None if index is None else int(index)
    return Place(root=root, path=_below(cells["picture"], root, where), index=number, dataset=cells.get("dataset"))


def _picture(cells: Mapping[str, str], place: Place, where: str) -> Shown:
    split = cells.get("split", "")
    if split not in SPLITS:
        raise InputError(f"{where}: split is {shown(split)}: give train or test")
    captions = tuple(text.strip() for text in cells.get("caption", "").split(_SEVERAL) if text.strip())
    concept = cells.get("concept")
    if not captions and concept is None and split == "train":
        raise InputError(f"{where}: a training picture has neither caption nor concept: say what it shows")
    named = () if concept is None else (_CAPTION.format(concept),)
    return Shown(split=split, source=place, captions=captions or named, concept=concept)


def _below(picture: str, root: Path, where: str) -> str:
    """The path from the root, with / between names."""
    given = PurePosixPath(picture.replace("\\", "/"))
    if given.is_absolute() or Path(picture).is_absolute():
        try:
            return Path(picture).resolve().relative_to(root).as_posix()
        except ValueError:
            raise InputError(
                f"{where}: the picture {shown(picture)} does not lie below {root}: give the folder of the pictures "
                "with --pictures"
            ) from None
    return given.as_posix()


def _check_exists(place: Place, where: str) -> None:
    if not (place.root / place.path).is_file():
        raise InputError(
            f"{where}: the picture {place.root / place.path} does not exist: correct the path, or give the folder of "
            "the pictures with --pictures"
        )


def _joined(one: Shown, other: Shown, place: Place, where: str) -> Shown:
    """A picture that stands in two rows."""
    for what in ("split", "concept"):
        a, b = getattr(one, what), getattr(other, what)
        if a != b:
            raise InputError(f"{where}: the {what} of {shown(place.path)} is {shown(a)} and {shown(b)}: give one")
    return replace(one, captions=tuple(dict.fromkeys([*one.captions, *other.captions])))


def _check_concepts(pictures: Sequence[Shown], lines: Sequence[int], path: Path) -> None:
    given = [picture.concept is not None for picture in pictures]
    if any(given) and not all(given):
        raise InputError(
            f"{path.name}, line {lines[given.index(False)]}: the picture has no concept, and others have one: give one "
            "for each picture, or none"
        )


def _row(cells: Mapping[str, str], by: str, line: int, picture: int, where: str) -> Row:
    value = cells.get(by)
    if value is None:
        raise InputError(f"{where}: {by} is empty: say when the picture was shown")
    onset = sample = None
    if by == "onset":
        try:
            onset = float(value.replace(",", "."))
        except ValueError:
            onset = math.nan
        if not math.isfinite(onset):
            raise InputError(f"{where}: onset is {shown(value)}: give seconds from the recording's start")
    if by == "sample":
        if not value.isdecimal():
            raise InputError(f"{where}: sample is {shown(value)}: give a whole number from 0")
        sample = int(value)
    event = value if by == "event" else None
    return Row(line=line, file=cells.get("file"), event=event, onset=onset, sample=sample, picture=picture)


def _check_codes(rows: Sequence[Row], path: Path) -> None:
    """Refuse one event code for two pictures."""
    seen: dict[tuple[str | None, str], Row] = {}
    for row in rows:
        before = row if row.event is None else seen.setdefault((row.file, code_of(row.event)), row)
        if before.picture != row.picture:
            raise InputError(
                f"{path.name}, lines {before.line} and {row.line}: the event {shown(row.event)} stands for two "
                "pictures: give each picture an event of its own, or the onset of each trial"
            )
