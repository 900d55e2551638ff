"""A bundle's folder is written beside its place and put there whole: a killed export leaves the old bundle or none."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundle.manifest import KIND, MANIFEST, ORT_CACHE, PRECISIONS, TARGETS
from ...runtime.bundle.open import Bundle
from ...runtime.errors import FileError
from ...runtime.files import read_json
from ...runtime.locks import beside, locked
from ...runtime.output import check_place, contents, is_left, is_leftover, left_beside, replacing_folder, restore

# What md-export build names itself: a plan, or a folder of the engines of ONNX Runtime's TensorRT provider.
_STEM = rf"[A-Za-z0-9_]+\.(?:{'|'.join(PRECISIONS)})\.[0-9a-f]{{12}}"
_PLAN = re.compile(rf"{_STEM}\.plan")
_CACHE = re.compile(rf"{_STEM}|\.[A-Za-z0-9_]+\.(?:{'|'.join(PRECISIONS)})\.\d+\.draft")
# What ONNX Runtime's TensorRT provider writes into its cache.
_CACHED = frozenset({".engine", ".profile", ".timing"})


def is_built(folder: Path, path: Path) -> bool:
    """Whether a file in a bundle is one that ``md-export build`` makes: by its place, its name, and as a plain file."""
    parts = path.relative_to(folder).parts
    plain = path.is_file() and not path.is_symlink()
    if len(parts) < 3 or parts[0] != "engines" or parts[1] not in TARGETS[1:] or not plain:
        return False
    if len(parts) == 3:
        return _PLAN.fullmatch(parts[2]) is not None or is_leftover(parts[2])
    return len(parts) == 4 and is_cache(folder, path.parent) and path.suffix in _CACHED


def is_cache(folder: Path, path: Path) -> bool:
    """Whether a folder in a bundle is where ``md-export build`` keeps engines of ONNX Runtime's TensorRT provider."""
    parts = path.relative_to(folder).parts
    own = len(parts) == 3 and f"{parts[0]}/{parts[1]}/" == ORT_CACHE
    return own and _CACHE.fullmatch(parts[2]) is not None and path.is_dir() and not path.is_symlink()


def take_built(folder: Path, path: Path) -> None:
    """Take away a built engine, file or folder; a file that somebody has put there stays, and so does its folder."""
    if not is_cache(folder, path):
        if is_built(folder, path):
            path.unlink(missing_ok=True)
        return
    for inner in path.iterdir():
        if is_built(folder, inner):
            inner.unlink(missing_ok=True)
    if not any(path.iterdir()):
        path.rmdir()


def check_out(out: Path, *, force: bool = False) -> None:
    """Refuse an output folder that cannot be made or in which anything would be lost.

    Call it before anything is opened or made. A bundle that a killed export had set aside is put back.

    Raises
    ------
    FileError
        It is no folder, or holds something else than one bundle; or a bundle, and `force` is False; or another process
        is writing it, or it cannot be written.
    """
    check_place(out, beside=True)
    if any(kind == "old" for _, kind in left_beside(out)):
        with locked(beside(out), out):
            restore(out)
    _checked(out, force=force)


def _checked(out: Path, *, force: bool) -> Path | None:
    """The bundle that is there to be replaced, or None."""
    if _is_free(out):
        return None
    content = _manifest(out)
    if content.get("format") != f"minddiffuser-{KIND}":
        raise FileError(f"{out} exists and is not a bundle: give another --out folder")
    _refuse_strangers(out, content["files"])
    if not force:
        raise FileError(
            f"{out} holds a bundle already{_with_built(out)}: give --force to replace it, or another --out folder"
        )
    return out


def _manifest(out: Path) -> dict[str, Any]:
    """What identifies a bundle's own files; nothing where there is no manifest."""
    path = out / MANIFEST
    if not path.is_file():
        return {}
    try:
        content = read_json(path, "the manifest of what is there")
    except FileError:
        content = {"format": f"minddiffuser-{KIND}"}
    if content.get("format") == f"minddiffuser-{KIND}" and not isinstance(content.get("files"), dict):
        raise FileError(
            f"{path} is damaged, so the bundle's own files in that folder cannot be identified: move the folder away, "
            "or give another --out folder"
        )
    return content


def _with_built(out: Path) -> str:
    old = _described(out)
    built = sorted({v.target for v in old.variants if v.target != "onnx"}) if isinstance(old, Bundle) else []
    return f", with engines built for {', '.join(built)} (kept where their graphs stay the same)" if built else ""


def _described(out: Path) -> Bundle | str:
    """A bundle as its manifest describes it, or one sentence on why that is unknown."""
    try:
        return Bundle.described(out)
    except FileError as error:
        return str(error)


def _is_free(out: Path) -> bool:
    """Whether there is nothing, or an empty folder."""
    try:
        return not os.path.lexists(out) or (out.is_dir() and not contents(out))
    except OSError as error:
        raise FileError(f"{out} cannot be read ({error.strerror}): give another --out folder") from error


def _refuse_strangers(out: Path, listed: Collection[str]) -> None:
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        known = name in listed or name == MANIFEST or is_left(path) or is_built(out, path)
        if not known and (path.is_symlink() or not path.is_dir()):
            raise FileError(
                f"{out} holds {name}, which is not part of the bundle there and would be lost: move it away, or give "
                "another --out folder"
            )


@dataclass(frozen=True, eq=False)
class Place:
    """Where a bundle is written: a draft folder, and what it will replace, if there is something.

    Attributes
    ----------
    old : Bundle or None
        As its manifest describes it, whatever its files are.
    unknown : str or None
        Why it cannot be said what the old bundle holds.
    """

    draft: Path
    old: Bundle | None
    unknown: str | None = None


@contextmanager
def in_place_of(out: Path, *, force: bool = False) -> Iterator[Place]:
    """A draft folder beside `out` that takes its place where the block ends well, and is gone where it does not.

    For the one who holds the lock beside `out`. What an earlier export left behind is taken away, and an old bundle
    that it had set aside is put back.

    Raises
    ------
    FileError
        `out` cannot be written, or something would be lost; see :func:`check_out`.
    """
    restore(out)
    there = _checked(out, force=force)
    old = None if there is None else _described(there)
    # Checked once more at the end: somebody may have put something there meanwhile.
    with replacing_folder(out, MANIFEST, check=lambda: _checked(out, force=force)) as draft:
        yield Place(draft, None, old) if isinstance(old, str) else Place(draft, old)
