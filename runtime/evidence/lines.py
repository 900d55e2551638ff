"""One metric's line from floor to ceiling: means, intervals, differences and places, from resampled means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rungs import CEILING, FLOOR, result_of

Float64 = NDArray[np.float64]
_LEVELS = (0.025, 0.975)


def line_of(
    names: Sequence[str], means: Float64, draws: Mapping[str, Float64], *, label: str, better: str, meaning: str
) -> dict[str, Any]:
    """A metric as it stands in evidence.json.

    Parameters
    ----------
    names : of n_kinds rungs
    means : (n_kinds,)
    draws : ending of a key -> (n_kinds, n_resamples)
        The intervals to give: "" is over pictures, "_seeds" over seeds and pictures; empty where there are too few
        pictures for any.
    label, better, meaning
        Of the metric.

    Returns
    -------
    dict
        "result", the rung that differences are taken of; "scale", ceiling minus floor, and whether the ceiling is
        clearly better; of each rung its mean and interval, and its "position" where the scale is clear: 0 at the floor,
        1 at the ceiling, with those intervals alone by which the scale is clear, since a quotient by what may be 0 has
        none; and of each other rung the result minus it.
    """
    at = {name: number for number, name in enumerate(names)}
    result, sign = result_of(at), 1 if better == "higher" else -1
    line: dict[str, Any] = {"label": label, "better": better, "meaning": meaning, "result": result, "scale": None}
    clear: dict[str, Float64] = {}  # the draws by which the ceiling is better than the floor
    if FLOOR in at and CEILING in at:
        scale = _difference(means, draws, at[CEILING], at[FLOOR])
        clear = {end: drawn for end, drawn in draws.items() if _is_above_0(scale[f"ci95{end}"], sign)}
        line["scale"] = {**scale, "clear": "" in clear}
    rungs: dict[str, Any] = {}
    for name, number in at.items():
        rungs[name] = {"mean": float(means[number]), **_intervals({end: d[number] for end, d in draws.items()})}
        if "" in clear:
            rungs[name]["position"] = _position(means, clear, number, at[FLOOR], at[CEILING])
    others = [name for name in at if name != result]
    return {
        **line,
        "rungs": rungs,
        "differences": {name: _difference(means, draws, at[result], at[name]) for name in others},
    }


def _intervals(draws: Mapping[str, Float64]) -> dict[str, list[float] | None]:
    found: dict[str, list[float] | None] = {f"ci95{end}": _bounds(drawn) for end, drawn in draws.items()}
    return {"ci95": None, **found}


def _bounds(drawn: Float64) -> list[float] | None:
    low, high = np.quantile(drawn, _LEVELS)
    return [float(low), float(high)] if np.isfinite([low, high]).all() else None


def _is_above_0(bounds: list[float] | None, sign: int) -> bool:
    return bounds is not None and min(sign * bounds[0], sign * bounds[1]) > 0


def _difference(means: Float64, draws: Mapping[str, Float64], one: int, other: int) -> dict[str, Any]:
    return {
        "difference": float(means[one] - means[other]),
        **_intervals({end: drawn[one] - drawn[other] for end, drawn in draws.items()}),
    }


def _position(means: Float64, draws: Mapping[str, Float64], number: int, floor: int, ceiling: int) -> dict[str, Any]:
    def place(values: Float64) -> Float64:
        with np.errstate(divide="ignore", invalid="ignore"):
            placed: Float64 = (values[number] - values[floor]) / (values[ceiling] - values[floor])
        return placed

    return {"value": float(place(means)), **_intervals({end: place(drawn) for end, drawn in draws.items()})}
