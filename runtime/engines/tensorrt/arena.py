"""One piece of GPU memory that several engines use in turn for what they compute in between."""

from __future__ import annotations

from typing import Any

from ..cuda.device import Device
from .library import ALIGNMENT


class Arena:
    """Scratch memory as large as the largest engine needs, instead of the sum of all.

    Engines that share an arena run on its device's one stream, so never at the same time. When a new engine needs
    more, the memory moves: `pointer` changes, and whoever has handed it to TensorRT, or recorded it in a CUDA graph,
    has to compare.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.size = 0
        self._memory: Any = None

    @property
    def pointer(self) -> int:
        return 0 if self._memory is None else self.device.pointer(self._memory)

    def reserve(self, size: int) -> None:
        """Make sure of at least `size` bytes. Waits for the stream if the memory has to move."""
        wanted = -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        if wanted <= self.size:
            return
        if self._memory is not None:
            self.device.synchronise()
            self._memory = None  # first, or both would be held at once
        self._memory = self.device.allocate((wanted,), "uint8")
        self.size = wanted

    def release(self) -> None:
        """Give the memory back; the next :meth:`reserve` takes new one."""
        self._memory, self.size = None, 0
