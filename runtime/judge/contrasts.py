"""What is compared with what: two kinds of picture of each run, or one kind of two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

DEFAULT = "stage1:stage2"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two pictures of a pair.

    `run` is the number of the run that it is of, None where both are of the same one.
    """

    label: str
    kind: str
    run: int | None = None


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A question of its own: how often the second is chosen."""

    name: str
    first: Side
    second: Side


def contrasts_of(texts: Sequence[str], runs: Sequence[Path]) -> tuple[Contrast, ...]:
    """What `--compare` says, once or several times.

    Parameters
    ----------
    texts
        "KIND:KIND", or "KIND" for that kind of both of two runs.
    runs
        Run folders.

    Raises
    ------
    InputError
        A text is neither, there are not two runs, or a comparison was given twice.
    """
    made = tuple(_contrast(text, runs) for text in texts)
    names = [contrast.name for contrast in made]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--compare {twice} was given twice: give each comparison once")
    return made


def _contrast(text: str, runs: Sequence[Path]) -> Contrast:
    kinds = text.split(":")
    if len(kinds) > 2 or not all(kinds):
        raise InputError(
            f"--compare {text!r} is no comparison: give two kinds of picture, such as {DEFAULT}, or one kind of two "
            "runs, such as stage2"
        )
    if len(kinds) == 2:
        if kinds[0] == kinds[1]:
            raise InputError(f"--compare {text} compares a picture with itself: give two kinds, or two runs and one")
        return Contrast(
            name=text, first=Side(label=kinds[0], kind=kinds[0]), second=Side(label=kinds[1], kind=kinds[1])
        )
    if len(runs) != 2:
        raise InputError(
            f"--compare {text} compares one kind of picture of two runs, {len(runs)} given: give two, or two kinds, "
            f"such as {DEFAULT}"
        )
    names = [run.resolve().name for run in runs]
    if names[0] == names[1]:
        names = [str(run) for run in runs]
    first, second = (Side(label=f"{name} {text}", kind=text, run=number) for number, name in enumerate(names))
    return Contrast(name=text, first=first, second=second)
