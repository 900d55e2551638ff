"""Kinds of numbers that several commands take."""

from __future__ import annotations

import argparse
import math


def seconds(text: str) -> float:
    """An argument in seconds, above 0."""
    return _above_zero(text, "seconds")


def positive(text: str) -> float:
    """A number above 0."""
    return _above_zero(text, "a number")


def _above_zero(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} above 0")
    return value
