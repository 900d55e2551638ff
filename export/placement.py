"""A bundle's folder is written beside its place and put there whole: a killed export leaves the old bundle or none."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtime.batch.identity import alone_in
from ..runtime.bundle_schema import MANIFEST
from ..runtime.errors import FileError
from ..runtime.files import read_json


def check_out(out: Path) -> None:
    """Refuse to replace anything but a bundle: other programs write a manifest.json too."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    manifest = out / MANIFEST
    there = read_json(manifest, "the manifest of what is there") if manifest.is_file() else {}
    if there.get("format") != "minddiffuser-bundle":
        raise FileError(f"{out} is there and is no bundle: give another --out folder")


@contextmanager
def in_place_of(out: Path) -> Iterator[Path]:
    """A draft folder beside `out` that takes its place where the block ends well, and is gone where it does not.

    What an earlier export left behind is taken away, and an old bundle that it had set aside is put back.

    Raises
    ------
    FileError
        Another process is writing `out`, or it cannot be written.
    """
    lock = out.parent / f".{out.name}.lock"
    with alone_in(lock, told=out):
        try:
            yield from _drafted(out)
        except FileError:
            raise
        except OSError as error:
            raise FileError(
                f"{out} cannot be written ({error.strerror or error}): free some space or choose another folder"
            ) from error
        finally:
            shutil.rmtree(lock, ignore_errors=True)


def _drafted(out: Path) -> Iterator[Path]:
    aside = out.parent / f".{out.name}.old"
    if aside.exists() and not out.exists():
        aside.rename(out)
    draft_name = re.compile(rf"\.{re.escape(out.name)}\.\d+\.draft")
    for left in out.parent.iterdir():
        if draft_name.fullmatch(left.name):  # of this bundle, and not of one whose name begins so
            shutil.rmtree(left, ignore_errors=True)
    draft = out.parent / f".{out.name}.{os.getpid()}.draft"
    try:
        draft.mkdir()
        yield draft
        shutil.rmtree(aside, ignore_errors=True)
        if out.exists():
            out.rename(aside)
        draft.rename(out)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
