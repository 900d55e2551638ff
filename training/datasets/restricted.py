"""The published dictionaries of THINGS-EEG2, read without running any code that a file may hold.

Two kinds of file share their names: ``numpy.save`` of a dictionary (an object array, that is a pickle behind numpy's
header) and ``pickle.dump`` of the dictionary itself. Both are pickles, and a pickle is a program: Python's own reader
imports and calls whatever the file names. This one is no unpickler with a filter. It knows the few instructions that
build dictionaries, lists, tuples, text, numbers and numpy arrays; a name in the file is compared with a short list and
never imported, and nothing in the file is ever called. Anything else is refused by its name.

Memory: the file is mapped. Arrays are views of the mapped file, read-only, so that a dictionary of 8 GB costs a few
kilobytes until somebody looks at a slice. A pickle keeps an array's bytes in one piece (framing in protocol 4 and 5
never cuts an instruction), so this holds for all arrays; text and numbers are copied. No size that a file states is
believed: whatever it announces must lie in the file.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.recognise import NPY, recognise
from ...runtime.errors import FileError, shown
from ...runtime.files import cannot_open

# A published file has some hundred instructions, image_metadata.npy some hundred thousand.
_MOST_INSTRUCTIONS = 2_000_000
_MOST_VALUES = 500_000
_DEEPEST = 20
_LONGEST_NUMBER = 64  # bytes of a whole number
_LONGEST_NAME = 200
_LONGEST_COPIED = 1 << 16  # bytes beyond which a byte string stays in the mapped file
_PROTOCOLS = range(2, 6)
_DTYPE = re.compile(r"[<>=|]?[biufcSUO]\d{1,9}")
_KEYS = (str, int, float, bytes, type(None), np.generic)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A dictionary of a published file.

    Attributes
    ----------
    path
        The file.
    form
        "np.save" or "pickle".
    content
        Of plain types: dict, list, tuple, str, int, float, bool, None, bytes (long ones as a read-only memoryview),
        numpy scalars and read-only numpy arrays, which are views of the mapped file.
    """

    path: Path
    form: str
    content: Mapping[Any, Any]


def read_published(path: Path, what: str) -> Published:
    """Read a dictionary that was saved by ``numpy.save`` or ``pickle.dump``, told apart by their contents.

    Parameters
    ----------
    path
        The file; its name says nothing.
    what
        Its role, for messages ("the training epochs").

    Raises
    ------
    FileError
        It is missing, truncated, of another kind, no dictionary, or holds anything but arrays and plain containers; the
        message names what.
    """
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise FileError(f"{what} is missing: {path} does not exist") from None
    except ValueError:  # an empty file cannot be mapped
        raise FileError(f"{what} at {path} is empty: copy it again") from None
    except OSError as error:
        raise cannot_open(what, path, error) from error
    try:
        form, content = _read(memoryview(mapped), path, what)
    except _Refused as refusal:
        raise FileError(f"{what} at {path} {refusal}") from None
    return Published(path=path, form=form, content=content)


class _Refused(Exception):
    """What is wrong with the file, to follow its name."""


def _read(data: memoryview, path: Path, what: str) -> tuple[str, dict[Any, Any]]:
    if bytes(data[:6]) == b"\x93NUMPY":
        start = _object_array(path)
        value = _Machine(data, start).run()
        form = "np.save"
        if isinstance(value, np.ndarray) and value.dtype.kind == "O" and value.shape == ():
            value = value[()]
    elif len(data) > 1 and data[0] == 0x80:
        value, form = _Machine(data, 0).run(), "pickle"
    else:
        kind = recognise(path)
        name = "of no kind that is known here" if kind is None else kind.name
        raise _Refused(f"is {name}, expected a dictionary saved by numpy.save or pickle.dump: {_AGAIN}")
    if not isinstance(value, dict):
        raise _Refused(f"holds {_kind(value)}, expected a dictionary: {_AGAIN}")
    return form, value


_AGAIN = "give the file as it was published"


def _object_array(path: Path) -> int:
    """Where the pickle starts behind numpy's header."""
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
        except Exception as error:  # of a damaged header, those of numpy's parser and tokenizer among them
            raise _Refused(f"has a damaged NumPy header ({' '.join(str(error).split()):.80}): copy it again") from error
        start = file.tell()
    if dtype.kind != "O":
        looks = ""
        if len(shape) == 2:
            looks = ", which looks like responses of fMRI (trials, voxels)"
        elif len(shape) == 3:
            looks = ", which looks like epochs without their dictionary (trials, channels, samples)"
        raise _Refused(f"is {NPY.name} of {dtype} {shape}{looks}, expected a dictionary: {_AGAIN}")
    return start


def _kind(value: object) -> str:
    """What a value is, in words."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    return f"a {type(value).__name__}"


# What a pickle may name, and what stands here in its place. Nothing is imported or called by these names.
_NAMES: dict[tuple[str, str], str] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    **{(f"numpy.{core}.multiarray", name): name for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "_frombuffer" for core in ("core", "_core")},
}


@dataclass(frozen=True)
class _Name:
    """One of the values of `_NAMES`, on the stack."""

    name: str


@dataclass(eq=False)
class _Dtype:
    """A numpy dtype that is being built."""

    value: np.dtype[Any]
    built: bool = False


@dataclass(eq=False)
class _Array:
    """A numpy array that is being built."""

    value: NDArray[Any] | None = None


class _Mark:
    """Where a group of values begins on the stack."""


_MARK = _Mark()


class _Machine:
    """Runs the instructions of one pickle that build data; see :func:`read_published`."""

    def __init__(self, data: memoryview, start: int) -> None:
        self._data, self._at = data, start
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the value that the pickle builds, of plain types."""
        for _ in range(_MOST_INSTRUCTIONS):
            code = self._take(1)[0]
            if code == 0x2E:  # STOP
                return _Plain().of(self._pop())
            step = _STEPS.get(code)
            if step is None:
                raise _Refused(
                    f"holds {_REFUSED.get(code, f'the unknown instruction 0x{code:02x} at byte {self._at - 1}')}, and "
                    f"only arrays and plain containers are read: {_AGAIN}"
                )
            step(self)
        raise _Refused(f"holds more than {_MOST_INSTRUCTIONS} pickle instructions, which no published file does")

    # --- bytes -------------------------------------------------------------------------------------------------------

    def _take(self, n: int) -> memoryview:
        """The next `n` bytes, not copied."""
        end = self._at + n
        if end > len(self._data):
            raise _Refused(
                f"ends after {len(self._data)} bytes, where {end} at least are expected: it is truncated, copy it again"
            )
        part = self._data[self._at : end]
        self._at = end
        return part

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        """Text up to the end of the line, as names are written in old protocols."""
        head = bytes(self._data[self._at : self._at + _LONGEST_NAME])
        end = head.find(b"\n")
        if end < 0:
            raise _Refused(f"holds a name of more than {_LONGEST_NAME} bytes or without an end: {_AGAIN}")
        self._at += end + 1
        return head[:end].decode("utf-8", "replace")

    def _text(self, length: int) -> str:
        try:
            return str(self._take(length), "utf-8")
        except UnicodeDecodeError:
            raise _Refused("holds text that is not UTF-8: it is damaged, copy it again") from None

    # --- stack -------------------------------------------------------------------------------------------------------

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise _Refused("is no whole pickle: it is damaged, copy it again")
        return self._stack.pop()

    def _last(self, kind: type, what: str) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise _Refused(f"puts something into what is no {what}: it is damaged, copy it again")
        return self._stack[-1]

    def _group(self) -> list[Any]:
        """The values above the last mark, which is taken away with them."""
        for start in range(len(self._stack) - 1, -1, -1):
            if self._stack[start] is _MARK:
                values = self._stack[start + 1 :]
                del self._stack[start:]
                return values
        raise _Refused("is no whole pickle: it is damaged, copy it again")

    def _remember(self, key: int) -> None:
        if not self._stack or self._stack[-1] is _MARK:
            raise _Refused("is no whole pickle: it is damaged, copy it again")
        self._memo[key] = self._stack[-1]

    def _recall(self, key: int) -> None:
        if key not in self._memo:
            raise _Refused("is no whole pickle: it is damaged, copy it again")
        self._stack.append(self._memo[key])

    # --- instructions ------------------------------------------------------------------------------------------------

    def protocol(self) -> None:
        version = self._take(1)[0]
        if version not in _PROTOCOLS:
            raise _Refused(f"is a pickle of protocol {version}, which is unknown here: {_AGAIN}")

    def frame(self) -> None:
        self._number("<Q")  # how many bytes follow without a break: nothing depends on it here

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def long(self, size: str) -> None:
        length = self._number(size)
        if not 0 <= length <= _LONGEST_NUMBER:
            raise _Refused(f"holds a whole number of {length} bytes: {_AGAIN}")
        self.push(int.from_bytes(self._take(length), "little", signed=True))

    def words(self, size: str) -> None:
        self.push(self._text(self._number(size)))

    def raw(self, size: str) -> None:
        part = self._take(self._number(size))
        self.push(part if len(part) > _LONGEST_COPIED else bytes(part))

    def tuple_of(self, n: int) -> None:
        values = [self._pop() for _ in range(n)]
        self.push(tuple(reversed(values)))

    def append(self) -> None:
        value = self._pop()
        self._last(list, "list").append(value)

    def appends(self) -> None:
        values = self._group()
        self._last(list, "list").extend(values)

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._put_items([key, value])

    def set_items(self) -> None:
        self._put_items(self._group())

    def new_dict(self) -> None:
        items = self._group()
        self.push({})
        self._put_items(items)

    def _put_items(self, items: list[Any]) -> None:
        target = self._last(dict, "dictionary")
        if len(items) % 2:
            raise _Refused("is no whole pickle: it is damaged, copy it again")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _KEYS):
                raise _Refused(f"holds a dictionary with a key that is {_kind(key)}: {_AGAIN}")
            target[key] = value

    def pop(self) -> None:
        if not self._stack:
            raise _Refused("is no whole pickle: it is damaged, copy it again")
        self._stack.pop()

    def pop_group(self) -> None:
        self._group()

    def duplicate(self) -> None:
        value = self._pop()
        self._stack += [value, value]

    def memoize(self) -> None:
        self._remember(len(self._memo))

    def put(self, size: str) -> None:
        self._remember(self._number(size))

    def get(self, size: str) -> None:
        self._recall(self._number(size))

    def name(self) -> None:
        module = self._line()
        self._push_name(module, self._line())

    def stack_name(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise _Refused("names something by what is no text: it is damaged, copy it again")
        self._push_name(module, name)

    def _push_name(self, module: str, name: str) -> None:
        found = _NAMES.get((module, name))
        if found is None:
            raise _Refused(
                f"names {_printable(f'{module}.{name}')}, and only numpy arrays and plain containers are read, as "
                f"anything else could run code: {_AGAIN}"
            )
        self.push(_Name(found))

    def call(self) -> None:
        """Make what the file asks numpy for; no function is called by a name from the file."""
        given, name = self._pop(), self._pop()
        if not isinstance(name, _Name) or not isinstance(given, tuple):
            raise _Refused(f"calls {_kind(name)}, which could run code: {_AGAIN}")
        make = _CALLS.get(name.name)
        if make is None:
            raise _Refused(f"calls numpy.{name.name}, which the published files do not: {_AGAIN}")
        self.push(make(given))

    def build(self) -> None:
        state, target = self._pop(), self._stack[-1] if self._stack else None
        if isinstance(target, _Dtype):
            _build_dtype(target, state)
        elif isinstance(target, _Array):
            _build_array(target, state)
        else:
            raise _Refused(f"sets the state of {_kind(target)}, which could run code: {_AGAIN}")


def _printable(name: str) -> str:
    return shown(name)[1:-1]


def _new_array(given: tuple[Any, ...]) -> _Array:
    """`_reconstruct(ndarray, (0,), b"b")`: an empty array, whose state follows."""
    if len(given) != 3 or given[0] != _Name("ndarray"):
        raise _Refused(f"asks for an array of another class than numpy.ndarray: {_AGAIN}")
    return _Array()


def _new_dtype(given: tuple[Any, ...]) -> _Dtype:
    """`dtype("f8", False, True)`."""
    if not given or not isinstance(given[0], str) or not _DTYPE.fullmatch(given[0]):
        raise _Refused(f"holds an array of dtype {shown(given[0] if given else given)}: {_AGAIN}")
    text = "O" if given[0].strip("<>=|").startswith("O") else given[0]
    try:
        return _Dtype(np.dtype(text))
    except (TypeError, ValueError):
        raise _Refused(f"holds an array of dtype {shown(given[0])}: {_AGAIN}") from None


def _new_scalar(given: tuple[Any, ...]) -> np.generic:
    """`scalar(dtype, bytes)`: one number or text."""
    dtype = _built(given[0] if len(given) == 2 else None)
    if dtype.kind == "O":
        raise _Refused(f"holds a numpy scalar of Python's own objects: {_AGAIN}")
    value: Any = _viewed(given[1], dtype, (), "C")[()]
    return value  # type: ignore[no-any-return]


def _from_buffer(given: tuple[Any, ...]) -> _Array:
    """`_frombuffer(bytes, dtype, shape, order)`, of protocol 5."""
    if len(given) != 4 or given[3] not in ("C", "F"):
        raise _Refused(f"holds an array in an unknown form: {_AGAIN}")
    dtype = _built(given[1])
    if dtype.kind == "O":
        raise _Refused(f"holds Python's own objects as bytes: {_AGAIN}")
    return _Array(_viewed(given[0], dtype, given[2], given[3]))


def _encode(given: tuple[Any, ...]) -> bytes:
    """`encode(text, "latin1")`: bytes, in protocol 2."""
    if len(given) != 2 or not isinstance(given[0], str) or given[1] not in ("latin1", "latin-1"):
        raise _Refused(f"encodes text in an unknown way: {_AGAIN}")
    try:
        return given[0].encode("latin-1")
    except UnicodeEncodeError:
        raise _Refused("holds bytes that are none: it is damaged, copy it again") from None


_CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "_reconstruct": _new_array,
    "dtype": _new_dtype,
    "scalar": _new_scalar,
    "_frombuffer": _from_buffer,
    "encode": _encode,
}


def _built(dtype: object) -> np.dtype[Any]:
    if not isinstance(dtype, _Dtype):
        raise _Refused(f"holds an array whose dtype is {_kind(dtype)}: {_AGAIN}")
    return dtype.value


def _build_dtype(target: _Dtype, state: Any) -> None:
    """`(3, "<", None, None, None, -1, -1, 0)`: byte order; no fields, no names, no array inside, no metadata."""
    good = isinstance(state, tuple) and len(state) == 8 and state[0] == 3 and state[1] in ("<", ">", "|", "=")
    if not good or any(part is not None for part in state[2:5]) or target.built:
        raise _Refused(f"holds an array with fields or metadata: {_AGAIN}")
    if state[1] in "<>":
        target.value = target.value.newbyteorder(state[1])
    target.built = True


def _build_array(target: _Array, state: Any) -> None:
    """`(1, shape, dtype, Fortran's order or not, bytes or list)`."""
    if not isinstance(state, tuple) or len(state) != 5 or target.value is not None:
        raise _Refused(f"holds an array in an unknown form: {_AGAIN}")
    _, shape, dtype, fortran, content = state
    order: Literal["C", "F"] = "F" if fortran else "C"
    if _built(dtype).kind != "O":
        target.value = _viewed(content, _built(dtype), shape, order)
        return
    n = _count(shape)
    if not isinstance(content, list) or len(content) != n:
        raise _Refused(f"holds an array of objects {shown(shape)} without its {n} objects: {_AGAIN}")
    value = np.empty(n, object)
    for place, item in enumerate(content):
        value[place] = item
    target.value = value.reshape(shape, order=order)


def _viewed(content: Any, dtype: np.dtype[Any], shape: Any, order: Any) -> NDArray[Any]:
    """An array over the bytes as they lie, of exactly their length."""
    if not isinstance(content, bytes | memoryview):
        raise _Refused(f"holds an array whose numbers are {_kind(content)}: {_AGAIN}")
    n = _count(shape)
    if n * dtype.itemsize != len(content):
        raise _Refused(
            f"holds an array {dtype} {shown(shape)}, which needs {n * dtype.itemsize} bytes, and there are "
            f"{len(content)}: it is damaged, copy it again"
        )
    flat = np.frombuffer(content, dtype) if len(content) else np.zeros(n, dtype)
    return flat.reshape(shape, order=order)


def _count(shape: Any) -> int:
    """How many values an array of this shape has."""
    good = isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
    if not good:
        raise _Refused(f"holds an array of shape {shown(shape) if _is_flat(shape) else 'unknown'}: {_AGAIN}")
    n = 1
    for size in shape:
        n *= size
    if n == 0 and max(shape, default=0) > _MOST_VALUES:  # costs nothing here, and much where somebody walks over it
        raise _Refused(f"holds an empty array of shape {shown(shape)}: {_AGAIN}")
    return n


def _is_flat(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= 32 and all(isinstance(part, int) for part in value)


class _Plain:
    """What was built, with arrays in place of their halves; counts, so that no small file becomes a huge value."""

    def __init__(self) -> None:
        self._n = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        self._n += 1
        if depth > _DEEPEST:
            raise _Refused(f"is nested deeper than {_DEEPEST} levels, which no published file is: {_AGAIN}")
        if self._n > _MOST_VALUES:
            raise _Refused(f"holds more than {_MOST_VALUES} values, which no published file does: {_AGAIN}")
        if isinstance(value, dict):
            return {key: self.of(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.of(item, depth + 1) for item in value]
        if isinstance(value, tuple):
            return tuple(self.of(item, depth + 1) for item in value)
        if isinstance(value, _Array):
            return self._array(value.value, depth)
        if isinstance(value, _Dtype):
            return value.value
        if isinstance(value, _Name | _Mark):
            raise _Refused(f"holds a name in place of a value: {_AGAIN}")
        return value

    def _array(self, value: NDArray[Any] | None, depth: int) -> NDArray[Any]:
        if value is None:
            raise _Refused("holds an array without its numbers: it is damaged, copy it again")
        if value.dtype.kind != "O":
            return value
        flat = np.empty(value.size, object)
        for place, item in enumerate(value.reshape(-1)):
            flat[place] = self.of(item, depth + 1)
        plain: NDArray[Any] = flat.reshape(value.shape)
        plain.flags.writeable = False
        return plain


_Step = Callable[[_Machine], None]


def _pushes(make: Callable[[], Any]) -> _Step:
    return lambda machine: machine.push(make())


def _reads(form: str) -> _Step:
    return lambda machine: machine.push(machine._number(form))


_STEPS: dict[int, _Step] = {
    0x80: _Machine.protocol,
    0x95: _Machine.frame,
    ord("("): _pushes(lambda: _MARK),
    ord("N"): _pushes(lambda: None),
    0x88: _pushes(lambda: True),
    0x89: _pushes(lambda: False),
    ord("J"): _reads("<i"),
    ord("K"): _reads("<B"),
    ord("M"): _reads("<H"),
    ord("G"): _reads(">d"),
    0x8A: lambda machine: machine.long("<B"),
    0x8B: lambda machine: machine.long("<i"),
    0x8C: lambda machine: machine.words("<B"),
    ord("X"): lambda machine: machine.words("<I"),
    0x8D: lambda machine: machine.words("<Q"),
    ord("C"): lambda machine: machine.raw("<B"),
    ord("B"): lambda machine: machine.raw("<I"),
    0x8E: lambda machine: machine.raw("<Q"),
    0x96: lambda machine: machine.raw("<Q"),
    ord("]"): _pushes(list),
    ord("}"): _pushes(dict),
    ord(")"): _pushes(tuple),
    0x85: lambda machine: machine.tuple_of(1),
    0x86: lambda machine: machine.tuple_of(2),
    0x87: lambda machine: machine.tuple_of(3),
    ord("t"): lambda machine: machine.push(tuple(machine._group())),
    ord("l"): lambda machine: machine.push(machine._group()),
    ord("d"): _Machine.new_dict,
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    ord("0"): _Machine.pop,
    ord("1"): _Machine.pop_group,
    ord("2"): _Machine.duplicate,
    0x94: _Machine.memoize,
    ord("q"): lambda machine: machine.put("<B"),
    ord("r"): lambda machine: machine.put("<I"),
    ord("h"): lambda machine: machine.get("<B"),
    ord("j"): lambda machine: machine.get("<I"),
    ord("c"): _Machine.name,
    0x93: _Machine.stack_name,
    ord("R"): _Machine.call,
    ord("b"): _Machine.build,
}
# What other instructions would do, for the message.
_REFUSED = {
    0x81: "an object of a class (NEWOBJ)",
    0x92: "an object of a class (NEWOBJ_EX)",
    ord("i"): "an object of a class (INST)",
    ord("o"): "an object of a class (OBJ)",
    ord("P"): "a persistent object (PERSID)",
    ord("Q"): "a persistent object (BINPERSID)",
    0x82: "an extension's object (EXT1)",
    0x83: "an extension's object (EXT2)",
    0x84: "an extension's object (EXT4)",
    0x8F: "a set (EMPTY_SET)",
    0x90: "a set (ADDITEMS)",
    0x91: "a set (FROZENSET)",
    0x97: "a buffer outside the file (NEXT_BUFFER)",
    0x98: "a buffer outside the file (READONLY_BUFFER)",
}
