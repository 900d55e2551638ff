"""Arrays of a safetensors file, mapped and not read: what nobody looks at costs no memory and no time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError
from ..files import cannot_open
from .recognise import SAFETENSORS, recognise

_DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}


def map_tensors(path: Path, what: str) -> dict[str, NDArray[Any]]:
    """Map every array of a safetensors file, read-only.

    Parameters
    ----------
    path : the file; its header is checked against its length.
    what : its role, for messages ("the train split").

    Raises
    ------
    FileError
        It is missing, truncated, no safetensors file, or holds a number type that numpy has not.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb"):  # safetensors gives one error for a missing file, a folder and a forbidden one
            pass
        with safe_open(path, framework="numpy"):  # checks the header: names, dtypes, places, and that none is missing
            pass
        start, header = _header(path)
        return {name: _map(path, start, entry) for name, entry in header.items()}
    except FileNotFoundError:
        raise FileError(f"{what} is missing: {path} does not exist") from None
    except KeyError as error:
        raise FileError(
            f"{what} at {path} holds numbers of type {error.args[0]}, which numpy does not have: save float32"
        ) from error
    except OSError as error:
        raise cannot_open(what, path, error) from error
    except (SafetensorError, ValueError) as error:
        raise FileError(_unreadable(path, what, error)) from error


def _header(path: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return 8 + length, header


def _map(path: Path, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    if math.prod(shape) == 0:  # nothing that could be mapped
        return np.zeros(shape, dtype)
    mapped = np.memmap(path, dtype, mode="r", offset=start + entry["data_offsets"][0], shape=shape)
    return mapped.view(np.ndarray)


def _unreadable(path: Path, what: str, error: Exception) -> str:
    kind = recognise(path)
    if kind is None or kind is SAFETENSORS:
        reason = " ".join(str(error).split())
        return f"{what} at {path} cannot be read ({reason:.100}): it is truncated or damaged, make it again"
    return (
        f"{what} at {path} is {kind.name}, expected a safetensors file: copy it again, or write the data folder anew "
        "with write_data (docs/data_folder.md)"
    )
