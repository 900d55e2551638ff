"""A bundle verified again, on the machine where it is: hashes, plans, and every engine against PyTorch's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundle.manifest import ADVICE, DECODE, PARITY, Variant
from ...runtime.bundle.open import Bundle
from ...runtime.engines.base import check_feeds
from ...runtime.engines.contract import check_contract
from ...runtime.engines.here import BACKENDS, NO_BF16, Machine, why_no_provider, why_not
from ...runtime.engines.open import EngineSet, EngineSettings
from ...runtime.engines.ort.engine import as_numpy
from ...runtime.engines.trust import Trust
from ...runtime.errors import FileError, MindDiffuserError, MissingExtra
from ...runtime.files import read_tensors
from ..settings import memory_for
from .parity import GUIDED_PICTURES, PICTURES, TOLERANCES, PictureTolerance, Spread, compare, psnr
from .pictures import engine_guided_pictures, engine_pictures, lacks_for_guidance
from .rows import Rows, compare_rows, free_of, tells_rows_apart

OK, BAD, NOT_RUN = "ok", "FAILED", "not run"


@dataclass(frozen=True, kw_only=True)
class Line:
    """What was found of one engine: `verdict` is `OK`, `BAD` or `NOT_RUN`."""

    graph: str
    target: str
    precision: str
    verdict: str
    worst: float | None = None
    tolerance: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        name = f"{self.graph:<20} {self.target:<13} {self.precision:<5}"
        if self.worst is None:
            return f"{name} {self.verdict}: {self.detail}"
        errors = f"worst error {self.worst:.2g}, tolerance {self.tolerance:.3g}"
        return f"{name} {self.verdict}  {errors}{f'  {self.detail}' if self.detail else ''}"


def check_bundle(
    folder: Path,
    *,
    threads: int | None = None,
    trust: Trust | None = None,
    on_line: Callable[[Line], None] | None = None,
) -> list[Line]:
    """Verify every engine that this machine can run.

    Parameters
    ----------
    folder
        A bundle. That it is whole, and every hash, is checked first.
    trust
        Whose plans are run; None: nobody's.
    on_line
        Called with each line as it is found.

    Raises
    ------
    FileError
        A file is missing, changed or damaged.
    """
    bundle = Bundle.open(folder)
    reference = read_tensors(bundle.path(PARITY), "the bundle's reference outputs")
    lines = []
    for line in _lines(bundle, reference, threads, Machine(trust)):
        lines.append(line)
        if on_line is not None:
            on_line(line)
    return lines


def _lines(
    bundle: Bundle, reference: Mapping[str, NDArray[Any]], threads: int | None, machine: Machine
) -> Iterator[Line]:
    for variant in bundle.variants:
        yield _line(bundle, variant, reference, threads, machine)
    precisions = [p for p in TOLERANCES if any((v.graph, v.precision) == ("denoise", p) for v in bundle.variants)]
    for precision in precisions:
        if "responses" in reference and {"denoise", "vae_decode"} <= bundle.graphs.keys():
            stage1 = ("stage1", engine_pictures, PICTURES[precision])
            yield _pictures_line(bundle, "pictures of stage 1", stage1, precision, reference, threads)
            yield _guided_line(bundle, precision, reference, threads)


def case_of(
    graph: str, reference: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The inputs of a graph and PyTorch's outputs, from a bundle's parity file."""

    def under(kind: str) -> dict[str, NDArray[Any]]:
        start = f"{graph}/{kind}/"
        return {name.removeprefix(start): array for name, array in reference.items() if name.startswith(start)}

    return under("in"), under("out")


def spread_of(reference: Mapping[str, NDArray[Any]], variant: Variant) -> dict[str, Spread]:
    """How far outputs of a variant may differ beyond their tolerance; see :mod:`~.undecided`.

    Raises
    ------
    FileError
        The bundle says something else than two numbers from 0 to 1.
    """
    start, found = f"{variant.graph}/spread/{variant.precision}/", {}
    for name, array in reference.items():
        if name.startswith(start):
            if array.shape != (2,) or not ((array >= 0) & (array <= 1)).all():  # nor NaN
                raise FileError(f"the bundle's {name} is {array.tolist()}, expected two numbers from 0 to 1: {ADVICE}")
            found[name.removeprefix(start)] = Spread(*array.tolist())
    return found


def _line(
    bundle: Bundle,
    variant: Variant,
    reference: Mapping[str, NDArray[Any]],
    threads: int | None,
    machine: Machine,
) -> Line:
    feeds, expected = case_of(variant.graph, reference)
    named: dict[str, Any] = {"graph": variant.graph, "target": variant.target, "precision": variant.precision}
    if not expected:
        return Line(**named, verdict=BAD, detail="the bundle holds no reference outputs for it: export it again")
    tolerance = TOLERANCES[variant.precision]
    backend, reason = backend_for(bundle, variant, machine)
    if backend is None:
        if (missing := why_no_provider("ort")) is not None:
            raise MissingExtra(f"checking a bundle needs ONNX Runtime: {missing}")
        return Line(**named, verdict=NOT_RUN, detail=str(reason))
    misfit = _misfit(bundle, variant.graph, feeds, expected)
    if misfit is not None:
        return Line(**named, verdict=BAD, detail=misfit)
    feeds, expected = fitted(bundle, variant, feeds, expected)
    try:
        spread = spread_of(reference, variant)
        with running(bundle, variant, backend, threads, machine.trust) as run:
            outputs = run(feeds)
            rows = rows_of(bundle, variant, run, feeds, expected, spread)
    except MissingExtra:
        raise
    except MindDiffuserError as error:
        return Line(**named, verdict=BAD, detail=str(error))
    measured, reason = compare(outputs, expected, tolerance, spread, contexts_of(bundle, variant.graph))
    # The tensor that is nearest to what it may be.
    worst, allowed = max(
        ((part.worst, tolerance.worst + part.jump) for part in measured.values()), key=lambda pair: pair[0] / pair[1]
    )
    if reason is None and rows.no_room is not None:
        detail = (
            f"one trial agrees (worst error {worst:.2g}), but {rows.no_room}: check it on a machine with more memory"
        )
        return Line(**named, verdict=NOT_RUN, detail=detail)
    reason = reason or rows.reason
    verdict = OK if reason is None else BAD
    return Line(**named, verdict=verdict, worst=worst, tolerance=allowed, detail=reason or "")


def rows_of(
    bundle: Bundle, variant: Variant, run: Run, feeds: Arrays, expected: Arrays, spread: Mapping[str, Spread]
) -> Rows:
    """Trials that run together against the same alone, unless the reference's rows would show any mixture."""
    graph, tolerance = bundle.graphs[variant.graph], TOLERANCES[variant.precision]
    if tells_rows_apart(expected, free_of(graph.outputs), tolerance, spread):
        return Rows()
    bounded = memory_for(bundle.image_size) == "low"
    specs = graph.inputs, graph.outputs
    sizes, contexts = variant.batch_sizes, contexts_of(bundle, variant.graph)
    return compare_rows(run, specs, feeds, tolerance, spread=spread, sizes=sizes, bounded=bounded, contexts=contexts)


def contexts_of(bundle: Bundle, graph: str) -> NDArray[np.float32] | None:
    """Of the candidates that a graph chooses the context among, (n_candidates, 15, d_text); None where it does not."""
    return bundle.arrays.get("concept_context") if graph == f"{DECODE}context" else None


def _misfit(
    bundle: Bundle, name: str, feeds: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> str | None:
    """Why a graph is not what its name says, or reference arrays cannot be its inputs and outputs; or None."""
    graph = bundle.graphs[name]
    try:
        check_contract(bundle, name)
    except MindDiffuserError as error:
        return str(error)
    try:
        free = check_feeds(graph.name, graph.inputs, feeds)
    except MindDiffuserError as error:
        return f"the bundle's reference does not fit: {error}"
    wanted = {name: tuple(free.get(str(n), n) for n in spec.shape) for name, spec in graph.outputs.items()}
    found = {name: array.shape for name, array in expected.items()}
    if found == wanted:
        return None
    return f"the bundle's reference outputs are {found}, expected {wanted}: export it again"


def backend_for(bundle: Bundle, variant: Variant, machine: Machine) -> tuple[str | None, str | None]:
    """The backend that runs an engine on this machine, the CPU where that can; or None, and why none does."""
    reasons = []
    for backend in [name for name, target in reversed(BACKENDS.items()) if target == variant.target]:
        reason = why_not(bundle, variant, backend, machine)
        if reason is None:
            return backend, None
        reasons.append(reason)
    return None, reasons[0]


Arrays = dict[str, NDArray[Any]]
Run = Callable[[Mapping[str, NDArray[Any]]], Arrays]


def fitted(bundle: Bundle, variant: Variant, feeds: Arrays, expected: Arrays) -> tuple[Arrays, Arrays]:
    """As many rows as the engine was built for, by leaving some out or taking them again."""
    if variant.batch_sizes is None:
        return feeds, expected
    graph = bundle.graphs[variant.graph]
    free = {*free_of(graph.inputs), *free_of(graph.outputs)}
    n = next((len(array) for name, array in (*expected.items(), *feeds.items()) if name in free), 0)
    if not n:  # a graph of an unknown name that takes no trials
        return feeds, expected
    least, most = min(variant.batch_sizes), max(variant.batch_sizes)
    rows = np.arange(min(max(n, least), most)) % n

    def cut(arrays: Arrays) -> Arrays:
        return {name: array[rows] if name in free else array for name, array in arrays.items()}

    return cut(feeds), cut(expected)


@contextmanager
def running(
    bundle: Bundle, variant: Variant, backend: str, threads: int | None, trust: Trust | None = None
) -> Iterator[Run]:
    """Open one engine, whatever else the bundle holds; what is given runs it, with numpy arrays.

    Raises
    ------
    MindDiffuserError
        This machine cannot run it.
    """
    settings = EngineSettings(
        backend=backend,
        precision=variant.precision,
        threads=threads,
        memory=memory_for(bundle.image_size),
        trust=trust or Trust(),
    )
    with EngineSet(bundle, settings, graphs=[variant.graph]) as engines:
        engine = engines.open(variant, backend)
        yield lambda feeds: {name: as_numpy(array) for name, array in engine.run(feeds).items()}


Kind = tuple[str, Callable[[Path, Any, str, int | None], NDArray[np.float32] | None], PictureTolerance]
"""The reference's name of pictures, what makes them on engines, and how far they may be apart."""


def _guided_line(bundle: Bundle, precision: str, reference: Mapping[str, NDArray[Any]], threads: int | None) -> Line:
    name = "pictures of a guided pass"
    reason = lacks_for_guidance(bundle.graphs.keys())
    if reason is None and "guided" not in reference:
        reason = "the bundle holds no reference pictures of one: export it again"
    if reason is not None:
        return Line(graph=name, target="onnx", precision=precision, verdict=NOT_RUN, detail=reason)
    kind = ("guided", engine_guided_pictures, GUIDED_PICTURES[precision])
    return _pictures_line(bundle, name, kind, precision, reference, threads)


def _pictures_line(
    bundle: Bundle,
    name: str,
    kind: Kind,
    precision: str,
    reference: Mapping[str, NDArray[Any]],
    threads: int | None,
) -> Line:
    of_reference, by_engines, tolerance = kind
    named: dict[str, Any] = {"graph": name, "target": "onnx", "precision": precision}
    responses = reference["responses"]
    if responses.shape[1:] != bundle.layout.shape or len(responses) == 0:
        wanted = ", ".join(map(str, ("n", *bundle.layout.shape)))
        reason = f"the reference's responses have shape {responses.shape}, expected ({wanted})"
        return Line(**named, verdict=BAD, detail=reason)
    try:
        found = by_engines(bundle.folder, responses, precision, threads)
    except MissingExtra:
        raise
    except MindDiffuserError as error:
        return Line(**named, verdict=BAD, detail=str(error))
    if found is None:
        return Line(**named, verdict=NOT_RUN, detail=NO_BF16)
    expected = reference.get(of_reference, np.zeros(0, np.float32))
    if found.shape != expected.shape:
        reason = f"the reference's pictures have shape {expected.shape}, expected {found.shape}: export it again"
        return Line(**named, verdict=BAD, detail=reason)
    lowest, least = psnr(found, expected), tolerance.psnr
    verdict = OK if lowest >= least else BAD
    return Line(**named, verdict=verdict, detail=f"{lowest:.1f} dB PSNR to PyTorch's, at least {least:g}")
