"""Kinds of numbers that several commands take."""

from __future__ import annotations

import argparse
import math
import re

_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min)?")
_UNITS = {None: 1.0, "ms": 1e-3, "s": 1.0, "min": 60.0}


def seconds(text: str) -> float:
    """A time above 0 such as "2s", "800ms" or "1.5", in seconds."""
    match = _SECONDS.fullmatch(text.strip())
    value = 0.0 if match is None else float(match[1]) * _UNITS[match[2]]
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time above 0: give such as 2s or 800ms")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
