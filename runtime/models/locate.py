"""Where a model's files are: the tiny world of the package, a folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import FileError

TINY = "tiny"
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
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise FileError(
            f"{text} is a file, expected a model folder: pass the folder that holds vae/, unet/ and the rest"
        )
    if isinstance(name, Path) or not _HUB_ID.fullmatch(text):
        raise FileError(
            f"the model folder {text} does not exist: pass an existing folder, 'tiny', or a hub id such as "
            "CompVis/stable-diffusion-v1-4"
        )
    return _snapshot(text)


def _tiny() -> Path:
    # Path arithmetic, not an import: the runtime never imports the training package.
    folder = Path(__file__).resolve().parents[2] / "training" / "tinyworld" / "world"
    if not folder.is_dir():
        raise FileError(
            f"the tiny world's weights are not in {folder}: install the package with its data, or train them with "
            "'md-train world --out FOLDER' and pass FOLDER"
        )
    return folder


def _snapshot(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    texts = [f"{part}/*.{kind}" for part in PARTS for kind in ("json", "txt")]
    whole = [f"{part}/{stem}.safetensors" for part in PARTS for stem in ("model", "diffusion_pytorch_model")]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=[*texts, *whole]))
        if not all(any((folder / part).glob("*.safetensors")) for part in ("vae", "unet", "text_encoder")):
            # Some repositories hold half-precision weights only; the first call leaves them where both exist.
            snapshot_download(repository, allow_patterns=[f"{part}/{_HALF}" for part in PARTS])
    except Exception as error:  # the hub's errors share no base class over its versions
        raise hub_error(f"{repository!r} is not a folder here", repository, error) from error
    return folder


def hub_file(repository: str, names: Sequence[str]) -> Path:
    """The first of `names` that the hub's repository has, from the cache or downloaded."""
    from huggingface_hub import hf_hub_download

    failure: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except Exception as error:  # the hub's errors share no base class over its versions
            failure = failure or error
    reason = failure or FileNotFoundError(names)
    raise hub_error(f"{' or '.join(names)} is not in the cache", repository, reason) from failure


def hub_error(what: str, repository: str, error: Exception) -> FileError:
    """One sentence for a download that failed: no network, unknown, or refused."""
    kind = type(error).__name__
    if kind in ("RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError", "HFValidationError"):
        reason = f"the hub does not have {repository} or does not give it to you ({kind}): check the spelling, or"
    else:
        reason = f"{repository} could not be fetched from the hub ({kind}): with no network,"
    return FileError(
        f"{what}, and {reason} download it on another machine (hf download {repository} --local-dir FOLDER) "
        "and pass FOLDER"
    )
