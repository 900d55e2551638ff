"""What an engine is: named tensors in, named tensors out, checked before the backend sees them."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from ..bundle.graph_specs import Specs, TensorSpec
from ..errors import InputError, ShapeError


class Runs(Protocol):
    """What a sampling loop asks of an engine."""

    @property
    def inputs(self) -> Specs: ...

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Compute every output from every input.

        Raises
        ------
        InputError
            An input is missing, or one is given that the engine has not.
        ShapeError
            An input has another dtype or shape than its spec.
        """
        ...

    def place(self, array: Any) -> Any:
        """An array where the engine keeps its own, to be an input of many runs without a copy at each."""
        ...


class Engine(Runs, Protocol):
    """A graph that is ready to run, on one device; a context manager that frees it.

    Arrays are the engine's native kind: numpy on the CPU, torch CUDA tensors (or anything that speaks DLPack) on a
    GPU. They are not kept: outputs are the caller's, and the next call writes to others.
    """

    name: str
    outputs: Specs

    @property
    def device(self) -> str:
        """Where it runs, as the backend itself reports it: "cpu", "cuda:0", …."""
        ...

    @property
    def description(self) -> str:
        """Backend, provider and precision in a few words, for display."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Engines(Protocol):
    """The engines of a bundle, by graph."""

    def __getitem__(self, graph: str, /) -> Runs: ...


def check_feeds(name: str, inputs: Specs, feeds: Mapping[str, Any]) -> dict[str, int]:
    """Refuse inputs that do not fit an engine, before its backend sees them. numpy arrays and torch tensors alike.

    Returns
    -------
    dict
        The size of each free dimension.

    Raises
    ------
    InputError, ShapeError
        See :meth:`Runs.run`.
    """
    if feeds.keys() != inputs.keys():
        missing, unknown = sorted(inputs.keys() - feeds.keys()), sorted(feeds.keys() - inputs.keys())
        faults = [f"lacks {', '.join(missing)}"] if missing else []
        faults += [f"does not take {', '.join(unknown)}"] if unknown else []
        raise InputError(f"the engine {name!r} {' and '.join(faults)}: it takes {', '.join(inputs)}")
    free: dict[str, int] = {}
    for key, spec in inputs.items():
        array = feeds[key]
        given = TensorSpec(dtype_name(array), tuple(map(int, getattr(array, "shape", ()))))
        if given.dtype != spec.dtype or len(given.shape) != len(spec.shape):
            raise ShapeError(f"input {key!r} of the engine {name!r} is {given}, expected {spec}")
        for size, wanted in zip(given.shape, spec.shape, strict=True):
            known = free.setdefault(wanted, int(size)) if isinstance(wanted, str) else wanted
            if size != known or size == 0:
                where = f" with {wanted} = {known} as in the other inputs" if isinstance(wanted, str) else ""
                raise ShapeError(f"input {key!r} of the engine {name!r} is {given}, expected {spec}{where}")
    return free


def dtype_name(array: Any) -> str:
    """Numpy's name of an array's or tensor's dtype; the type's name for anything else."""
    dtype = getattr(array, "dtype", None)
    return type(array).__name__ if dtype is None else str(dtype).removeprefix("torch.")
