"""One execution context: shapes and addresses set in TensorRT when they change, every call checked."""

from __future__ import annotations

from collections.abc import Mapping

from ..cuda.device import Device
from .arena import Arena
from .plan import OpenPlan

Shape = tuple[int, ...]


class Session:
    """The shapes and addresses last set in one context.

    A CUDA graph needs a context of its own: it breaks when another shape is set.

    Parameters
    ----------
    device, arena
        Where it runs; the arena belongs to the device.
    """

    def __init__(self, plan: OpenPlan, device: Device, arena: Arena) -> None:
        self.plan, self.device, self.arena = plan, device, arena
        self._context = plan.new_context()
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None
        arena.reserve(int(plan.engine.device_memory_size_v2))

    def set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        """Set the shapes of the inputs.

        Raises
        ------
        TrtFailure
            TensorRT refuses one: it lies outside the plan's profile.
        """
        changed = {name: shape for name, shape in shapes.items() if self._shapes.get(name) != shape}
        if not changed:
            return
        known, self._shapes = self._shapes, {}  # if this fails, all are set again next time
        for name, shape in changed.items():
            if not self._context.set_input_shape(name, shape):
                raise self.plan.failure(f"take an input {name!r} of shape {shape} in")
        try:
            lacking = self._context.infer_shapes()
        except RuntimeError as error:  # for any other reason than shapes that were not set
            raise self.plan.failure("find the shapes in") from error
        if lacking:
            raise self.plan.failure(f"find the shapes of {', '.join(lacking)} in")
        self._shapes = {**known, **changed}

    def shape_of(self, name: str) -> Shape:
        """The shape of an output for the inputs' present shapes."""
        return tuple(int(size) for size in self._context.get_tensor_shape(name))

    def set_addresses(self, addresses: Mapping[str, int]) -> None:
        """Set where inputs and outputs are; only what moved is set again."""
        for name, address in addresses.items():
            if self._addresses.get(name) != address:
                if not self._context.set_tensor_address(name, address):
                    raise self.plan.failure(f"use the memory of {name!r} in")
                self._addresses[name] = address

    def enqueue(self) -> None:
        """Queue one run on the device's stream; nothing waits."""
        scratch = (self.arena.pointer, self.arena.size)
        if scratch != self._scratch:
            self._context.set_device_memory(*scratch)
            self._scratch = scratch
        if not self._context.execute_async_v3(self.device.stream):
            raise self.plan.failure("run")

    def is_recordable(self) -> bool:
        """Whether runs can be recorded in a CUDA graph; TensorRT cannot report it, so its plans are assumed to be."""
        if not hasattr(self._context, "is_stream_capturable"):
            return True
        return bool(self._context.is_stream_capturable(self.device.stream))

    def close(self) -> None:
        self._context = None
