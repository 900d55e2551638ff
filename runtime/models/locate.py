"""Where a model's files are: the tiny world of the package, a folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import FileError
from .contents import ONE_FILE, conversion, naming_permissions

HUB, LOCAL = "hf-hub:", "local-dir:"
TINY = "tiny"
# Path arithmetic, not an import: the runtime never imports the training package.
TINY_FOLDER = Path(__file__).resolve().parents[2] / "training" / "tinyworld" / "world"
PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HALF = "*.fp16.safetensors"


def locate(name: str | Path) -> Path:
    """The folder of a Stable Diffusion model in the diffusers layout.

    Parameters
    ----------
    name
        ``"tiny"`` (the world that comes with the package), a folder, or a hub id such as
        ``"CompVis/stable-diffusion-v1-4"`` (read from the hub's cache, or downloaded: configs and safetensors only).

    Raises
    ------
    FileError
        The folder does not exist, or the hub cannot be reached.
    """
    text = os.fspath(name)
    if text == TINY:
        return _tiny()
    if text.startswith(HUB):
        return _snapshot(text.removeprefix(HUB))
    folder = Path(text.removeprefix(LOCAL)).expanduser()
    with naming_permissions():
        if folder.is_dir():
            return folder
        if folder.exists():
            raise FileError(f"{text} is a file, expected a model folder: {_cure(folder)}")
    if isinstance(name, Path) or not _HUB_ID.fullmatch(text) or folder.suffix in ONE_FILE:
        raise FileError(
            f"the model folder {text} does not exist: pass an existing folder, 'tiny', or a hub id such as "
            "CompVis/stable-diffusion-v1-4"
        )
    return _snapshot(text)


def _cure(path: Path) -> str:
    return conversion(path) if path.suffix in ONE_FILE else "pass the folder that holds vae/, unet/ and the rest"


def _tiny() -> Path:
    if not TINY_FOLDER.is_dir():
        raise FileError(
            f"the tiny world's weights are not in {TINY_FOLDER}: install the package with its data, or train them with "
            "'md-train world --out FOLDER' and pass FOLDER"
        )
    return TINY_FOLDER


def _snapshot(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    texts = [f"{part}/*.{kind}" for part in PARTS for kind in ("json", "txt")]
    stems = [f"{part}/{stem}" for part in PARTS for stem in ("model", "diffusion_pytorch_model")]
    whole = [f"{stem}{shard}.safetensors" for stem in stems for shard in ("", "-[0-9]*-of-[0-9]*[0-9]")]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=[*texts, *whole]))
        if not all(any((folder / part).glob("*.safetensors")) for part in ("vae", "unet", "text_encoder")):
            # Some repositories hold half-precision weights only; the first call leaves them where both exist.
            snapshot_download(repository, allow_patterns=[f"{part}/{_HALF}" for part in PARTS])
    except Exception as error:  # the hub's errors share no base class over its versions
        raise hub_error(f"{repository!r} is not a folder here", repository, error) from error
    return folder


def hub_file(repository: str, names: Sequence[str]) -> Path:
    """The first of `names` that the hub's repository has, from the cache or downloaded.

    A snapshot of one file, not the file itself: without a network the hub's library looks for a snapshot once, and for
    a file six times over half a minute, with a line for each.
    """
    from huggingface_hub import snapshot_download

    for name in names:
        try:
            path = Path(snapshot_download(repository, allow_patterns=[name])) / name
        except Exception as error:  # the hub's errors share no base class over its versions
            raise hub_error(f"{' or '.join(names)} is not in the cache", repository, error) from error
        if path.is_file():
            return path
    raise FileError(
        f"{repository} has no {' or '.join(names)} that could be fetched from the hub: with no network, download it on "
        f"another machine (hf download {repository} --local-dir FOLDER) and pass FOLDER; else check the name"
    )


def hub_error(what: str, repository: str, error: Exception) -> FileError:
    """One sentence for a download that failed: no network, unknown, or refused."""
    kind = type(error).__name__
    if isinstance(error, PermissionError):
        return FileError(
            f"{what}, and the hub's cache may not be used ({error.filename or error}: permission denied): change its "
            "permissions, or set HF_HOME to a folder of your own"
        )
    if kind in ("RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError", "HFValidationError"):
        reason = f"the hub does not have {repository} or does not give it to you ({kind}): check the spelling, or"
    else:
        reason = f"{repository} could not be fetched from the hub ({kind}): with no network,"
    return FileError(
        f"{what}, and {reason} download it on another machine (hf download {repository} --local-dir FOLDER) "
        "and pass FOLDER"
    )
