"""A bundle's folder is written beside its place and put there whole: a killed export leaves the old bundle or none."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..runtime.bundle import Bundle
from ..runtime.bundle_schema import MANIFEST, PRECISIONS, TARGETS
from ..runtime.errors import FileError
from ..runtime.files import read_json
from ..runtime.locks import beside, locked
from ..runtime.output import is_leftover

# What md-export build names itself: a plan, or a folder of the engines of ONNX Runtime's TensorRT provider.
_BUILT = re.compile(rf"[A-Za-z0-9_]+\.(?:{'|'.join(PRECISIONS)})\.[0-9a-f]{{12}}(?:\.plan)?")


def is_built(folder: Path, path: Path) -> bool:
    """Whether a path in a bundle is where ``md-export build`` puts engines, and named as it names them."""
    parts = path.relative_to(folder).parts
    own = len(parts) >= 3 and parts[0] == "engines" and parts[1] in TARGETS[1:]
    return own and (_BUILT.fullmatch(parts[2]) is not None or is_leftover(parts[2]))


def check_out(out: Path, *, force: bool = False) -> Bundle | None:
    """Refuse an output folder in which anything would be lost; call it before anything is opened or made.

    Returns
    -------
    The bundle that is there to be replaced, without its damaged engines; None where there is none.

    Raises
    ------
    FileError
        It is no folder, or holds something else than one bundle; or a bundle, and `force` is False.
    """
    there = _present(out)
    if there is None:
        return None
    manifest = there / MANIFEST
    content = read_json(manifest, "the manifest of what is there") if manifest.is_file() else {}
    if content.get("format") != "minddiffuser-bundle":
        raise FileError(f"{there} is there and is no bundle: give another --out folder")
    bundle = Bundle.open(there, verify=False, on_damaged=lambda _name, _reason: None)
    _refuse_strangers(there, content["files"])
    if not force:
        built = sorted({v.target for g in bundle.graphs.values() for v in g.variants if v.target != "onnx"})
        told = f", with engines built for {', '.join(built)} (kept where their graphs stay the same)" if built else ""
        raise FileError(f"{out} holds a bundle already{told}: give --force to replace it, or another --out folder")
    return bundle


def _present(out: Path) -> Path | None:
    """What would be replaced: `out`, or the bundle that a killed export had set aside."""
    if os.path.lexists(out) and not (out.is_dir() and not _names(out)):
        return out
    aside = _aside(out)
    return aside if os.path.lexists(aside) else None


def _aside(out: Path) -> Path:
    return out.parent / f".{out.name}.old"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not is_leftover(path.name))


def _refuse_strangers(out: Path, listed: Collection[str]) -> None:
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        known = name in listed or name == MANIFEST or is_leftover(path.name) or is_built(out, path)
        if not known and (path.is_symlink() or not path.is_dir()):
            raise FileError(
                f"{out} holds {name}, which is not of the bundle there and would be lost: move it away, or give "
                "another --out folder"
            )


@dataclass(frozen=True, eq=False)
class Place:
    """Where a bundle is written: a draft folder, and the bundle that it will replace, if there is one."""

    draft: Path
    old: Bundle | None


@contextmanager
def in_place_of(out: Path, *, force: bool = False) -> Iterator[Place]:
    """A draft folder beside `out` that takes its place where the block ends well, and is gone where it does not.

    What an earlier export left behind is taken away, and an old bundle that it had set aside is put back.

    Raises
    ------
    FileError
        Another process is writing `out`, it cannot be written, or something would be lost; see :func:`check_out`.
    """
    with locked(beside(out), out):
        try:
            yield from _drafted(out, force=force)
        except FileError:
            raise
        except OSError as error:
            raise FileError(
                f"{out} cannot be written ({error.strerror or error}): free some space or choose another folder"
            ) from error


def _drafted(out: Path, *, force: bool) -> Iterator[Place]:
    old = check_out(out, force=force)
    _put_back(out)
    old = check_out(out, force=force) if old is not None else None  # by its own path again
    aside, draft = _aside(out), out.parent / f".{out.name}.{os.getpid()}.draft"
    draft_name = re.compile(rf"\.{re.escape(out.name)}\.\d+\.draft")
    for left in out.parent.iterdir():
        if draft_name.fullmatch(left.name):  # of this bundle, and not of one whose name begins so
            shutil.rmtree(left, ignore_errors=True)
    try:
        draft.mkdir()
        yield Place(draft, old)
        check_out(out, force=force)  # what somebody has put there meanwhile
        if out.exists():
            out.rename(aside)
        draft.rename(out)
        if aside.exists():
            aside.rename(draft)  # a half-deleted folder must not be taken for a bundle that was set aside
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put_back(out: Path) -> None:
    """Put an old bundle back that a killed export had set aside, or take it away where the new one is in place."""
    aside = _aside(out)
    if not os.path.lexists(aside):
        return
    if aside.is_symlink() or not (aside / MANIFEST).is_file():
        raise FileError(
            f"{aside} is in the way, where an old bundle is set aside: move it, or give another --out folder"
        )
    _refuse_strangers(aside, read_json(aside / MANIFEST, "the manifest of what was set aside").get("files", {}))
    if out.exists() and _names(out):
        aside.rename(out.parent / f".{out.name}.0.draft")
    else:
        if out.exists():
            shutil.rmtree(out)
        aside.rename(out)
