"""The gate: every engine is compared with PyTorch, tensor by tensor and picture by picture, before it is exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ...runtime.bundle.graph_specs import Specs
from ...runtime.engines.base import Engine
from ...runtime.engines.ort.engine import OrtSettings, as_numpy, open_ort
from ...runtime.metrics.identification import two_way
from ...runtime.metrics.pixcorr import pixcorr
from ...runtime.metrics.ssim import ssim
from ..precision import emulate
from ..precision.onnx_tools import session_of
from .parity import TOLERANCES, Deviation, PictureTolerance, Spread, Tolerance, compare, psnr, spread_by, worst_of
from .rows import Rows, compare_rows, free_of, tells_rows_apart

Feeds = dict[str, NDArray[np.float32]]
Outputs = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Inputs of a graph and what PyTorch makes of them; `kind` is "random" or "decoded".

    `spread` is how far outputs may differ besides in each precision; see :mod:`~.undecided`.
    """

    kind: str
    feeds: Feeds
    expected: Outputs
    spread: dict[str, dict[str, Spread]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A graph's parity for the manifest, and why it is out of tolerance, if it is.

    `one_row` says why more trials than one at once could not be verified, if they could not: then no more may be run.
    """

    parity: dict[str, Any]
    reason: str | None = None
    one_row: str | None = None


def expected_cases(
    reference: Engine,
    inputs: Mapping[str, Sequence[Feeds]],
    bounds: Callable[[Feeds], Mapping[str, Mapping[str, NDArray[np.float32]]]] | None = None,
) -> list[Case]:
    """Run the reference over inputs by kind.

    Parameters
    ----------
    bounds
        Inputs -> by precision, how far each element of an output may be off where rounding decides a branch.
    """
    cases = []
    for kind, several in inputs.items():
        for feeds in several:
            expected = {name: as_numpy(array) for name, array in reference.run(feeds).items()}
            spread = {
                precision: {name: spread_by(bound, expected[name]) for name, bound in tensors.items()}
                for precision, tensors in (bounds(feeds) if bounds is not None else {}).items()
            }
            cases.append(Case(kind=kind, feeds=feeds, expected=expected, spread=spread))
    return cases


def verify(
    run: Callable[[Feeds], Mapping[str, Any]],
    specs: tuple[Specs, Specs],
    cases: Sequence[Case],
    precision: str,
    *,
    how: str = "run",
    bounded: bool = False,
    contexts: NDArray[np.float32] | None = None,
) -> Verified:
    """Compare an engine with the reference over every case, and trials that run together with the same alone.

    Parameters
    ----------
    specs
        Inputs and outputs of the engine.
    how
        For the manifest: "run" where the engine itself ran as a user would run it.
    bounded
        See :func:`~.rows.compare_rows`.
    contexts
        See :func:`~.parity.compare`.
    """
    tolerance, reason = TOLERANCES[precision], None
    measured: dict[str, dict[str, list[Deviation]]] = {}
    for case in cases:
        found = {name: as_numpy(array) for name, array in run(case.feeds).items()}
        parts, out = compare(found, case.expected, tolerance, case.spread.get(precision), contexts)
        reason = reason or (f"{out} (on {case.kind} inputs)" if out else None)
        for name, part in parts.items():
            measured.setdefault(case.kind, {}).setdefault(name, []).append(part)
    parity = _parity(measured, tolerance, how)
    if reason is not None or any(_tells_apart(case, specs[1], precision) for case in cases):
        return Verified(parity=parity, reason=reason)
    rows = _rows(run, specs, cases[0], precision, bounded=bounded, contexts=contexts)
    if rows.worst is not None:
        parity["rows_together"] = min(rows.worst, 1e30)
    return Verified(parity=parity, reason=rows.reason, one_row=rows.no_room)


def _tells_apart(case: Case, outputs: Specs, precision: str) -> bool:
    return tells_rows_apart(case.expected, free_of(outputs), TOLERANCES[precision], case.spread.get(precision))


def _rows(
    run: Any,
    specs: tuple[Specs, Specs],
    case: Case,
    precision: str,
    *,
    bounded: bool,
    contexts: NDArray[np.float32] | None,
) -> Rows:
    tolerance, spread = TOLERANCES[precision], case.spread.get(precision)
    return compare_rows(run, specs, case.feeds, tolerance, spread=spread, bounded=bounded, contexts=contexts)


def _parity(measured: Mapping[str, Mapping[str, list[Deviation]]], tolerance: Tolerance, how: str) -> dict[str, Any]:
    # JSON has no infinity; an infinite error is stated in the reason, and such an engine is never exported.
    return {
        "reference": "PyTorch float32",
        "verified": how,
        "tolerance": tolerance.worst,
        "cosine_at_least": tolerance.cosine,
        "reason": tolerance.reason,
        "inputs": {
            kind: {
                name: {k: min(v, 1e30) for k, v in worst_of(parts).as_dict().items()} for name, parts in tensors.items()
            }
            for kind, tensors in measured.items()
        },
    }


def verify_file(
    graph: str,
    path: Path,
    specs: tuple[Specs, Specs],
    cases: Sequence[Case],
    precision: str,
    *,
    threads: int,
    memory: str = "fast",
    contexts: NDArray[np.float32] | None = None,
) -> Verified:
    """Verify an ONNX file on this machine's CPU; half precision by emulation.

    Of bfloat16 ONNX Runtime has few kernels for a CPU. A float16 graph it opens, and computes in float32 from node to
    node where it has none: what overflows on a GPU would pass.
    """
    if precision in ("fp16", "bf16"):
        with session_of(emulate(onnx.load(str(path))), threads) as session:
            names = [value.name for value in session.get_outputs()]
            return verify(
                lambda feeds: dict(zip(names, session.run(names, feeds), strict=True)),
                specs,
                cases,
                precision,
                how="emulated in float32, every stored tensor rounded",
                bounded=memory == "low",
                contexts=contexts,
            )
    settings = OrtSettings(threads=threads, memory=memory)
    how = "run" if memory == "fast" else f"run with memory {memory}"
    with open_ort(graph, path, *specs, settings, precision=precision) as engine:
        bounded = memory == "low"
        return verify(engine.run, specs, cases, precision, how=how, bounded=bounded, contexts=contexts)


@dataclass(frozen=True, kw_only=True, eq=False)
class EndToEnd:
    """Pictures of engines against PyTorch's."""

    metrics: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None


def end_to_end(
    found: NDArray[np.float32],
    expected: NDArray[np.float32],
    stimuli: NDArray[np.float32] | None,
    embed: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    tolerance: PictureTolerance,
    *,
    what: str = "pictures of stage 1",
) -> EndToEnd:
    """Compare pictures, and what the metrics say of them.

    Parameters
    ----------
    found, expected : (n, 3, H, W) float32 in [0, 1]
        Of the engines and of PyTorch.
    stimuli : (n, 3, H, W) or None
        What the metrics compare with; None: PyTorch's pictures.
    embed
        Pictures -> CLIP embeddings, PyTorch's, for identification.
    tolerance
        Of their kind and precision.
    what
        What they are, for the reason.
    """
    if not np.isfinite(found).all():
        return EndToEnd(reason="the pictures hold NaN or infinite values")
    truth = expected if stimuli is None else stimuli
    measures: dict[str, Callable[[NDArray[np.float32]], float]] = {
        "pixcorr": lambda pictures: float(np.mean(pixcorr(truth, pictures))),
        "ssim": lambda pictures: float(np.mean(ssim(truth, pictures))),
    }
    if len(found) > 1:
        anchors = embed(truth)
        measures["identification"] = lambda pictures: float(np.mean(two_way(anchors, embed(pictures))))
    differences = {name: measure(found) - measure(expected) for name, measure in measures.items()}
    lowest = psnr(found, expected)
    content = {
        "psnr_db": lowest,
        "n_trials": len(found),
        "compared_with": "PyTorch's pictures" if stimuli is None else "the stimuli",
        "differences": differences,
        "tolerance": {"psnr_db": tolerance.psnr, "difference": tolerance.metric, "reason": tolerance.reason},
    }
    reason = None
    if lowest < tolerance.psnr:
        reason = f"{what} have {lowest:.1f} dB PSNR to PyTorch's, at least {tolerance.psnr:g} are needed"
    for name, difference in differences.items():
        allowed = tolerance.metric
        if name == "identification":  # it counts pairs: among few trials, one more or less is beyond any tolerance
            allowed = max(allowed, 1 / (len(found) * (len(found) - 1)))
        if not abs(difference) <= allowed and reason is None:  # NaN is no agreement either
            reason = f"{name} differs by {difference:+.4f} from PyTorch's, at most {allowed:g} is allowed"
    return EndToEnd(metrics=content, reason=reason)
