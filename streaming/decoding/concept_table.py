"""Which concept a marker is of, where it does not name it: a person's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...runtime.data.concepts import alike
from ...runtime.data.event_table import code_of, read_cells
from ...runtime.errors import FileError, InputError, shown


def read_concepts_of(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Which candidate each marker is of, by a table with the columns event and concept, as md-train prepare takes it.

    Parameters
    ----------
    path
        CSV or TSV; other columns are passed over, and so are concepts that are no candidate.
    names
        Of the candidates.

    Returns
    -------
    Candidates by the markers' texts, as :func:`~...runtime.data.event_table.code_of` writes them.

    Raises
    ------
    FileError, InputError
        It is missing or no table, says two things of one event, or has none of the candidates.
    """
    _, rows = read_cells(path, ("event", "concept"), "give which concept each marker is of, in event and concept")
    place = {alike(name): name for name in reversed(names)}
    found: dict[str, str] = {}
    for line, cells in rows:
        if "event" not in cells or "concept" not in cells:
            continue
        code, concept = code_of(cells["event"]), cells["concept"]
        if alike(found.setdefault(code, concept)) != alike(concept):
            raise InputError(
                f"{path.name}, line {line}: the event {shown(cells['event'])} is of {shown(concept)} here and of "
                f"{shown(found[code])} before: give one of the two"
            )
    known = {code: place[alike(concept)] for code, concept in found.items() if alike(concept) in place}
    if not known:
        raise FileError(
            f"{path} names no event of one of the decoder's {len(names)} concepts ({', '.join(names[:3])}, …): give "
            "these, in the column concept"
        )
    return known
