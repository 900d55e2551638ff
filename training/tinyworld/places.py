"""The folders that making a world writes: what may be overwritten or continued, and errors of the file system."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...runtime.errors import FileError, InputError
from ...runtime.files import cannot_write, check_format, read_json, write_json
from ...runtime.output import check_free, check_place

WORK_KIND, WORK_VERSION = "world-work", 1


def choose_places(out: Path, work: Path | None) -> tuple[Path, Path]:
    """The absolute model folder and work folder; the latter is `out` with ".work" appended when None.

    Raises
    ------
    InputError
        When the work folder is the model folder or inside it, where it would be shipped along.
    FileError
        When `out` is the root of the file system.
    """
    out = _absolute(out)
    if not out.name:
        raise FileError(f"--out is {out}, the root of the file system: choose a folder of its own")
    work = out.with_name(f"{out.name}.work") if work is None else _absolute(work)
    if work == out or out in work.parents:
        raise InputError(f"the work folder {work} is inside the model folder {out}: choose one beside it")
    return out, work


def open_out(out: Path) -> None:
    """Make the model folder, or refuse one that holds something else than a tiny world.

    Its README.md and weights are overwritten without asking, so a folder of somebody else's never comes through.
    """
    if not is_world(out):
        check_free(out, "tiny world")
    _make(out)


def is_world(folder: Path) -> bool:
    """Whether a model folder was made here: any diffusers pipeline has model_index.json, only ours a classifier."""
    if (folder / "training.json").is_file():  # the first file that appears in a new world
        return read_json(folder / "training.json", "the world's training").get("format") == "minddiffuser-world"
    return (folder / "model_index.json").is_file() and (folder / "classifier" / "classifier.json").is_file()


def open_work(work: Path, identity: Mapping[str, Any]) -> None:
    """Make the work folder, or refuse one whose trainings have other settings than `identity` ("effort", "settings").

    `work/world.json` is written by the first run and compared by all later ones.
    """
    _make(work)
    path = work / "world.json"
    wanted = {"format": f"minddiffuser-{WORK_KIND}", "version": WORK_VERSION, **identity}
    if not path.exists():
        if (work / "parts").exists() or any(work.glob("*.safetensors")) or (work / "latents.npy").exists():
            raise FileError(f"{work} holds training states of unknown settings (no world.json): {_WAY_OUT}")
        write_json(path, wanted)
        return
    found = read_json(path, "the description of the work folder")
    check_format(found, path, WORK_KIND, WORK_VERSION)
    if found.get("effort") != wanted["effort"]:  # which decides the rest, so it alone says most
        raise FileError(
            f"{work} holds training states with effort {found.get('effort')}, this run has {wanted['effort']}: "
            f"{_WAY_OUT}"
        )
    if found != wanted:
        raise FileError(f"{work} holds training states with other settings{_differing(found, wanted)}: {_WAY_OUT}")


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The trainings whose settings differ, in words."""
    before, now = found.get("settings"), wanted["settings"]
    if not isinstance(before, dict):
        return ""
    names = [name for name in now if before.get(name) != now[name]]
    return f" of {', '.join(names)}" if names else ""


@contextmanager
def system_errors(work: Path) -> Iterator[None]:
    """Turn what the system refuses while training, a full disk included, into one sentence."""
    try:
        yield
    except (FileError, BrokenPipeError):  # a closed terminal is the command's own affair
        raise
    except OSError as error:
        raise cannot_write(Path(error.filename or work), error) from error
    except Exception as error:  # safetensors wraps the system's error in its own type, keeping only the text
        if "No space left" not in str(error):
            raise
        raise cannot_write(work, OSError(errno.ENOSPC, str(error))) from error


_WAY_OUT = "give another --work or --out, or delete it"


def _absolute(path: Path) -> Path:
    """`path` made absolute; "." and ".." get the name they stand for, which `absolute` alone does not give."""
    return path.resolve() if path.name in ("", "..") else path.absolute()


def _make(folder: Path) -> None:
    check_place(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
