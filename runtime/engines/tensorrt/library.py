"""The two TensorRT libraries behind one name: loading them, their one logger, and what its messages mean."""

from __future__ import annotations

import functools
import importlib
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

from ...errors import MindDiffuserError, MissingExtra, check_choice

# What setTensorAddress asks of every buffer, in bytes.
ALIGNMENT = 256


@dataclass(frozen=True)
class Library:
    """How a target's library is imported, which extra brings it, and what people call it."""

    module: str
    extra: str
    label: str


LIBRARIES = {
    "tensorrt": Library("tensorrt", "gpu", "TensorRT"),
    "tensorrt-rtx": Library("tensorrt_rtx", "rtx", "TensorRT-RTX"),
}


class TrtFailure(MindDiffuserError, RuntimeError):
    """TensorRT could not build, load or run something; the message holds its reason."""


def load_library(target: str) -> Any:
    """Import the library of a target: the module ``tensorrt`` or ``tensorrt_rtx``, which have the same shape.

    Raises
    ------
    InputError
        The target is none of TensorRT's.
    MissingExtra
        It is not installed, or does not load; the message names the extra.
    """
    check_choice("TensorRT target", target, LIBRARIES)
    library = LIBRARIES[target]
    try:
        return importlib.import_module(library.module)
    except (ImportError, OSError) as error:  # OSError: a shared object that is missing, or of another CUDA
        raise MissingExtra(
            f"target {target!r} needs {library.label}, which does not load ({_one_line(str(error))}): "
            f"pip install 'minddiffuser[{library.extra}]'"
        ) from error


def library_version(target: str) -> str | None:
    """The version of a target's library as it reports it, or None where it does not load."""
    try:
        return str(load_library(target).__version__)
    except MissingExtra:
        return None


# Both libraries keep the first logger that they are given for the whole process, and warn about any other.
@functools.cache
def messages_of(trt: Any) -> Any:
    """The logger of a library: keeps its last errors (`errors`), prints nothing."""

    class Messages(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=32)

        def log(self, severity: Any, msg: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(msg)

    return Messages()


def reason(messages: Any) -> str:
    """Say in one line what the errors since the last call were about; they are forgotten."""
    reported = [_plain(text) for text in messages.errors]
    messages.errors.clear()
    # The library repeats the driver's trouble while it cleans up after another error.
    specific = [text for text in reported if "catchCudaError" not in text] or reported
    return specific[0] if specific else "it gave no reason"


def is_memory(text: str) -> bool:
    """Whether a reason says that memory (of the GPU or the machine) ran out."""
    words = text.lower().replace(" ", "")
    return any(part in words for part in ("outofmemory", "bad_alloc", "memoryallocation", "insufficientmemory"))


_MESSAGE = re.compile(r"Error Code \d+: (?P<kind>[\w -]+?) \((?P<text>.*)\)$")
_SOURCE = re.compile(r"\[\w+\.(?:cpp|h|hpp):\d+: \w+\] ")
_PLACE = re.compile(r"\s*\bIn \w+ at \S+?:\d+\b.*$")


def _plain(message: str) -> str:
    """A message without the library's own file names and line numbers."""
    line = _SOURCE.sub("", _one_line(message))
    found = _MESSAGE.search(line)
    if found is None:
        return _PLACE.sub("", line)
    text = _PLACE.sub("", found["text"]).strip()
    return f"{found['kind']}: {text}" if text else found["kind"]


def _one_line(text: str) -> str:
    return " ".join(text.split())
