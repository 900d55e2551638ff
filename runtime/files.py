"""Files that are whole or absent: written to a temporary name and renamed, read with one clear error."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FileError

Array = NDArray[Any]
# Name -> (dtype, shape), where -1 in a shape stands for any size.
Expected = Mapping[str, tuple[type, tuple[int, ...]]]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there on success, remove it on failure.

    The file may be read by whoever the process's umask allows, whatever wrote it (safetensors makes files that only
    their owner can read). A full disk or a folder that cannot be written becomes a :class:`FileError`.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(draft, "wb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            yield draft
            os.chmod(draft, mode)
            with open(draft, "r+b") as file:  # Windows cannot flush a handle that was opened for reading
                os.fsync(file.fileno())
            draft.replace(path)
    finally:
        with suppress(OSError):  # the folder may not even be one
            draft.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses inside becomes :func:`cannot_write`'s error; a :class:`FileError` is one already."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> FileError:
    """What to say where the system does not let us write."""
    name = f"{path}" if len(f"{path}") <= 120 else f"{str(path)[:60]}…"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FileError(f"the disk is full while writing {name}: free some space and run the same command again")
    reason = " ".join((error.strerror or str(error)).split())
    return FileError(f"{name} cannot be written ({reason}): choose another folder or change its permissions")


def cannot_open(what: str, path: Path, error: OSError) -> FileError:
    """What to say of a file that is there, perhaps whole, and that the system does not let us read."""
    return FileError(
        f"{what} at {path} cannot be opened ({error.strerror or error}): check that it is a file, that the drive is "
        "there, and your permissions"
    )


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as draft:
        draft.write_bytes(data)


def write_json(path: Path, content: object) -> None:
    """Write JSON that a person can read; NaN is refused, and so is text that UTF-8 cannot hold."""
    try:
        data = json_bytes(content)
    except UnicodeEncodeError as error:  # a lone surrogate: bytes from the command line that are no UTF-8
        shown = ascii(error.object[max(error.start - 20, 0) : error.end])
        raise FileError(
            f"{path} cannot be written: a text in it is not Unicode (near {shown}): give names and notes in UTF-8"
        ) from error
    write_bytes(path, data)


def json_bytes(content: object) -> bytes:
    """What :func:`write_json` writes."""
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object; `what` names the file's role in the error ("the checkpoint's description")."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileError(f"{what} is missing: {path} does not exist") from None
    except OSError as error:
        raise cannot_open(what, path, error) from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{what} at {path} cannot be read ({error}): it is damaged, make it again") from error
    if not isinstance(content, dict):
        raise FileError(f"{what} at {path} holds a {type(content).__name__}, expected a JSON object: make it again")
    return content


def write_tensors(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write numpy arrays as safetensors."""
    from safetensors.numpy import save_file

    solid = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with replacing(path) as draft:
        try:
            save_file(solid, draft, metadata=dict(metadata or {}))
        except Exception as error:  # safetensors wraps the system's error in its own type, keeping only the text
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device") from error
            raise


def read_tensors(path: Path, what: str) -> dict[str, Array]:
    """Read every array of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        with open(path, "rb"):  # safetensors gives one error for a missing file, a folder and a forbidden one
            pass
        return load_file(path)
    except FileNotFoundError:
        raise FileError(f"{what} is missing: {path} does not exist") from None
    except OSError as error:
        raise cannot_open(what, path, error) from error
    except (SafetensorError, ValueError) as error:
        raise FileError(
            f"{what} at {path} cannot be read ({error}): it is truncated or damaged, make it again"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:  # which one depends on safetensors' version
        raise FileError(
            f"{what} at {path} holds a number type that numpy does not have, such as bfloat16 ({error}): save float32"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says besides its arrays."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return dict(file.metadata() or {})


def check_arrays(arrays: Mapping[str, Array], path: Path, expected: Expected, advice: str) -> None:
    """Refuse arrays of a file unless all of `expected` are there and hold neither NaN nor infinite values.

    Raises
    ------
    FileError
        One is missing, of another dtype or shape, or not finite.
    """
    for name, (dtype, shape) in expected.items():
        array = arrays.get(name)
        if array is None or array.dtype != dtype or not _matches(array.shape, shape):
            got = "missing" if array is None else f"{array.dtype} {array.shape}"
            wanted = f"{np.dtype(dtype)} {str(shape).replace('-1', 'any')}"
            raise FileError(f"{path}: array {name!r} is {got}, expected {wanted}: {advice}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FileError(f"{path}: array {name!r} holds NaN or infinite values: {advice}")


def _matches(got: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(got) == len(wanted) and all(want in (-1, size) for size, want in zip(got, wanted, strict=True))


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes.

    Raises
    ------
    FileError
        The file is missing or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(
            f"{path} cannot be read ({error.strerror}): check that it is there, and its permissions"
        ) from error


def hash_of_json(content: object, separators: tuple[str, str] | None = None) -> str:
    """The hexadecimal SHA-256 of JSON, whatever the order of its names; `separators` as of :func:`json.dumps`."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=separators).encode()).hexdigest()


def natural(name: str) -> tuple[Any, ...]:
    """A sort key that takes runs of digits as whole numbers: "2" comes before "10", however they are padded."""
    words = re.split("([0-9]+)", name)  # words at even places, digits at odd ones
    numbers = [number.lstrip("0") for number in words[1::2]]
    return (words[0], *((len(n), n, word) for n, word in zip(numbers, words[2::2], strict=True)), (-1, name, ""))


def check_format(content: Mapping[str, Any], path: Path, kind: str, version: int) -> None:
    """Refuse a description of another kind or version.

    Every self-describing file starts with {"format": "minddiffuser-<kind>", "version": <int>}.
    """
    if content.get("format") != f"minddiffuser-{kind}":
        raise FileError(f"{path} is not a MindDiffuser {kind} (format {content.get('format')!r:.60}): check the path")
    if content.get("version") != version:
        raise FileError(
            f"{path} has {kind} version {content.get('version')!r:.30}, this release reads version {version}: "
            "make it again with this release, or install the release that wrote it"
        )
