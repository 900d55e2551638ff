"""Which files an .onnx file names, found before any parser of ONNX sees it.

A graph may keep its weights in other files, and name any file of the machine as such: one from a stranger is looked
through here first, by walking protobuf's wire format in place. Nothing is decoded but the names of those files.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ..errors import FileError

# Message -> number of a field that holds messages -> their kind: every way from a model to a tensor (onnx.proto).
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "ExternalData"},
}
_OP_TYPE, _KEY, _VALUE = 4, 1, 2
_LOCATION, _COMPILED = b"location", b"EPContext"
_DEEPEST = 100  # protobuf's own limit on nesting
_LARGEST = (1 << 31) - 1  # protobuf's own limit on a message, in bytes
_SMALL = 1 << 14
# Bytes that follow the tag, for fields of a fixed size.
_FIXED = {1: 8, 5: 4}
_VARINT, _BYTES = 0, 2


class _DamagedError(Exception):
    """The bytes are no protobuf message; the text says where and why."""


def scan_onnx_external(path: Path) -> frozenset[str]:
    """The names (ONNX's ``location``) of all other files from which an .onnx file takes tensors.

    Looks at initializers, sparse ones too, and at tensors in attributes, in subgraphs, functions and training
    graphs. A name counts even where the tensor's ``data_location`` says that it is not used. Data and parts that
    cannot name a file are stepped over, so this is no proof that the file is a good model.

    Raises
    ------
    FileError
        The file is missing or damaged, or holds an EPContext node: that names a compiled engine, or is one.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _locations(data, path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"{path} cannot be read ({error.strerror}): check that it is there, and its permissions"
        ) from error
    except (_DamagedError, ValueError) as error:
        reason = error if isinstance(error, _DamagedError) else "it is empty"  # which is all that mmap refuses
        raise FileError(f"{path} is no ONNX file, or is damaged ({reason}): export it again") from error


def _locations(data: mmap.mmap, path: Path) -> frozenset[str]:
    if len(data) > _LARGEST:
        raise _DamagedError(f"{len(data)} bytes are more than ONNX allows in one file")
    if data[4:8] == b"ORTM":  # ONNX Runtime would take it for its own format, which is not looked through here
        raise _DamagedError("it is in ONNX Runtime's own format")
    found: set[str] = set()
    waiting = [("Model", 0, len(data), 1)]
    while waiting:
        kind, start, stop, depth = waiting.pop()
        if depth > _DEEPEST:
            raise _DamagedError(f"messages are nested more than {_DEEPEST} deep")
        if kind == "ExternalData":
            found |= _location(data, start, stop)
            continue
        children = _CHILDREN[kind]
        for number, first, last in _byte_fields(data, start, stop):
            if number in children:
                if _may_name_a_file(data, first, last):
                    waiting.append((children[number], first, last, depth + 1))
            elif kind == "Node" and number == _OP_TYPE and data[first:last] == _COMPILED:
                raise FileError(
                    f"{path} holds a compiled engine (a node EPContext), which cannot be checked: "
                    "ask for the plain graph, and compile it on this machine"
                )
    return frozenset(found)


def _may_name_a_file(data: mmap.mmap, start: int, stop: int) -> bool:
    """False for a small message without the words by which files are named; most nodes are left out like this."""
    if stop - start > _SMALL:
        return True
    content = data[start:stop]
    return _LOCATION in content or _COMPILED in content


def _location(data: mmap.mmap, start: int, stop: int) -> set[str]:
    """The value of an entry whose key is "location"; every value, if several are given."""
    keys: list[bytes] = []
    values: list[bytes] = []
    for number, first, last in _byte_fields(data, start, stop):
        if number in (_KEY, _VALUE):
            (keys if number == _KEY else values).append(data[first:last])
    if _LOCATION not in keys:
        return set()
    try:
        return {value.decode() for value in values} or {""}
    except UnicodeDecodeError as error:
        raise _DamagedError(f"a file's name at byte {start} is not Unicode") from error


def _byte_fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, stop) of a message's fields of texts, bytes and messages; the others are stepped over."""
    at = start
    while at < stop:
        began = at
        tag, at = _varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag > 0xFFFFFFFF:
            raise _DamagedError(f"byte {began} begins no field")
        if wire == _BYTES:
            size, at = _varint(data, at, stop)
            if size > stop - at:
                raise _DamagedError(f"the field at byte {began} is longer than what holds it")
            yield number, at, at + size
            at += size
        elif wire == _VARINT:
            _, at = _varint(data, at, stop)
        elif wire in _FIXED:
            at += _FIXED[wire]
            if at > stop:
                raise _DamagedError(f"the field at byte {began} is cut off")
        else:  # groups: parsers differ in what they make of them, and ONNX has none
            raise _DamagedError(f"byte {began} begins no field")


def _varint(data: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    """(value, where the next thing begins) of a number of variable length."""
    if at < stop and data[at] < 128:  # nearly all of them
        return data[at], at + 1
    value = shift = 0
    for place in range(at, min(at + 10, stop)):
        byte = data[place]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place + 1
        shift += 7
    raise _DamagedError(f"the number at byte {at} does not end")
