"""A run folder as sets of pictures: each kind that is in it, and its own stimuli."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..files import read_json
from ..images import list_pictures
from ..metrics.sources import PictureFile
from ..run.identity import SETTINGS, require_run_folder
from ..run.measure import KINDS
from .pictures import Item, Pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What there is in a run folder.

    Attributes
    ----------
    folder
        The run folder.
    kinds
        "stage1", "stage2" and its controls -> pictures by their trials' numbers.
    stimuli
        Its own; None where it was not known what was shown.
    ids
        Number of a trial, as its files are called -> its id, where it has one of its own.
    seed
        Of the run, and of the intervals in its summary; None where it does not say.
    models, clip
        The names of its models, as they were given; None where it does not say.
    """

    folder: Path
    kinds: Mapping[str, Pictures]
    stimuli: Pictures | None
    ids: Mapping[str, str]
    seed: int | None
    models: str | None
    clip: str | None

    def by_ids(self, pictures: Pictures) -> Pictures | None:
        """The same pictures named by their trials' ids; None where these are no others."""
        if not self.ids or not all(item.name in self.ids for item in pictures.items):
            return None
        items = tuple(Item(self.ids[item.name], item.sources) for item in pictures.items)
        return Pictures(where=pictures.where, items=items)


def is_run(path: Path) -> bool:
    """Whether a path is that of a run folder."""
    return (path / SETTINGS).is_file() and (path / "images").is_dir()


def open_run(folder: Path) -> Run:
    """Open a run folder, finished or not.

    Raises
    ------
    FileError
        It is damaged, or has no picture yet.
    """
    require_run_folder(folder)
    settings = read_json(folder / SETTINGS, "the run's settings")
    places = {path.name: path for path in (folder / "images").iterdir() if path.is_dir() and any(path.glob("*.png"))}
    if not places:
        raise FileError(f"the run {folder} has no picture yet: run the same md-reconstruct run again to the end")
    order = [*(kind for kind in KINDS if kind in places), *sorted(places.keys() - set(KINDS))]
    stimuli = folder / "stimuli"
    given = _inside(settings, "given")
    seed = _inside(_inside(settings, "settings"), "refine").get("seed")
    return Run(
        folder=folder,
        kinds={kind: _of_folder(places[kind]) for kind in order},
        stimuli=_of_folder(stimuli) if stimuli.is_dir() and any(stimuli.glob("*.png")) else None,
        ids=_ids(folder / "trials.json"),
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else None,
        models=_text(given.get("models")),
        clip=_text(given.get("clip")),
    )


def _of_folder(folder: Path) -> Pictures:
    items = tuple(Item(path.stem, (PictureFile(path),)) for path in list_pictures(folder))
    return Pictures(where=str(folder), items=items)


def _inside(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _ids(path: Path) -> dict[str, str]:
    """Of each trial that has an id, by its number; a run that is not finished has none yet."""
    try:
        rows = json.loads(path.read_bytes())
        return {f"{row['trial']:06d}": str(row["id"]) for row in rows if "id" in row}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
