"""Whether an engine computes each trial by itself: two trials in one run against each of them alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundle.graph_specs import Specs
from ...runtime.engines.ort.engine import as_numpy
from ..memory_probe import available, measured
from .chosen import as_chosen
from .parity import Spread, Tolerance, peak_of

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Mapping[str, Any]]
# What a trial may have of the other one, as a share of how far their results are apart: rounding that decides a branch
# (a pixel at black or white) moves a gradient by a thousandth, and a trial that was mixed up moves it by the whole.
_LEAK = 0.01


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What two trials in one run came to.

    Attributes
    ----------
    worst : float or None
        The largest difference to the trials alone, as a share of their largest magnitude; None where they were not run.
    reason : str or None
        Why the engine does not compute each trial by itself.
    no_room : str or None
        Why two trials could not be run at once on this machine.
    """

    worst: float | None = None
    reason: str | None = None
    no_room: str | None = None


def free_of(specs: Specs) -> list[str]:
    """The names of tensors with a row for each trial."""
    return [name for name, spec in specs.items() if spec.shape and isinstance(spec.shape[0], str)]


def tells_rows_apart(
    expected: Arrays, free: Sequence[str], tolerance: Tolerance, spread: Mapping[str, Spread] | None = None
) -> bool:
    """Whether trials that were mixed up would be out of tolerance, in every output that has a row for each."""
    return all(
        len(expected[name]) > 1
        and _gap(expected[name]) > 2 * (tolerance.worst + _jump(spread, name)) * peak_of(expected[name])
        for name in free
    )


def compare_rows(
    run: Run,
    specs: tuple[Specs, Specs],
    feeds: Arrays,
    tolerance: Tolerance,
    *,
    spread: Mapping[str, Spread] | None = None,
    sizes: Sequence[int] | None = None,
    bounded: bool = False,
    contexts: NDArray[Any] | None = None,
) -> Rows:
    """Run the first trial of a case and another one made of it, alone and together.

    Parameters
    ----------
    run
        The engine.
    specs
        Its inputs and outputs.
    feeds
        Inputs of one trial or more.
    sizes
        Batch sizes that the engine takes; None: any.
    bounded
        Whether to run two at once only where there is memory for them, going by what one took.
    contexts
        See :func:`~.parity.compare`.
    """
    taken, given = free_of(specs[0]), free_of(specs[1])
    least, most = (min(sizes), max(sizes)) if sizes else (1, None)
    if not taken or not given or (most is not None and most < 2):
        return Rows()
    first = {name: feeds[name][:1] for name in taken}
    pair = (first, {name: _other(name, array) for name, array in first.items()})

    def together(rows: Sequence[Arrays], count: int) -> dict[str, NDArray[Any]]:
        several = [rows[i % len(rows)] for i in range(count)]
        joined = {name: np.concatenate([row[name] for row in several]) for name in taken}
        found = run({**feeds, **joined})
        return {name: np.array(as_numpy(found[name])[: len(rows)]) for name in given}

    alone = [together([pair[0]], least)]
    second, needed = measured(lambda: together([pair[1]], least)) if bounded else (together([pair[1]], least), None)
    alone.append(second)
    room = available()
    if needed is not None and room is not None and 2 * needed > room and least < 2:
        return Rows(no_room=f"two trials at once need about {_gib(2 * needed)}, and {_gib(room)} are free")
    try:
        both = together(pair, max(2, least))
    except MemoryError:
        return Rows(no_room="there is no memory for two trials at once")
    joined = {name: np.concatenate([row[name] for row in alone]) for name in both}
    return _compared(as_chosen(both, joined, contexts), both, tolerance, spread)


def _compared(alone: Arrays, both: Arrays, tolerance: Tolerance, spread: Mapping[str, Spread] | None) -> Rows:
    worst = 0.0
    for name, found in both.items():
        wanted = alone[name]
        if found.shape != wanted.shape:
            return Rows(reason=f"{name} of two trials has shape {found.shape}, expected {wanted.shape}")
        if not np.isfinite(wanted).all():  # of inputs that nobody has: nothing to compare with
            continue
        gap, peak = _gap(wanted), peak_of(wanted)
        error = float(np.abs(found.astype(np.float64) - wanted).max()) if np.isfinite(found).all() else np.inf
        worst = max(worst, error / peak)
        if error > max((tolerance.worst + _jump(spread, name)) * peak, _LEAK * gap):
            return Rows(
                worst=worst,
                reason=f"{name} of a trial depends on the other trials that are run with it (off by "
                f"{error / peak:.2g} of its peak)",
            )
    return Rows(worst=worst)


def _other(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Another trial of the same kind of numbers: mirrored and weaker, so that nothing overflows."""
    mirrored = array[..., ::-1] if array.ndim > 1 and name != "layer_weights" else array
    return np.ascontiguousarray(0.75 * mirrored).astype(array.dtype)


def _jump(spread: Mapping[str, Spread] | None, name: str) -> float:
    return spread[name].jump if spread and name in spread else 0.0


def _gap(array: NDArray[Any]) -> float:
    """The largest difference of any row to the first."""
    rows = array.astype(np.float64)
    return float(np.abs(rows - rows[:1]).max())


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
