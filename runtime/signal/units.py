"""Names of units, and how large they are in V, T and T/m."""

from __future__ import annotations

from ..errors import InputError

# Name without capitals and spaces -> its size in V, T or T/m.
_SIZES = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}
_LONG = {"": "", "m": "milli", "u": "micro", "n": "nano", "p": "pico", "f": "femto"}
UNITS = {f"{sign}{unit}": size for sign, size in _SIZES.items() for unit in ("v", "t")}
UNITS |= {f"{_LONG[sign]}{unit}": size for sign, size in _SIZES.items() for unit in ("volt", "tesla")}
UNITS |= {"t/m": 1.0, "pt/cm": 1e-10, "ft/cm": 1e-13}


def unit_size(name: str) -> float | None:
    """How large a unit is in V, T or T/m: 1e-6 for "uV", "µV" and "microvolts"; None for one that is not known."""
    plain = name.strip().lower().replace("µ", "u").replace("μ", "u").replace(" ", "")
    return UNITS.get(plain, UNITS.get(plain.removesuffix("s")))


def given_unit(name: str) -> float:
    """As :func:`unit_size`, of an option.

    Raises
    ------
    InputError
        It is not known.
    """
    size = unit_size(name)
    if size is None:
        raise InputError(f"the unit {name!r} is unknown: choose one of V, mV, uV, nV, T, nT, pT, fT, T/m, fT/cm")
    return size
