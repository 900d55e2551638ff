"""Weights of published networks: where they are looked for, and how a file of them is read.

Nothing is downloaded unless a person asks for it, and no file is unpickled: safetensors, or PyTorch's own format read
with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from ...errors import FileError
from ...files import cannot_open, sha256_of
from .base import Given, Unavailable

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """One published file of weights.

    Attributes
    ----------
    name
        As its publisher calls it. In a weights folder the same with the ending .safetensors is taken too.
    url
        Where it is published.
    sha256
        What its SHA-256 begins with; empty where the publisher does not say.
    """

    name: str
    url: str
    sha256: str = ""

    @property
    def converted(self) -> str:
        """The name of the same weights as safetensors."""
        return f"{self.name.removesuffix('.tar').rpartition('.')[0]}.safetensors"


def find_weights(file: WeightsFile, given: Given) -> Path:
    """The file in the weights folder, in PyTorch's cache, or downloaded there where that is allowed.

    Raises
    ------
    Unavailable
        It is in neither, and may not or cannot be downloaded.
    FileError
        There is no such weights folder, or the file is not the published one.
    """
    for path in _places(file, given):
        if path.is_file():
            check_published(path, file)
            return path
    if not given.download:
        where = "in no weights folder (--weights DIR)" if given.weights is None else f"not in {given.weights}"
        raise Unavailable(
            f"{file.name} is {where} and not in PyTorch's cache: take it from {file.url}, or give --download-weights"
        )
    return _download(file)


def check_folder(given: Given) -> None:
    """Refuse a weights folder that is not there."""
    if given.weights is not None and not given.weights.is_dir():
        raise FileError(f"the weights folder {given.weights} does not exist: check the path (--weights)")


def _places(file: WeightsFile, given: Given) -> list[Path]:
    check_folder(given)
    folder = [] if given.weights is None else [given.weights / file.converted, given.weights / file.name]
    return [*folder, cache_folder() / file.name]


def cache_folder() -> Path:
    """Where PyTorch keeps what it downloads."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def check_published(path: Path, file: WeightsFile) -> None:
    """Refuse a file under the published name whose bytes are others; a converted one has hashes of its own."""
    if path.name == file.name and not sha256_of(path).startswith(file.sha256):
        raise FileError(
            f"the weights {path} are not the published ones (their SHA-256 does not begin with {file.sha256}): the "
            f"file is truncated or another one, take it again from {file.url}"
        )


def _download(file: WeightsFile) -> Path:
    import torch

    path = cache_folder() / file.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(file.url, str(path), hash_prefix=file.sha256 or None)
    except Exception as error:  # urllib's, http's, the disk's, or a wrong hash as RuntimeError
        reason = " ".join(str(error).split())[:200]
        raise Unavailable(f"{file.url} could not be downloaded ({reason}): put the file into --weights DIR") from error
    return path


def read_weights(path: Path) -> State:
    """Every tensor of a file of weights, on the CPU.

    Raises
    ------
    FileError
        It is damaged, or holds anything but tensors.
    """
    try:
        content = _read(path)
    except OSError as error:
        if error.errno is not None:
            raise cannot_open("the weights", path, error) from error
        raise _unreadable(path, error) from error
    except Exception as error:  # pickle's, zipfile's and PyTorch's own errors, of many types
        raise _unreadable(path, error) from error
    for key in ("state_dict", "model"):  # as training scripts save
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    return _tensors(content, path)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _unreadable(path: Path, error: Exception) -> FileError:
    if "TorchScript" in str(error):
        return FileError(
            f"the weights {path} are a TorchScript archive, which holds code: give the same weights as safetensors"
        )
    if type(error).__name__ == "UnpicklingError":
        return FileError(
            f"the weights {path} hold more than tensors or are damaged, and nothing else is read: take them from their "
            "publisher, or save them as safetensors"
        )
    kind = "cut short or damaged" if isinstance(error, BadZipFile | EOFError | RuntimeError) else "damaged"
    reason = " ".join(str(error).split())[:120]
    return FileError(f"the weights {path} cannot be read ({reason}): the file is {kind}, take it again")


def _tensors(content: Any, path: Path) -> State:
    import torch

    if not isinstance(content, Mapping):
        raise FileError(f"the weights {path} hold a {type(content).__name__}, expected named tensors: check the file")
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def load_into(network: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Put weights into a network that was made on the meta device, in float32, and freeze it.

    Tensors that the network does not have, such as those of a classifier that no metric needs, are passed over.

    Raises
    ------
    FileError
        One is missing, of another shape, or not finite.
    """
    import torch

    wanted = network.state_dict()
    odd = [name for name, own in wanted.items() if name not in state or state[name].shape != own.shape]
    if odd:
        raise FileError(
            f"the weights {path} are of another network ({len(odd)} of its {len(wanted)} tensors are missing or of "
            f"another shape, first {odd[0]}): check the file"
        )
    # Copied: a tensor of a mapped file may lie at an odd place, where matrix products add up in another order.
    fitting = {name: state[name].to(own.dtype, copy=True) for name, own in wanted.items()}
    for name, value in fitting.items():
        if not torch.isfinite(value).all():
            raise FileError(f"the weights {path} hold NaN or infinite values in {name}: take the file again")
    network.load_state_dict(fitting, assign=True)
    network.eval().requires_grad_(False)
