"""Errors that the user can fix: each message says what was given, what was expected, what to do."""

from __future__ import annotations


class MindDiffuserError(Exception):
    """The user can fix it; commands print it as one line and exit with 2."""


class InputError(MindDiffuserError, ValueError):
    """A value, name or combination of values that cannot be used."""


class ShapeError(InputError):
    """An array of another shape, rank or dtype than expected."""


class FileError(MindDiffuserError, OSError):
    """A file or folder that is missing, damaged, of another kind or version, or cannot be written."""


class MissingExtra(MindDiffuserError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


def check_choice(what: str, given: str, allowed: object) -> None:
    """Raise :class:`InputError` unless `given` is among `allowed` (any iterable of names)."""
    names = sorted(allowed)  # type: ignore[call-overload]
    if given not in names:
        raise InputError(f"{what} {given!r} is unknown: choose one of {', '.join(names)}")


def shown(value: object) -> str:
    """A value from an untrusted file in at most 80 printable characters."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
