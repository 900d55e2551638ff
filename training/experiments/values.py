"""What a cell measured: one value per picture and column, as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import FileError
from ...runtime.files import check_format, read_json, write_json
from ...runtime.metrics.statistics import picture_means

Float64 = NDArray[np.float64]
VERSION = 1
_KIND = "experiment-cell"


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """The values of one cell of one subject.

    Attributes
    ----------
    pictures
        One id per picture, the same in all cells of a subject.
    columns
        Name -> (n_pictures,) float64. Of pictures "METRIC.KIND", KIND being a kind of picture of a run, such as
        "pixcorr.stage2"; "decoded.FEATURE" is how well a feature was decoded.
    chance
        What a column, or a metric of pictures, would be without information, for those where that is known.
    """

    pictures: tuple[str, ...]
    columns: Mapping[str, Float64]
    chance: Mapping[str, float] = field(default_factory=dict)


def by_picture(columns: Mapping[str, Sequence[float] | Float64], pictures: Sequence[str]) -> Values:
    """Values of trials as those of pictures: the mean of a picture's trials."""
    names = tuple(dict.fromkeys(pictures))
    made = {name: picture_means(np.asarray(values, np.float64), pictures) for name, values in columns.items()}
    return Values(pictures=names, columns=made)


def mean_of(several: Sequence[Values]) -> Values:
    """The mean over runs that differ in their seed alone, over the columns and pictures that all of them have."""
    first = several[0]
    pictures = [name for name in first.pictures if all(name in one.pictures for one in several)]
    columns = [name for name in first.columns if all(name in one.columns for one in several)]
    rows = [[one.pictures.index(name) for name in pictures] for one in several]
    made = {
        name: np.mean([one.columns[name][row] for one, row in zip(several, rows, strict=True)], axis=0)
        for name in columns
    }
    chance = {
        name: float(np.mean([one.chance[name] for one in several]))
        for name in first.chance
        if all(name in one.chance for one in several)
    }
    return Values(pictures=tuple(pictures), columns=made, chance=chance)


def write_values(path: Path, values: Values) -> None:
    """Write a cell's file."""
    write_json(
        path,
        {
            "format": f"minddiffuser-{_KIND}",
            "version": VERSION,
            "pictures": list(values.pictures),
            "columns": {name: array.tolist() for name, array in values.columns.items()},
            "chance": dict(values.chance),
        },
    )


def read_values(path: Path) -> Values:
    """Read a cell's file.

    Raises
    ------
    FileError
        It is damaged, or of another version.
    """
    content: dict[str, Any] = read_json(path, "a cell of the experiment")
    check_format(content, path, _KIND, VERSION)
    try:
        pictures = tuple(map(str, content["pictures"]))
        columns = {str(name): np.array(array, np.float64) for name, array in content["columns"].items()}
        chance = {str(name): float(value) for name, value in content["chance"].items()}
        good = all(array.shape == (len(pictures),) and np.isfinite(array).all() for array in columns.values())
    except (KeyError, TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise FileError(f"{path} is damaged: delete it, and run the same command again")
    return Values(pictures=pictures, columns=columns, chance=chance)
