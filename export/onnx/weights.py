"""Graphs on the disk, with their weights in one file beside them in which equal weights lie once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

from ...runtime.errors import FileError

WEIGHTS = "weights.bin"
# Shapes and scalars stay in the graph; a weight below this many bytes is not worth a place in the file.
_LEAST_BYTES = 1024
# Pages: what lies on a page boundary is mapped into memory, not read.
_PAGE, _LARGE = 4096, 1 << 16


@dataclass(frozen=True)
class _Place:
    offset: int
    length: int


class WeightStore:
    """Writes ONNX files into one folder; their larger tensors go into a shared file, each content once.

    `denoise` and `denoise_gradient` hold the same UNet, the decoder and CLIP are in four graphs between them: on the
    disk, and in the memory of sessions that map the file, they are there once.

    Parameters
    ----------
    folder : Path
        Where the graphs and `WEIGHTS` go; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._places = folder, dict[str, _Place]()
        self._size = 0
        self._file: Any = None

    def write(self, model: onnx.ModelProto, name: str) -> tuple[Path, list[Path]]:
        """Write a graph as `name`.onnx.

        Parameters
        ----------
        model
            With all its weights inside; left without the larger ones.

        Returns
        -------
        The file, and the files that it takes weights from.

        Raises
        ------
        FileError
            The graph has subgraphs.
        OSError
            The file system's, such as a full disk.
        """
        if any(
            a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
            for n in model.graph.node
            for a in n.attribute
        ):
            raise FileError(
                f"the graph {name} has subgraphs, whose weights cannot be shared: export it without control flow"
            )
        used = False
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.nbytes >= _LEAST_BYTES:
                self._point(tensor, array.tobytes())
                used = True
        path = self._folder / f"{name}.onnx"
        # Maps of a message are ordered so, and nothing else in it can differ.
        path.write_bytes(model.SerializeToString(deterministic=True))
        if self._file is not None:
            self._file.flush()  # readers come at once
        return path, [self._folder / WEIGHTS] if used else []

    def close(self) -> None:
        """End the file of weights."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> WeightStore:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _point(self, tensor: TensorProto, data: bytes) -> None:
        place = self._place(data)
        tensor.ClearField("raw_data")
        for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data"):
            tensor.ClearField(field)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS), ("offset", place.offset), ("length", place.length)):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)

    def _place(self, data: bytes) -> _Place:
        digest = hashlib.sha256(data).hexdigest()
        if digest in self._places:
            return self._places[digest]
        if self._file is None:
            self._file = open(self._folder / WEIGHTS, "wb")
        align = _PAGE if len(data) >= _LARGE else 64
        gap = -self._size % align
        self._file.write(b"\0" * gap + data)
        self._places[digest] = _Place(self._size + gap, len(data))
        self._size += gap + len(data)
        return self._places[digest]
