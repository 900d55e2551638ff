"""The folder that an evaluation writes: begun, and finished, under one lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..files import write_bytes, write_json
from ..output import check_output
from . import table
from .evaluate import FORMAT, VERSION

MARKER = "evaluation.json"


def check_folder(out: Path, read: Sequence[Path]) -> None:
    """Refuse a folder that is of something else, or of what is read.

    Raises
    ------
    FileError
        The message says which.
    """
    for path in read:
        if path.is_dir() and (out.resolve() == path.resolve() or path.resolve() in out.resolve().parents):
            raise FileError(f"--out {out} is or lies in {path}, which is read: give another folder")
    check_output(out, what="folder of an evaluation", marker=MARKER, kind=FORMAT.removeprefix("minddiffuser-"))


def begin(out: Path) -> None:
    """Write the marker, so that an evaluation that was stopped goes on in its folder."""
    if not (out / MARKER).is_file():
        write_json(out / MARKER, {"format": FORMAT, "version": VERSION, "finished": False})


def finish(out: Path, evaluation: Mapping[str, Any]) -> None:
    """Write the tables, and evaluation.json at last."""
    texts = {
        "table.md": table.markdown(evaluation),
        "table.tex": table.latex(evaluation),
        "table.csv": table.tidy_csv(evaluation),
        "per_picture.csv": table.per_picture_csv(evaluation),
    }
    for name, content in texts.items():
        write_bytes(out / name, content.encode())
    write_json(out / MARKER, evaluation)
