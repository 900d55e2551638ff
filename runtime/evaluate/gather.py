"""Everything that is to be scored: folders opened, pictures matched with stimuli, and all of them looked at once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import FileError, InputError
from ..metrics.sources import Source
from .match import Match, listed, match
from .pictures import Item, Pictures, open_pictures
from .runs import Run, is_run, open_run

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One line of the tables: the pictures of one method.

    Attributes
    ----------
    name
        Unlike every other row's.
    where
        The folder or file.
    entries
        Index of a stimulus, and a picture of it; ascending by stimulus, each of which has one or several.
    """

    name: str
    where: str
    entries: tuple[tuple[int, Source], ...]

    @property
    def samples(self) -> tuple[int, int]:
        """The fewest and the most pictures of a stimulus."""
        counts = Counter(stimulus for stimulus, _ in self.entries).values()
        return min(counts), max(counts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """What is scored.

    Attributes
    ----------
    where
        The stimuli's folder or file.
    stimuli
        Those of which every row has a picture, one source each.
    ids
        Of each stimulus, the same for those of equal pixels.
    rows, runs
        The rows, and the run folders among what was given.
    left_out
        What was left out, folder by folder.
    notes
        Sentences on how it was read and matched.
    """

    where: str
    stimuli: tuple[Item, ...]
    ids: tuple[str, ...]
    rows: tuple[Row, ...]
    runs: tuple[Run, ...]
    left_out: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


def gather(
    paths: Sequence[Path],
    stimuli: Path | None,
    stack: ExitStack,
    *,
    by_order: bool = False,
    allow_missing: bool = False,
    on_progress: OnProgress | None = None,
) -> Gathered:
    """Open folders, match their pictures with the stimuli, and read every picture once.

    Parameters
    ----------
    paths
        Run folders, folders of pictures and array files.
    stimuli
        A folder of pictures or an array file; None: the runs' own, which must be the same.
    stack
        Closes what is opened.
    by_order, allow_missing
        Whether names are not looked at; and whether what has no counterpart, or cannot be read, is left out.
    on_progress
        Called with the number of pictures that were read, and of all.

    Raises
    ------
    MindDiffuserError
        Anything that cannot be opened, matched or read; see :func:`.pictures.open_pictures` and :func:`.match.match`.
    """
    runs = {path: open_run(path) for path in paths if is_run(path)}
    shown = _stimuli(runs, paths, stimuli, stack)
    given: list[tuple[str, Pictures, Run | None]] = []
    for path in paths:
        if path in runs:
            given += [(f"{_name(path)} {kind}", made, runs[path]) for kind, made in runs[path].kinds.items()]
        else:
            given.append((_name(path), open_pictures(path, stack), None))
    own = stimuli is None
    matches = [_matched(shown, pictures, None if own else run, by_order=by_order) for _, pictures, run in given]
    everything = [pictures for _, pictures, _ in given]
    if not allow_missing:
        _refuse_missing(shown, everything, matches)
    left_out = _left_out(shown, everything, matches)
    common = sorted(set.intersection(*(set(found.of_stimulus) for found in matches)))
    if not common:
        raise InputError("there is no stimulus of which all of what was given has a picture: score the folders singly")
    notes = [note for pictures in (shown, *everything) for note in pictures.notes]
    notes += [found.note for found in matches if found.note]
    names = _unlike([name for name, _, _ in given], everything)
    rows = [
        Row(
            name=name,
            where=pictures.where,
            entries=tuple(
                (place, source)
                for place, stimulus in enumerate(common)
                for item in found.of_stimulus[stimulus]
                for source in pictures.items[item].sources
            ),
        )
        for name, pictures, found in zip(names, everything, matches, strict=True)
    ]
    items = [shown.items[stimulus] for stimulus in common]
    gathered = Gathered(
        where=shown.where,
        stimuli=tuple(items),
        ids=(),
        rows=tuple(rows),
        runs=tuple(runs.values()),
        left_out=left_out,
        notes=tuple(dict.fromkeys(notes)),
    )
    return _looked_at(gathered, allow_missing=allow_missing, on_progress=on_progress)


def _stimuli(runs: dict[Path, Run], paths: Sequence[Path], stimuli: Path | None, stack: ExitStack) -> Pictures:
    if stimuli is not None:
        if is_run(stimuli):
            stimuli = stimuli / "stimuli"
        return open_pictures(stimuli, stack)
    if not runs:
        raise InputError(f"{paths[0]} is not a run folder, which has its own stimuli: give --stimuli")
    first = next(iter(runs.values()))
    for run in runs.values():
        if run.stimuli is None or first.stimuli is None:
            raise InputError(f"the run {run.folder} was made without stimuli: give --stimuli")
        if run is not first and _content(run.stimuli) != _content(first.stimuli):
            raise InputError(
                f"the runs {first.folder} and {run.folder} have other stimuli: score them one by one, or give --stimuli"
            )
    assert first.stimuli is not None
    return first.stimuli


def _content(pictures: Pictures) -> list[tuple[str, str]]:
    return [(item.name, source.digest()) for item in pictures.items for source in item.sources]


def _name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _unlike(names: Sequence[str], pictures: Sequence[Pictures]) -> list[str]:
    """The names, or the whole paths where two names are one; and numbers where these are too."""
    count = Counter(names)
    found = [name if count[name] == 1 else of.where for name, of in zip(names, pictures, strict=True)]
    seen: Counter[str] = Counter()
    for place, name in enumerate(found):
        seen[name] += 1
        if seen[name] > 1:
            found[place] = f"{name} ({seen[name]})"
    return found


def _matched(shown: Pictures, pictures: Pictures, run: Run | None, *, by_order: bool) -> Match:
    """By the trials' ids where a run has them and they say more than the trials' numbers."""
    by_ids = None if run is None or by_order else run.by_ids(pictures)
    if by_ids is None:
        return match(shown, pictures, by_order=by_order)
    try:
        found = match(shown, by_ids)
    except InputError:
        return match(shown, pictures)
    if found.complete:
        return found
    try:
        other = match(shown, pictures)
    except InputError:
        return found
    return other if other.n_matched > found.n_matched else found


def _refuse_missing(shown: Pictures, everything: Sequence[Pictures], matches: Sequence[Match]) -> None:
    for pictures, found in zip(everything, matches, strict=True):
        parts = []
        if found.left_stimuli:
            parts.append(
                f"{len(found.left_stimuli)} of {len(shown.items)} stimuli have no picture in {pictures.where} "
                f"({listed(found.left_stimuli)})"
            )
        if found.left_pictures:
            parts.append(
                f"{len(found.left_pictures)} of {len(pictures.items)} pictures in {pictures.where} have no "
                f"stimulus in {shown.where} ({listed(found.left_pictures)})"
            )
        if parts:
            raise InputError(f"{' and '.join(parts)}: add or rename them, or give --allow-missing to leave them out")


def _left_out(shown: Pictures, everything: Sequence[Pictures], matches: Sequence[Match]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "pictures": pictures.where,
            "stimuli_without_picture": list(found.left_stimuli),
            "pictures_without_stimulus": list(found.left_pictures),
        }
        for pictures, found in zip(everything, matches, strict=True)
        if not found.complete
    )


def _looked_at(gathered: Gathered, *, allow_missing: bool, on_progress: OnProgress | None) -> Gathered:
    """Read everything once: what is damaged is found before anything is computed, and equal stimuli are known."""
    total = len(gathered.stimuli) + sum(len(row.entries) for row in gathered.rows)
    done, damaged = 0, {}
    ids: list[str] = []

    def look(source: Source) -> str:
        nonlocal done
        content = ""
        try:
            image = source.image()
            content = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
        except FileError as error:
            if not allow_missing:
                raise FileError(f"{error}; or give --allow-missing to leave it out") from error
            damaged[source] = str(error)
        done += 1
        if on_progress is not None:
            on_progress(done, total)
        return content

    ids = [look(item.sources[0]) for item in gathered.stimuli]
    for row in gathered.rows:
        for _, source in row.entries:
            look(source)
    return replace(gathered, ids=tuple(ids)) if not damaged else _without(replace(gathered, ids=tuple(ids)), damaged)


def _without(gathered: Gathered, damaged: dict[Source, str]) -> Gathered:
    """Without what cannot be read, and without stimuli of which some row then has no picture."""
    rows = [[(s, source) for s, source in row.entries if source not in damaged] for row in gathered.rows]
    good = {place for place, item in enumerate(gathered.stimuli) if item.sources[0] not in damaged}
    keep = sorted(good.intersection(*({stimulus for stimulus, _ in entries} for entries in rows)))
    if not keep:
        raise FileError(f"nothing is left to score: {next(iter(damaged.values()))}")
    new = {place: index for index, place in enumerate(keep)}
    return replace(
        gathered,
        stimuli=tuple(gathered.stimuli[place] for place in keep),
        ids=tuple(gathered.ids[place] for place in keep),
        rows=tuple(
            replace(row, entries=tuple((new[s], source) for s, source in entries if s in new))
            for row, entries in zip(gathered.rows, rows, strict=True)
        ),
        left_out=(*gathered.left_out, {"unreadable": list(damaged.values())}),
        notes=(*gathered.notes, *(f"left out: {reason}" for reason in damaged.values())),
    )
