"""The settings of stage 2 from what a person gives: a preset, a refiner, and single settings by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ..errors import InputError, check_choice
from . import REFINERS
from .settings import PRESETS, RefineSettings

DEFAULT = "default"
_SETS_CANDIDATES = ("candidates", "budget", "deadline")


def owners() -> dict[str, tuple[str, ...]]:
    """Every setting of every refiner, and the refiners that it belongs to."""
    found: dict[str, tuple[str, ...]] = {}
    for refiner, (kind, _) in REFINERS.items():
        for field in fields(kind):
            found[field.name] = (*found.get(field.name, ()), refiner)
    return found


def option(name: str) -> str:
    """The option of the command line that gives a setting."""
    return "--no-jacobian" if name == "jacobian" else f"--{name.replace('_', '-')}"


def chosen(preset: str, refiner: str | None, changes: Mapping[str, Any], *, command: bool = False) -> RefineSettings:
    """Start from a preset or a refiner's own defaults, and change what was given.

    Parameters
    ----------
    preset
        A name of :data:`.settings.PRESETS`. "default" gives way to a refiner that is not its own.
    refiner
        A name of :data:`~minddiffuser.runtime.refine.REFINERS`; None: the preset's.
    changes
        Values by the names of :func:`owners`. `budget` and `deadline` take the place of the preset's candidates.
    command
        Whether errors speak of options of the command line, and not of Python's arguments.

    Raises
    ------
    InputError
        An unknown name, a preset of another refiner, a setting of another one, two settings of which each says how
        many candidates there are, or a value outside its range.
    """
    check_choice("preset", preset, tuple(PRESETS))
    base = PRESETS[preset]
    if refiner is not None:
        check_choice("refiner", refiner, tuple(REFINERS))
        if refiner != base.refiner and preset != DEFAULT:
            raise InputError(
                f"the preset {preset} is of the refiner {base.refiner}, and the refiner {refiner} was asked for: leave "
                "one of the two out"
            )
        base = base if refiner == base.refiner else REFINERS[refiner][0]()
    belongs, spelt = owners(), option if command else str
    for name in changes:
        check_choice("setting", name, tuple(belongs))
        if base.refiner not in belongs[name]:
            other = belongs[name][0]
            raise InputError(
                f"{spelt(name)} belongs to the refiner {other}, and this run's is {base.refiner}: leave it "
                f"out, or {_way_to(other, preset, command)}"
            )
    given = [spelt(name) for name in _SETS_CANDIDATES if changes.get(name) is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} each say how many candidates there are: give one of them")
    cleared = dict.fromkeys(_SETS_CANDIDATES) if given else {}
    return replace(base, **{**cleared, **changes})


def _way_to(refiner: str, preset: str, command: bool) -> str:
    """What to give for a run of this refiner."""
    if preset == DEFAULT:
        return f"give --refiner {refiner}" if command else f"give refiner={refiner!r}"
    names = [name for name, settings in PRESETS.items() if settings.refiner == refiner]
    return f"give a preset of {refiner} ({', '.join(names)})"
