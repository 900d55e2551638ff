"""A small classifier of tiny-world pictures, trained separately from the CLIP that stage 2 follows.

A picture refined toward CLIP features should not be evaluated by the same CLIP; the classifier has another
architecture, other training pictures and is never used by stage 2.

Folder: `classifier.json` (format, version, image_size, channels, labels) and `classifier.safetensors` (the network's
state).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, InputError, MissingExtra
from ..fields import Field
from ..files import check_format, read_json, read_tensors, write_json, write_tensors
from .base import Array, check_picture_set
from .resize import resize

if TYPE_CHECKING:
    import torch

    from .classifier_network import ClassifierNetwork

HEADS = ("concept", "colour", "background")
VERSION = 1
_BATCH = 64
_MOST = 10_000  # layers, and words of a head


@dataclass(frozen=True)
class Classifier:
    """A classifier with frozen weights.

    Attributes
    ----------
    labels
        Words of each head, "concept", "colour" and "background"; a predicted label is an index into them.
    image_size
        Side in pixels at which it looks; other pictures are resized (antialiased bilinear).
    """

    labels: Mapping[str, tuple[str, ...]]
    image_size: int
    network: ClassifierNetwork = field(repr=False)
    device: torch.device

    def predict(self, images: Array) -> NDArray[np.int64]:
        """Most likely labels (n, 3) (concept, colour, background) of images (n, 3, H, W) in [0, 1], n >= 1.

        Raises
        ------
        ShapeError, InputError
            For other shapes or types, and for values outside [0, 1].
        """
        import torch

        check_picture_set("images", images)
        rows = []
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                batch = images[start : start + _BATCH]
                if batch.shape[2:] != (self.image_size, self.image_size):
                    batch = resize(batch, self.image_size, self.image_size)
                pixels = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).to(self.device)
                rows.append(torch.stack([logits.argmax(1) for logits in self.network(pixels)], dim=1).cpu().numpy())
        return np.concatenate(rows).astype(np.int64)


def classifier_config(
    labels: Mapping[str, list[str]], *, image_size: int = 64, channels: tuple[int, ...] = (32, 64, 128)
) -> dict[str, Any]:
    """The content of classifier.json for these words, sizes and channel widths."""
    return {
        "format": "minddiffuser-classifier",
        "version": VERSION,
        "image_size": image_size,
        "channels": list(channels),
        "labels": {head: list(labels[head]) for head in HEADS},
    }


def build_classifier(config: Mapping[str, Any]) -> ClassifierNetwork:
    """Build the network that `config` (the content of classifier.json) describes, with fresh weights, in training mode.

    Raises
    ------
    MissingExtra
        Without PyTorch.
    """
    try:
        from .classifier_network import ClassifierNetwork
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the classifier needs {error.name}: pip install 'minddiffuser[torch]'") from error
    return ClassifierNetwork(config["channels"], {head: len(config["labels"][head]) for head in HEADS})


def write_classifier(
    folder: Path, network: ClassifierNetwork, config: Mapping[str, Any], *, half: bool = False
) -> None:
    """Write a trained classifier; `half` stores its matrices and kernels as float16."""
    arrays = {name: value.detach().cpu().numpy() for name, value in _state(network).items()}
    if half:
        arrays = {name: value.astype(np.float16) if value.ndim > 1 else value for name, value in arrays.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "classifier.safetensors", arrays, {"format": "pt"})
    write_json(folder / "classifier.json", dict(config))


def open_classifier(folder: Path, device: str = "cpu") -> Classifier:
    """Open a classifier's folder.

    Raises
    ------
    FileError
        If a file is missing, damaged, of another kind or version, or does not fit the other one.
    MissingExtra
        Without PyTorch.
    """
    folder = Path(folder)
    path = folder / "classifier.json"
    config = read_json(path, "the classifier's description")
    check_format(config, path, "classifier", VERSION)
    _check(config, path)
    network = build_classifier(config)
    _load_weights(network, folder / "classifier.safetensors")

    import torch

    try:
        place = torch.device(device)
        network.to(place)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises the latter
        raise InputError(
            f"device {device!r} cannot be used ({error}): choose cpu, or a device this machine has"
        ) from error
    labels = {head: tuple(config["labels"][head]) for head in HEADS}
    return Classifier(labels, config["image_size"], network, place)


def _check(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a description with a field that cannot be used."""
    top = Field(path, "", content, "make it again")
    top.get("image_size").whole()
    top.get("channels").wholes(1, _MOST)
    labels = top.get("labels")
    if set(labels.object()) != set(HEADS):
        labels.refuse(f"a list of words for each of {', '.join(HEADS)}")
    for head in HEADS:
        words = [word.text() for word in labels.get(head).items(1, _MOST, "words")]
        if len(set(words)) != len(words):
            labels.get(head).refuse("every word once")


def _is_used(name: str) -> bool:
    """Whether an entry of the network's state matters for predicting: the batch counter does not."""
    return not name.endswith("num_batches_tracked")


def _state(network: ClassifierNetwork) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if _is_used(name)}


def _load_weights(network: ClassifierNetwork, path: Path) -> None:
    """Put the file's arrays into the network, in float32, and freeze it."""
    import torch

    arrays = {name: value for name, value in read_tensors(path, "the classifier's weights").items() if _is_used(name)}
    expected = {name: tuple(value.shape) for name, value in _state(network).items()}
    given = {name: value.shape for name, value in arrays.items()}
    if given != expected:
        odd = sorted(name for name in given.keys() | expected.keys() if given.get(name) != expected.get(name))
        raise FileError(
            f"the classifier's weights at {path} do not fit classifier.json ({len(odd)} arrays differ, first {odd[0]}"
            "): take both files from the same training"
        )
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise FileError(f"the classifier's weights at {path} hold NaN or infinite values in {name}: train it again")
    network.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()}, strict=False)
    network.eval().requires_grad_(False)
