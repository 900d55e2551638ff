"""DreamSim (Fu et al. 2023), the ensemble: an embedding whose cosine distance is the perceptual distance."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...environment import versions
from ...errors import FileError, MindDiffuserError
from ...files import sha256_of
from ...images import to_uint8
from ..base import Array
from .base import Extractor, Features, Given, Unavailable
from .weights import WeightsFile, cache_folder, check_folder, find_weights, load_into, read_weights

if TYPE_CHECKING:
    import torch

FOLDER = "dreamsim"
ARCHIVE = "https://github.com/ssundaram21/dreamsim/releases (dreamsim_ensemble_checkpoint.zip)"
FILES = ("dino_vitb16_pretrain.pth", "clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar")
TUNING = "ensemble_lora"
# The trunk of the first network. The package fetches it with its code from DINO's repository; here the package's own
# copy of that code is taken, and nothing that was downloaded is run.
TRUNK = WeightsFile(
    name="dino_vitbase16_pretrain.pth",
    url="https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
)
_AT_ONCE = 8
_SIDE = 224


def open_dreamsim(given: Given) -> Features:
    """The package's ensemble, from the folder `dreamsim` in the weights folder or in PyTorch's cache."""
    try:
        import dreamsim  # noqa: F401 (it is not used before its files are there)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed (pip install 'minddiffuser[metrics]')") from error
    folder = _folder(given)
    trunk = folder / TRUNK.name
    trunk = trunk if trunk.is_file() else find_weights(TRUNK, given)
    files = [trunk, *(folder / name for name in FILES), *sorted((folder / TUNING).iterdir())]
    model = _model(folder, trunk, given.device)

    def of_pictures(images: Array) -> Array:
        import torch

        with torch.inference_mode():
            parts = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
            return np.concatenate([model.embed(_pixels(part).to(given.device)).cpu().numpy() for part in parts])

    digests = {f"{path.parent.name}/{path.name}": sha256_of(path) for path in files if path.is_file()}
    libraries = versions(("torch", "dreamsim", "peft", "timm"))
    return Features(
        identity=f"dreamsim {sorted(digests.items())} {given.device} {sorted(libraries.items())}",
        of_pictures=of_pictures,
        weights=digests,
    )


def _folder(given: Given) -> Path:
    check_folder(given)
    inside = [] if given.weights is None else [given.weights / FOLDER]
    cache = cache_folder().parent / FOLDER
    for folder in (*inside, cache):
        if all((folder / name).is_file() for name in FILES) and (folder / TUNING).is_dir():
            return folder
    if not given.download:
        where = "in no weights folder (--weights DIR)" if given.weights is None else f"not in {given.weights}"
        raise Unavailable(
            f"the folder {FOLDER} is {where} and not in PyTorch's cache: unpack {ARCHIVE} there, or give "
            "--download-weights"
        )
    from dreamsim.model import download_weights

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):
            download_weights(str(cache), "ensemble")
    except Exception as error:  # urllib's, the disk's, or of an archive that was cut short
        reason = " ".join(str(error).split())[:200]
        raise Unavailable(f"DreamSim's weights could not be downloaded ({reason}): unpack {ARCHIVE}") from error
    return cache


def _model(folder: Path, trunk: Path, device: str) -> Any:
    from dreamsim import dreamsim

    try:
        with _own_trunk(trunk), contextlib.redirect_stdout(io.StringIO()):
            model, _ = dreamsim(pretrained=True, device=device, cache_dir=str(folder), dreamsim_type="ensemble")
    except MindDiffuserError:
        raise
    except Exception as error:  # PyTorch's, peft's and the package's own, of many types
        reason = " ".join(str(error).split())[:200]
        raise FileError(
            f"DreamSim's weights in {folder} cannot be used ({reason}): a file is damaged or of another version, "
            f"unpack {ARCHIVE} again"
        ) from error
    return model


@contextlib.contextmanager
def _own_trunk(path: Path) -> Iterator[None]:
    """Give the package its own copy of DINO's network where it asks PyTorch's hub for code, while it is made."""
    import torch

    load, folder = torch.hub.load, torch.hub.get_dir()

    def trunk(*_names: Any, **_choices: Any) -> torch.nn.Module:
        from dreamsim.feature_extraction.vision_transformer import vit_base

        network = vit_base(patch_size=16, num_classes=0)
        load_into(network, read_weights(path), path)
        return network  # type: ignore[no-any-return]

    torch.hub.load = trunk
    try:
        yield
    finally:
        torch.hub.load = load
        torch.hub.set_dir(folder)  # which the package changes


def _pixels(images: Array) -> torch.Tensor:
    """As the package prepares a picture file: bicubic by Pillow to 224 px, in 8 bits."""
    import torch
    from PIL import Image

    pictures = [Image.fromarray(one).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC) for one in to_uint8(images)]
    stacked = np.stack([np.asarray(one) for one in pictures]).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(stacked)).float() / 255


DREAMSIM = Extractor(name="dreamsim", open=open_dreamsim)
