"""Tables of events, as a laboratory writes them: CSV or TSV with a header, a row for each event or trial."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ..errors import FileError, InputError, shown
from .recognise import recognise

# What BIDS writes where there is no value.
_NOTHING = ("", "n/a")


def read_cells(path: Path, needed: Sequence[str], advice: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a table; columns are separated by tabs, semicolons or commas.

    Parameters
    ----------
    path
        UTF-8, with or without a mark of its order of bytes.
    needed
        Columns that it has to have.
    advice
        What to do where one is missing, as it follows "and picture is missing: ".

    Returns
    -------
    The columns' names in lower case; and of each row its line and, by column, the cells that say something.

    Raises
    ------
    FileError
        It is missing, is no table, or lacks a column.
    InputError
        A row has more cells than there are columns.
    """
    lines = _text(path).splitlines()
    head = lines[0] if lines else ""
    delimiter = next((sign for sign in "\t;" if sign in head), ",")
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise FileError(
            f"{path} is no table ({error}): is a quotation mark never closed? Save it as CSV again"
        ) from error
    names = [name.strip().lower() for name in rows[0]] if rows else []
    if len(set(names)) < len(names):
        raise FileError(f"{path} has the column {max(names, key=names.count)!r} twice: give each once")
    missing = [name for name in needed if name not in names]
    if missing:
        raise FileError(f"{path} has the columns {', '.join(names) or 'none'}, and {missing[0]} is missing: {advice}")
    found = []
    for line, row in enumerate(rows[1:], start=2):
        if any(cell.strip() for cell in row[len(names) :]):
            raise InputError(
                f"{path.name}, line {line}: there are {len(row)} cells for {len(names)} columns: put texts that "
                f"contain {shown(delimiter)} between quotation marks"
            )
        cells = {name: cell.strip() for name, cell in zip(names, row, strict=False)}
        cells = {name: cell for name, cell in cells.items() if cell.lower() not in _NOTHING}
        if cells:
            found.append((line, cells))
    return names, found


def code_of(text: str) -> str:
    """A marker's text without what differs between programs: runs of blanks, and "7.0" for 7."""
    plain = " ".join(text.split())
    try:
        number = float(plain)
    except ValueError:
        return plain
    return str(int(number)) if number.is_integer() else plain


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(f"{path} is {_kind(path)} and no UTF-8 text: save the table as CSV in UTF-8") from None
    except OSError as error:
        raise FileError(f"the table {path} cannot be read ({error.strerror}): check the path") from error


def _kind(path: Path) -> str:
    try:
        kind = recognise(path)
    except (OSError, ValueError):
        kind = None
    return "no kind of file that is known" if kind is None else kind.name
