"""The engine over a TensorRT or TensorRT-RTX plan: arrays stay on the GPU, and no run waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...bundle.graph_specs import TensorSpec
from ...closing import Closing
from ...errors import FileError, InputError, ShapeError
from ..base import check_feeds
from ..cuda.device import Device
from .arena import Arena
from .context import Session
from .plan import OpenPlan, PlanFile

# TensorRT's names of number types, for what an input or output can be.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def open_trt(
    plan: PlanFile,
    *,
    device: Device,
    arena: Arena | None = None,
    cache_folder: Path | None = None,
) -> TrtEngine:
    """Open a plan on a GPU.

    Parameters
    ----------
    device : Device
        Engines that feed each other share one: they then run on one stream, in order.
    arena : Arena or None
        Scratch memory to share with other engines of the same device.
    cache_folder : Path or None
        See :class:`OpenPlan`.

    Raises
    ------
    FileError
        The plan cannot run here (one sentence says why), is damaged, or is not what its description says.
    MissingExtra, InputError
        The library, or the GPU, is not there.
    TrtFailure
        TensorRT refuses it.
    """
    if arena is not None and arena.device is not device:
        raise InputError("the arena belongs to another device: open the engine with arena.device")
    return TrtEngine(OpenPlan(plan, device.gpu, cache_folder), device, arena)


class TrtEngine(Closing):
    """A plan that is ready to run; see :class:`..base.Engine`. Made by :func:`open_trt`.

    Inputs are torch CUDA tensors, anything that speaks DLPack or ``__cuda_array_interface__``, or numpy arrays, which
    are copied to the GPU. Outputs are the device's own kind: torch tensors, or
    :class:`~minddiffuser.runtime.engines.cuda.python.CudaArray`.

    A run is queued on the engine's own stream, behind what the caller has queued on PyTorch's current stream before
    (for other libraries' arrays: behind the stream that they name). What the caller queues afterwards on PyTorch's
    current stream runs behind it; other libraries wait for `cuda.stream`. The host waits for nothing.
    """

    def __init__(self, plan: OpenPlan, cuda: Device, arena: Arena | None) -> None:
        self.plan, self.cuda = plan, cuda
        self.arena = Arena(cuda) if arena is None else arena
        self._owns_arena = arena is None
        self.name = plan.file.name
        self.inputs, self.outputs = plan.file.inputs, plan.file.outputs
        self._bounds = check_interface(plan)
        self._session = self.new_session()

    @property
    def device(self) -> str:
        return self.cuda.name

    @property
    def description(self) -> str:
        return f"{self.plan.label} {self.plan.version}, {self.plan.file.precision}, {self.cuda.gpu.name}"

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Queue one run; see :meth:`..base.Engine.run` and the class."""
        self.check(feeds)
        arrays = {name: self.cuda.adopt(feeds[name]) for name in self.inputs}
        self._session.set_shapes({name: tuple(array.shape) for name, array in arrays.items()})
        outputs = self._targets()
        buffers = {**arrays, **outputs}
        self._session.set_addresses({name: self.cuda.pointer(array) for name, array in buffers.items()})
        self.cuda.enter()
        try:
            self._session.enqueue()
        finally:
            self.cuda.leave()
        return outputs

    def place(self, array: Any) -> Any:
        """See :meth:`..base.Engine.place`."""
        return self.cuda.adopt(array)

    def check(self, feeds: Mapping[str, Any]) -> dict[str, int]:
        """Refuse inputs that do not fit the graph or the plan's profile; the free dimensions' sizes otherwise."""
        sizes = check_feeds(self.name, self.inputs, feeds)
        for dimension, size in sizes.items():
            smallest, largest = self._bounds.get(dimension, (size, size))
            if not smallest <= size <= largest:
                raise ShapeError(
                    f"{dimension} is {size}, the plan of {self.name!r} covers {smallest} to {largest}: "
                    f"run in parts, or build a plan for {size}"
                )
        return sizes

    def new_session(self) -> Session:
        """A context of its own over the same plan, device and arena."""
        return Session(self.plan, self.cuda, self.arena)

    def close(self) -> None:
        """Wait for what was queued and free everything. Twice is once."""
        if self._session is None:
            return
        self.cuda.synchronise()
        self._session.close()
        self._session = None  # type: ignore[assignment]
        self.plan.close()
        if self._owns_arena:
            self.arena.release()

    def _targets(self) -> dict[str, Any]:
        """Arrays for the outputs at the present shapes."""
        shape_of = self._session.shape_of
        return {name: self.cuda.allocate(shape_of(name), spec.dtype) for name, spec in self.outputs.items()}


def check_interface(plan: OpenPlan) -> dict[str, tuple[int, int]]:
    """Compare a plan's inputs and outputs with its description.

    Returns
    -------
    dict
        Smallest and largest size of each free dimension.

    Raises
    ------
    FileError
        They differ, or an input has to be in the host's memory.
    """
    trt, engine, file = plan.trt, plan.engine, plan.file
    modes = {trt.TensorIOMode.INPUT: file.inputs, trt.TensorIOMode.OUTPUT: file.outputs}
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    for name in names:
        spec = modes[engine.get_tensor_mode(name)].get(name)
        dtype = DTYPES.get(engine.get_tensor_dtype(name).name)
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        if spec is None or dtype != spec.dtype or not _same_shape(shape, spec):
            raise FileError(
                f"the plan {file.path} has a tensor {name!r} {dtype} {shape}, its description says {spec}: "
                "build it again"
            )
        if engine.is_shape_inference_io(name):
            raise FileError(
                f"the plan {file.path} computes a shape from {name!r}, which has to be on the host then: "
                "export the graph with fixed sizes"
            )
    missing = (file.inputs.keys() | file.outputs.keys()) - set(names)
    if missing:
        raise FileError(f"the plan {file.path} has no {', '.join(sorted(missing))}: build it again")
    return _bounds(plan)


def _same_shape(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Whether a plan's shape (-1 is free) can be what a description says; a plan may fix a free dimension."""
    return len(shape) == len(spec.shape) and all(
        isinstance(wanted, str) or size == wanted for size, wanted in zip(shape, spec.shape, strict=True)
    )


def _bounds(plan: OpenPlan) -> dict[str, tuple[int, int]]:
    engine = plan.engine
    bounds: dict[str, tuple[int, int]] = {}
    for name, spec in plan.file.inputs.items():
        if any(isinstance(size, str) for size in spec.shape):
            least, _, most = engine.get_tensor_profile_shape(name, 0)
            for size, low, high in zip(spec.shape, least, most, strict=True):
                if isinstance(size, str):
                    before = bounds.get(size, (int(low), int(high)))
                    bounds[size] = (max(before[0], int(low)), min(before[1], int(high)))
    return bounds
