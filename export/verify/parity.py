"""How far two results are apart, how far they may be, and why that far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import MindDiffuserError
from .chosen import as_chosen, not_as_chosen

Array = NDArray[Any]

_TRY = {
    "fp32": "please report this as a bug: in float32 an engine should agree with PyTorch",
    "fp16": "export it in bf16 or fp32, or give --data with training trials, so that the probe sees real ranges",
    "bf16": "export it in fp16 or fp32",
    "int8": "export it in fp32, or give --data with training trials to calibrate on",
}


class GateFailure(MindDiffuserError, ValueError):
    """An engine is out of tolerance: it is not published."""


@dataclass(frozen=True)
class Tolerance:
    """The largest error of a tensor, as a share of the reference's largest magnitude, and the smallest cosine."""

    worst: float
    cosine: float
    reason: str


# A rounding error of one unit in the last place, made anew in each of some hundred layers, adds up as a random walk;
# measured on the tiny world and on full-size networks the worst element is some ten to twenty units off.
TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(1e-4, 0.999999, "float32 sums taken in another order, over some hundred layers"),
    "fp16": Tolerance(2e-2, 0.9995, "40 units of float16 (2^-11): rounding adds up over some hundred layers"),
    "bf16": Tolerance(1.6e-1, 0.99, "40 units of bfloat16 (2^-8): rounding adds up over some hundred layers"),
    "int8": Tolerance(
        2.5e-1, 0.97, "256 levels per weight and layer; what this does to pictures is measured end to end"
    ),
}


@dataclass(frozen=True)
class PictureTolerance:
    """End to end: the least PSNR in dB, and the largest difference of PixCorr, SSIM and identification."""

    psnr: float
    metric: float
    reason: str


PICTURES: dict[str, PictureTolerance] = {
    "fp32": PictureTolerance(45.0, 0.005, "no pixel differs by more than a level or two after 35 steps"),
    "fp16": PictureTolerance(40.0, 0.01, "rounding drifts over 35 steps; not visible side by side"),
    "bf16": PictureTolerance(22.0, 0.03, "eight times coarser than float16; small shifts can be seen"),
    "int8": PictureTolerance(25.0, 0.02, "quantised weights give slightly different pictures of the same thing"),
}
# Of a guided pass no more than 40 dB is asked.
GUIDED_PICTURES: dict[str, PictureTolerance] = {
    precision: replace(
        tolerance, psnr=min(40.0, tolerance.psnr), reason=f"gradient steps enlarge rounding; {tolerance.reason}"
    )
    for precision, tolerance in PICTURES.items()
}


@dataclass(frozen=True)
class Spread:
    """What a tensor may differ by beyond its tolerance, where rounding decides a branch; see :mod:`~.undecided`."""

    jump: float
    turn: float


@dataclass(frozen=True)
class Deviation:
    """How far one tensor is from its reference.

    `worst` and `mean` are the largest and the mean absolute error as shares of the reference's largest magnitude;
    `cosine` is the smallest over trials. `jump` is what `worst` may be besides rounding, `turn` what `cosine` may be
    below 1 besides: see :mod:`~.undecided`.
    """

    worst: float
    mean: float
    cosine: float
    jump: float = 0.0
    turn: float = 0.0

    def as_dict(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value or name not in ("jump", "turn")}


def peak_of(array: Array) -> float:
    """The largest magnitude, never 0: what errors are shares of."""
    return max(float(np.abs(array.astype(np.float64)).max()), float(np.finfo(np.float32).tiny))


def deviation(found: Array, expected: Array) -> Deviation:
    """Compare a tensor with its reference; a NaN, an infinity or another shape in either is an infinite error."""
    if found.shape != expected.shape or not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return Deviation(math.inf, math.inf, -1.0)
    a, b = found.astype(np.float64), expected.astype(np.float64)
    peak = peak_of(b)
    error = np.abs(a - b)
    rows_a, rows_b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms = np.linalg.norm(rows_a, axis=1) * np.linalg.norm(rows_b, axis=1)
    inner = (rows_a * rows_b).sum(1)
    # Two zero rows point the same way.
    cosine = np.where(norms > 0, inner / np.where(norms > 0, norms, 1), (error.reshape(len(a), -1).max(1) == 0) * 1.0)
    return Deviation(float(error.max() / peak), float(error.mean() / peak), float(cosine.min()))


def spread_by(bound: Array, expected: Array) -> Spread:
    """What a tensor may differ by, given how far each element may; nothing where that is not a finite number."""
    b, e = (array.astype(np.float64).reshape(len(array), -1) for array in (bound, expected))
    if not (np.isfinite(b).all() and np.isfinite(e).all()):
        return Spread(0.0, 0.0)
    sizes, lengths = np.linalg.norm(b, axis=1), np.linalg.norm(e, axis=1)
    # A vector that moves by a share s of its length turns by the angle whose sine is s at most.
    share = np.where(sizes < lengths, sizes / np.where(lengths > 0, lengths, 1), (sizes > 0) * 1.0)
    return Spread(float(np.abs(b).max() / peak_of(e)), float(1 - np.sqrt(1 - share.max() ** 2)))


def worst_of(parts: list[Deviation]) -> Deviation:
    """The worst of several comparisons."""
    return Deviation(
        max(p.worst for p in parts),
        max(p.mean for p in parts),
        min(p.cosine for p in parts),
        max(p.jump for p in parts),
        max(p.turn for p in parts),
    )


def verdict(tensor: str, measured: Deviation, tolerance: Tolerance, found: Array, expected: Array) -> str | None:
    """Why a tensor is out of tolerance, or None.

    A picture that is flat where the reference is not is out whatever its error.
    """
    if not np.isfinite(found).all():
        return f"{tensor} holds NaN or infinite values"
    if found.shape != expected.shape:
        return f"{tensor} has shape {found.shape}, expected {expected.shape}"
    if not np.isfinite(expected).all():
        return f"{tensor} holds NaN or infinite values in the reference"
    if tensor == "image" and _flat(found) and not _flat(expected):
        return f"{tensor} is flat: every pixel has the same colour"
    if measured.worst > tolerance.worst + measured.jump:
        return f"{tensor} is off by {measured.worst:.2g} of its peak, tolerance {tolerance.worst + measured.jump:.3g}"
    least = tolerance.cosine - measured.turn
    if measured.cosine < least:
        return f"{tensor} has cosine {measured.cosine:.6f} to its reference, at least {least:.6g} is needed"
    return None


def _flat(images: Array) -> bool:
    return bool((images.reshape(len(images), -1).std(1) < 1e-3).any())


def psnr(found: Array, expected: Array) -> float:
    """The lowest peak signal-to-noise ratio of pictures (n, 3, H, W) in [0, 1], in dB; at most 120."""
    error = ((found.astype(np.float64) - expected.astype(np.float64)) ** 2).reshape(len(found), -1).mean(1)
    worst = float(error.max()) if np.isfinite(error).all() else math.inf
    return 0.0 if math.isinf(worst) else min(120.0, -10 * math.log10(max(worst, 1e-12)))


def compare(
    outputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    tolerance: Tolerance,
    spread: Mapping[str, Spread] | None = None,
    contexts: Array | None = None,
) -> tuple[dict[str, Deviation], str | None]:
    """Every output against its reference, and why the first of them is out of tolerance.

    Parameters
    ----------
    spread
        How far outputs may jump and turn besides.
    contexts : (n_candidates, 15, d_text), optional
        Of the candidates that the context is chosen among; see :mod:`~.chosen`.
    """
    expected = as_chosen(outputs, expected, contexts)
    outputs = {**{name: np.zeros(0) for name in expected}, **outputs}  # one that is missing has another shape
    none = Spread(0.0, 0.0)
    measured = {}
    for name in expected:
        more = (spread or {}).get(name, none)
        measured[name] = replace(deviation(np.asarray(outputs[name]), expected[name]), jump=more.jump, turn=more.turn)
    reasons = [verdict(name, measured[name], tolerance, np.asarray(outputs[name]), expected[name]) for name in expected]
    reason = next((reason for reason in reasons if reason is not None), None)
    return measured, reason or not_as_chosen(outputs, contexts)


def failed(graph: str, precision: str, reason: str) -> GateFailure:
    """The error for a graph that is out of tolerance."""
    return GateFailure(f"the graph {graph} in {precision} is not exported: {reason}; {_TRY[precision]}")
