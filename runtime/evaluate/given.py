"""What extractors have to work with: models, their weights, captions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..environment import versions
from ..errors import InputError, MissingExtra
from ..files import read_json
from ..metrics import Metric
from ..metrics.base import Array
from ..metrics.extractors import Given
from ..metrics.resize import resize
from ..models.locate import TINY, locate
from .gather import Gathered

# Extractors that need the models of a run; others bring their own networks.
_OF_MODELS = {"clip", "labels", "locator"}
_NO_PYTORCH = "PyTorch is not installed (pip install 'minddiffuser[torch]')"
_LIBRARIES = ("torch", "open_clip_torch")


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What a person says of the networks that metrics need.

    Attributes
    ----------
    models, clip
        As of ``md-reconstruct run``: for the metrics by the models' own CLIP, classifier and locator. None: those of
        the run, where they are the tiny world or a folder that is there.
    device
        Of PyTorch.
    weights, download
        Folder of the weights of published networks, and whether missing ones may be downloaded.
    captions
        A JSON file of what the stimuli show: {name: caption or list of captions}.
    """

    models: str | None = None
    clip: str | None = None
    device: str = "cpu"
    weights: Path | None = None
    download: bool = False
    captions: Path | None = None


def given_for(metrics: Sequence[Metric], networks: Networks, gathered: Gathered) -> Given:
    """Open what the metrics need of models.

    Raises
    ------
    MindDiffuserError
        Models that were asked for by name and cannot be opened; captions that cannot be read.
    """
    needs = {metric.needs for metric in metrics} & _OF_MODELS
    captions = _captions(networks.captions, gathered) if networks.captions is not None else ()
    common = Given(captions=captions, device=networks.device, weights=networks.weights, download=networks.download)
    models, clip = _models(networks, gathered)
    if models is None or not needs:
        return replace(common, without_models="it is not known which models to take (--models)")
    folder = locate(models)
    parts = {name: folder / name for name in ("classifier", "locator") if (folder / name).is_dir()}
    embed, identity, why = None, "", ""
    if "labels" in needs and not _has_pytorch():
        parts.pop("classifier", None)
        why = _NO_PYTORCH
    if "clip" in needs:
        try:
            embed, identity = _embedding(models, clip, networks.device)
        except MissingExtra as error:
            if networks.models is not None and needs == {"clip"}:
                raise
            why = " ".join(f"{error}".split())
    return replace(
        common,
        embed=embed,
        embed_identity=identity,
        classifier=parts.get("classifier"),
        locator=parts.get("locator"),
        without_models=why,
    )


def _has_pytorch() -> bool:
    try:
        import torch  # noqa: F401 (only whether it is there)
    except ModuleNotFoundError:
        return False
    return True


def _models(networks: Networks, gathered: Gathered) -> tuple[str | None, str | None]:
    if networks.models is not None:
        return networks.models, networks.clip
    own = {(run.models, run.clip) for run in gathered.runs if run.models is not None}
    if len(own) != 1:
        return None, None
    models, clip = own.pop()
    # What would have to be downloaded is opened where it is asked for.
    known = models == TINY or (models is not None and Path(models).is_dir())
    return (models, networks.clip or clip) if known else (None, None)


def _embedding(models: str, clip: str | None, device: str) -> tuple[Callable[[Array], Array], str]:
    """CLIP's embedding of images of any size, and what decides its numbers."""
    from ..models.open import load_models

    opened = load_models(models, clip=clip, device=device)
    size = opened.image_size

    def embed(images: Array) -> Array:
        import torch

        if images.shape[2:] != (size, size):
            images = resize(images, size, size).astype(np.float32).clip(0, 1)
        with torch.no_grad():
            found: Array = opened.embedding(torch.from_numpy(images).to(device)).float().cpu().numpy()
        return found

    identity = json.dumps([opened.hash, {"device": device, "size": size}, versions(_LIBRARIES)], sort_keys=True)
    return embed, identity


def _captions(path: Path, gathered: Gathered) -> tuple[tuple[str, ...], ...]:
    content = read_json(path, "the captions")
    found = []
    for item in gathered.stimuli:
        texts = content.get(item.name)
        several = [texts] if isinstance(texts, str) else texts
        if not isinstance(several, list) or not all(isinstance(text, str) for text in several):
            raise InputError(
                f"{path} has no caption of the stimulus {item.name}: give {{name: text}} or {{name: [text, ...]}} for "
                "each"
            )
        found.append(tuple(several))
    return tuple(found)
