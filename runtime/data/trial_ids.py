"""Trials by name: each has an id, a text that stays with it when trials are left out, reordered or moved.

A trial's noise, and with it its picture, depends on its id and not on its row; see
:mod:`~minddiffuser.runtime.generators.noise`. The subject's name has no part in it, so that two subjects who saw the
same pictures start from the same noise.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import FileError
from ..files import hash_of_json, read_json

TRIAL_IDS = "trial_ids.json"
MEAN = "mean"
"""What stands in the place of the repetition where a trial averages several showings."""
_LONGEST = 200


def default_trial_ids(split: str, stimulus: NDArray[Any], *, averages: bool = False) -> tuple[str, ...]:
    """``split/stimulus/repetition`` for each trial: "test/12/0" is the first trial of the test split's picture 12.

    Parameters
    ----------
    stimulus : (n_trials,) int
        The picture that each trial showed.
    averages
        Whether each trial averages all showings of its picture: "test/12/mean". Further trials of the same picture are
        "test/12/mean-1" and so on.
    """
    shown: Counter[int] = Counter()
    ids = []
    for index in map(int, stimulus):
        repetition = str(shown[index])
        if averages:
            repetition = MEAN if repetition == "0" else f"{MEAN}-{repetition}"
        ids.append(f"{split}/{index}/{repetition}")
        shown[index] += 1
    return tuple(ids)


def row_ids(n_trials: int) -> tuple[str, ...]:
    """The ids of trials that have none: their rows."""
    return tuple(map(str, range(n_trials)))


def check_trial_ids(ids: object, n_trials: int, where: str) -> tuple[str, ...]:
    """Refuse ids that are not one text for each trial, all different.

    Parameters
    ----------
    ids
        What was given or read.
    where
        For the message.

    Raises
    ------
    FileError
        They are not; the message names the first fault.
    """
    if not isinstance(ids, list | tuple):
        raise FileError(f"the trial ids in {where} are {ids!r:.60}: give a list with one text per trial")
    if len(ids) != n_trials:
        raise FileError(f"{where} has {len(ids)} trial ids and there are {n_trials} trials: give one id per trial")
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        # Printable: no line breaks, nor halves of characters, which UTF-8 cannot hold.
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST or not name.isprintable() or name != name.strip():
            raise FileError(
                f"the id of trial {row} in {where} is {name!r:.60}: give a text of 1 to {_LONGEST} printable "
                "characters, without space at its ends"
            )
        if name in first:
            raise FileError(
                f"the trial id {name!r} in {where} occurs at trials {first[name]} and {row}: ids are unique, give "
                "repetitions of a picture different ones"
            )
        first[name] = row
    return tuple(ids)


def read_trial_ids(path: Path, n_trials: int) -> tuple[str, ...]:
    """Read a person's list of ids in the trials' order: one per line, or in a .json file a list of texts.

    Raises
    ------
    FileError
        The file is missing, is no text, or does not hold one id for each trial, all different.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"the trial ids {path} are not UTF-8 text ({error.reason}): save them as UTF-8") from error
    except OSError as error:
        raise FileError(
            f"the trial ids {path} cannot be read ({error.strerror}): give a file with one id per line"
        ) from error
    if path.suffix.lower() != ".json":
        return check_trial_ids(text.rstrip().splitlines(), n_trials, str(path))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"the trial ids {path} are not JSON ({error}): give a list of texts") from error
    return check_trial_ids(content, n_trials, str(path))


def folder_trial_ids(folder: Path, split: str, stimulus: NDArray[Any]) -> tuple[str, ...]:
    """The ids of a data folder's split, from its trial_ids.json; those of :func:`default_trial_ids` without it.

    Raises
    ------
    FileError
        The file does not hold one id for each trial, all different.
    """
    path = folder / TRIAL_IDS
    if not path.exists():
        return default_trial_ids(split, stimulus)
    content = read_json(path, "the data folder's trial ids")
    return check_trial_ids(content.get(split), len(stimulus), f"{split!r} of {path}")


def hash_of_ids(ids: Sequence[str]) -> str:
    """SHA-256 over the ids in their order."""
    return hash_of_json(list(ids))


def ids_worth_showing(ids: Sequence[str]) -> dict[int, str]:
    """Row to id; empty where the ids are just the rows."""
    return {} if tuple(ids) == row_ids(len(ids)) else dict(enumerate(ids))
