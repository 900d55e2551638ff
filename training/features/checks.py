"""Features that no decoder can be fitted to: NaN, infinite, or the same for every picture. Found at the first batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError

Float32 = NDArray[np.float32]

# Rounding alone: the same picture in another batch may differ by so much of the largest value.
_ROUNDING = 1e-6
_CAUSES = {
    "context": "the text encoder's weights are damaged",
    "latent": "the VAE's weights are damaged, or its scaling_factor is 0 or not a number",
    "structure": "CLIP's weights are damaged, or its preprocessing (mean and std in open_clip_config.json) is wrong",
    "semantic": "CLIP's weights are damaged, or its preprocessing (mean and std in open_clip_config.json) is wrong",
    "embedding": "CLIP's weights are damaged, or its preprocessing (mean and std in open_clip_config.json) is wrong",
}


def layers_of(rows: Mapping[str, Float32], layers: tuple[str, ...]) -> dict[str, tuple[str, Float32]]:
    """Each feature in words, with its kind and its rows; the structure layer by layer, from the shallowest on."""
    found = {name: (name, values) for name, values in rows.items() if name != "structure"}
    structure = {
        f"structure (CLIP, {layers[number]})": ("structure", rows["structure"][:, number])
        for number in range(rows["structure"].shape[1])
    }
    return {**structure, **{f"{name} feature": value for name, value in found.items()}}


def check_finite(rows: Mapping[str, Float32], first: int, layers: tuple[str, ...]) -> None:
    """Refuse features with NaN or infinite values.

    Parameters
    ----------
    rows : feature to (n, ...) values of one batch
    first : stimulus of the first row
    layers : the names of the structure's layers

    Raises
    ------
    InputError
        With the first layer in which they appear, and what is most likely wrong.
    """
    for words, (kind, values) in layers_of(rows, layers).items():
        bad = ~np.isfinite(values.reshape(len(values), -1))
        if bad.any():
            stimulus = first + int(np.flatnonzero(bad.any(axis=1))[0])
            what = "NaN" if np.isnan(values).any() else "infinite values"
            raise InputError(
                f"the {words} of training picture {stimulus} holds {what} ({int(bad.sum())} of {bad.size} values of "
                f"its batch), so nothing can be fitted to it: most likely {_CAUSES[kind]}; check the model folder, "
                "or download it again"
            )


def check_varies(
    rows: Mapping[str, Float32], differs: Mapping[str, NDArray[np.bool_]], layers: tuple[str, ...]
) -> None:
    """Refuse features that are the same for pictures (a context: for captions) that are not.

    Parameters
    ----------
    rows : feature to (n, ...) values
    differs : "picture" and "context" to (n,): whether what each row was made of differs from the first row's
    layers : the names of the structure's layers

    Raises
    ------
    InputError
        With the layer.
    """
    for words, (kind, values) in layers_of(rows, layers).items():
        others = values[differs["context" if kind == "context" else "picture"]]
        if len(others) > 0 and np.abs(others - values[0]).max() <= _ROUNDING * np.abs(values[0]).max():
            of = "captions" if kind == "context" else "pictures"
            raise InputError(
                f"the {words} is the same for {len(others) + 1} different {of}, so nothing can be decoded from the "
                f"responses to them: most likely {_CAUSES[kind]}; check the model folder, or download it again"
            )
