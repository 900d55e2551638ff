"""`whiten`: multivariate noise normalisation (MVNN) of the channels by a matrix that was fitted on training trials.

Guggenmos, Sterzer and Cichy 2018 (NeuroImage 173): the noise covariance of the channels is estimated within each
condition and averaged, and the data are multiplied by its power -1/2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FileError, InputError, ShapeError, check_choice
from ..files import check_arrays, read_tensors, sha256_of, write_tensors
from .fields import check_names, wrong
from .stage import Array, EpochStep, Window

FILE = "whitening.safetensors"
# Eigenvalues below this share of the largest are those of a direction without signal, such as the mean of the channels
# behind an average reference.
_LEAST_SHARE = 1e-12


def fit_whitening(
    epochs: NDArray[Any], conditions: ArrayLike, *, over: str = "epochs", shrinkage: str | float = "ledoit-wolf"
) -> Array:
    """The matrix (n_channels, n_channels) float64 that whitens the noise of these epochs; symmetric.

    Give training trials and nothing else: what the matrix is fitted on may not be tested on.

    Parameters
    ----------
    epochs
        (n_trials, n_channels, n_times), any real type; may be mapped, one condition is held at a time.
    conditions
        (n_trials,) which picture each trial showed.
    over
        "epochs": the covariance over the times of each trial, averaged over trials. "time": the covariance over the
        trials of a condition at each time, averaged over times; conditions with a single trial are left out.
    shrinkage
        "ledoit-wolf", of channels in units of their own standard deviation, as scikit-learn's shrinkage "auto"; or a
        number from 0 (none) to 1 (no correlation between channels).

    Raises
    ------
    ShapeError
        The arrays do not fit each other.
    InputError
        No condition has enough trials, an epoch is not finite, or the covariance has no inverse.
    """
    check_choice("over", over, ("epochs", "time"))
    if shrinkage != "ledoit-wolf" and not (isinstance(shrinkage, int | float) and 0 <= shrinkage <= 1):
        raise InputError(f"shrinkage is {shrinkage!r}: give 'ledoit-wolf' or a number from 0 to 1")
    labels = np.asarray(conditions)
    if epochs.ndim != 3 or labels.shape != epochs.shape[:1]:
        raise ShapeError(
            f"the epochs are {epochs.shape} and the conditions {labels.shape}: give (n_trials, n_channels, n_times) "
            "and (n_trials,)"
        )
    n_channels, n_used = epochs.shape[1], 0
    covariance = np.zeros((n_channels, n_channels))
    order = np.argsort(labels, kind="stable")
    for trials in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if over == "time" and len(trials) < 2:
            continue
        samples = np.asarray(epochs[np.sort(trials)], np.float64)  # (n, n_channels, n_times)
        if not np.isfinite(samples).all():
            raise InputError(f"an epoch of condition {labels[trials[0]]} holds NaN or infinite values: leave it out")
        samples = samples.transpose((2, 0, 1) if over == "time" else (0, 2, 1))
        covariance += _covariances(samples, shrinkage).mean(axis=0)
        n_used += 1
    if n_used == 0:
        raise InputError(
            f"none of the {len(labels)} trials repeats a condition: whitening over 'time' needs two trials of some "
            "picture, take over='epochs'"
        )
    return inverse_square_root(covariance / n_used)


def _covariances(samples: Array, shrinkage: str | float) -> Array:
    """Of (n_sets, n_samples, n_features): the covariance of each set, (n_sets, n_features, n_features), shrunk."""
    centred = samples - samples.mean(axis=1, keepdims=True)
    if shrinkage == "ledoit-wolf":
        scale = centred.std(axis=1)
        scale[scale == 0] = 1.0
        shrunk: Array = ledoit_wolf(centred / scale[:, None, :]) * scale[:, :, None] * scale[:, None, :]
        return shrunk
    empirical: Array = centred.transpose(0, 2, 1) @ centred / samples.shape[1]
    n_features = samples.shape[2]
    mean = np.trace(empirical, axis1=1, axis2=2) / n_features
    share = float(shrinkage)
    mixed: Array = (1 - share) * empirical + share * mean[:, None, None] * np.eye(n_features)
    return mixed


def ledoit_wolf(centred: Array) -> Array:
    """Ledoit and Wolf 2004: each set's covariance S shrunk towards mu I, by the share that is best in expectation.

    Parameters
    ----------
    centred
        (n_sets, n_samples, n_features) with a mean of 0 over the samples.

    Returns
    -------
    array
        (n_sets, n_features, n_features).
    """
    _, n_samples, n_features = centred.shape
    empirical = centred.transpose(0, 2, 1) @ centred / n_samples
    mu = np.trace(empirical, axis1=1, axis2=2) / n_features
    squares = (empirical**2).sum(axis=(1, 2))
    delta = squares / n_features - mu**2  # ||S - mu I||^2 / p
    fourth = ((centred**2).sum(axis=2) ** 2).mean(axis=1)  # mean of ||x||^4
    beta = np.minimum((fourth - squares) / (n_features * n_samples), delta)
    share = np.divide(beta, delta, out=np.zeros_like(beta), where=delta > 0)[:, None, None]
    shrunk: Array = (1 - share) * empirical + share * mu[:, None, None] * np.eye(n_features)
    return shrunk


def inverse_square_root(covariance: Array) -> Array:
    """The symmetric power -1/2 of a covariance matrix.

    Raises
    ------
    InputError
        It has no inverse: a channel, or a sum of channels, has no variance.
    """
    values, vectors = np.linalg.eigh(covariance)
    if values[0] <= _LEAST_SHARE * values[-1]:
        raise InputError(
            f"the noise covariance has no inverse (eigenvalues from {values[0]:.3g} to {values[-1]:.3g}): a channel is "
            "flat or the channels were referenced to their own mean; leave one out, or shrink the covariance"
        )
    return (vectors / np.sqrt(values)) @ vectors.T  # type: ignore[no-any-return]


def save_whitening(folder: Path | str, matrix: Array, *, name: str = FILE) -> dict[str, Any]:
    """Write the matrix into `folder` and return its step of the chain.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    path = Path(folder) / name
    write_tensors(path, {"matrix": np.asarray(matrix, np.float64)})
    return {"name": "whiten", "file": name, "sha256": sha256_of(path)}


def open_whiten(step: Mapping[str, Any], before: Window, folder: Path | None) -> EpochStep:
    """``{"name": "whiten", "file": …, "sha256": …}``: channels times the array `matrix` (n_channels, n_channels)."""
    if "per" in step:
        raise InputError(
            f"the step 'whiten' is fitted per {step['per']}, on all of its data: it cannot be repeated on a signal "
            "that is still being recorded; fit one matrix on the training trials instead"
        )
    check_names(step, {"file", "sha256"})
    if not isinstance(step.get("file"), str):
        raise wrong(step, "file", "give the name of the file that holds the matrix")
    if folder is None:
        raise InputError(f"the step 'whiten' names {step['file']}: give the folder that the file lies in")
    path = folder / step["file"]
    if path.exists() and sha256_of(path) != step.get("sha256"):
        raise FileError(f"{path} has another SHA-256 than the signal chain states: copy the file of these data")
    arrays = read_tensors(path, "the whitening matrix")
    n_channels = len(before.channels)
    advice = f"the epochs there have {n_channels} channels; fit the whitening with the same channels"
    check_arrays(arrays, path, {"matrix": (np.float64, (n_channels, n_channels))}, advice)
    matrix = arrays["matrix"]
    return EpochStep(after=replace(before, scaled=True), apply=lambda epoch: matrix @ epoch)
