"""Which trials the user leaves out, by ids or rows, and how trials are named in messages."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from ..data.trial_ids import ids_worth_showing
from ..errors import InputError

LEFT_OUT = "left out by --skip-trials"


def left_out(names: Sequence[str], n_trials: int, ids: Sequence[str] = ()) -> dict[int, str]:
    """Rows of the trials of these names, with the reason.

    Parameters
    ----------
    names
        Each the id of a trial; or its row, counted from 0, where no id is a number: "3" would be one trial by its id
        and another one by its row.
    ids
        Of the trials, in order; empty where they have none but their rows.

    Raises
    ------
    InputError
        There is no such trial.
    """
    by_id = {name: row for row, name in enumerate(ids)}
    rows = by_id if _like_rows(ids) else {str(row): row for row in range(n_trials)} | by_id
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise InputError(
            f"--skip-trials names {', '.join(map(repr, unknown))}, and the responses have no such trial: give "
            f"{_what_to_give(n_trials, ids)}"
        )
    return {rows[name]: LEFT_OUT for name in names}


def skip_option(trials: Iterable[int], named: Mapping[int, str]) -> str:
    """The option that leaves these trials out, by their ids where they have some.

    Parameters
    ----------
    named
        Trial to id; empty where the ids are just the rows.
    """
    # The option's names are separated by commas, so that an id with one cannot be given.
    names = [str(trial) if "," in named.get(trial, ",") else named[trial] for trial in trials]
    return f"--skip-trials {shlex.quote(','.join(names))}"


def called(trial: int, named: Mapping[int, str]) -> str:
    """A trial in a sentence: "3", or "3 (dog)" where it has an id."""
    return f"{trial} ({named[trial]})" if trial in named else str(trial)


def _like_rows(ids: Sequence[str]) -> bool:
    """Whether some id is a number, and the ids are others than the rows."""
    return bool(ids_worth_showing(ids)) and any(name.isdecimal() for name in ids)


def _what_to_give(n_trials: int, ids: Sequence[str]) -> str:
    if _like_rows(ids):
        return f"ids such as {ids[0]!r} (ids that are numbers go before rows)"
    example = f", or ids such as {ids[0]!r}" if ids_worth_showing(ids) else ""
    return f"rows from 0 to {n_trials - 1}{example}"
