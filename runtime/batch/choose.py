"""Which trials a person leaves out, by their ids or their rows."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError

LEFT_OUT = "left out by --skip-trials"


def left_out(names: Sequence[str], n_trials: int, ids: Sequence[str] = ()) -> dict[int, str]:
    """Rows of the trials of these names, with the reason.

    Parameters
    ----------
    names
        Each the id of a trial, or else its row, counted from 0.
    ids
        Of the trials, in order; empty where they have none but their rows.

    Raises
    ------
    InputError
        There is no such trial.
    """
    rows = {str(row): row for row in range(n_trials)} | {name: row for row, name in enumerate(ids)}
    unknown = [name for name in names if name not in rows]
    if unknown:
        example = f", or ids such as {ids[0]!r}" if ids and ids[0] != "0" else ""
        raise InputError(
            f"--skip-trials names {', '.join(map(repr, unknown))}, and the responses have no such trial: give rows "
            f"from 0 to {n_trials - 1}{example}"
        )
    return {rows[name]: LEFT_OUT for name in names}
