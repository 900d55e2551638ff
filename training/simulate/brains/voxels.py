"""What voxels of every kind of brain have: a receptive field, and sparse weights on features without a place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..fmri import F32, Area


def draw_fields(rng: np.random.Generator, area: Area) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the receptive fields of an area's voxels.

    Returns
    -------
    Spread (n_voxels,), standard deviation as a fraction of the picture's side, log-normal around the area's; and
    centre (n_voxels, 2), x and y in [0, 1], denser in the middle of the picture.
    """
    spread = area.field_sd * np.exp(0.25 * rng.standard_normal(area.n_voxels))
    return spread, rng.beta(1.3, 1.3, (area.n_voxels, 2))


def receptive_fields(centre: NDArray[np.float64], spread: NDArray[np.float64], side: int) -> F32:
    """Gaussians over a `side` x `side` grid of patches, (n_voxels, side * side) row-major, rows sum to 1.

    Parameters
    ----------
    centre : (n_voxels, 2), x and y in [0, 1] from the picture's top left corner.
    spread : (n_voxels,), standard deviation as a fraction of the picture's side.
    side : patches per side.
    """
    middle = (np.arange(side) + 0.5) / side
    squared = (middle[None, :] - centre[:, :1])[:, None, :] ** 2 + (middle[None, :] - centre[:, 1:])[:, :, None] ** 2
    # A field narrower than a patch still sees that patch evenly: patches have a width of their own.
    variance = spread**2 + (1 / side) ** 2 / 12
    exponent = -0.5 * squared.reshape(len(centre), -1) / variance[:, None]
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    fields: F32 = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return fields


def sparse_weights(rng: np.random.Generator, n_voxels: int, n_features: int, sparsity: float) -> F32:
    """Normal weights on a share `sparsity` of the features, (n_voxels, n_features), rows of length 1."""
    drives = rng.random((n_voxels, n_features)) < sparsity
    drives[np.arange(n_voxels), rng.integers(n_features, size=n_voxels)] = True  # every voxel has at least one
    weights: F32 = rng.standard_normal((n_voxels, n_features), dtype=np.float32) * drives
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return weights
