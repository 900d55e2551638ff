"""Whitening: compared with scikit-learn's shrinkage and with the published definition, trial by trial.

scikit-learn is loaded by the tests that need it: it takes seconds, which every worker would spend on collecting.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import fractional_matrix_power

from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.runtime.signal.whitening import fit_whitening, ledoit_wolf, save_whitening

EPOCH = {"name": "epoch", "tmin": 0.0, "tmax": 0.4}


@pytest.fixture
def trials(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(12 trials of 3 pictures, 8 channels, 30 times), whose noise is correlated over channels."""
    mixing = rng.standard_normal((8, 8)) * 1e-5
    noise = np.einsum("cd,ndt->nct", mixing, rng.standard_normal((12, 8, 30)))
    picture = np.array([2, 0, 1] * 4)
    return (noise + 3e-5 * rng.standard_normal((3, 8, 30))[picture]).astype(np.float32), picture


def shrunk(samples: NDArray[Any]) -> NDArray[np.float64]:
    """As sklearn.discriminant_analysis does with shrinkage "auto": Ledoit-Wolf of standardised features."""
    from sklearn.covariance import ledoit_wolf as reference
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(samples)
    covariance = reference(scaler.transform(samples))[0]
    return scaler.scale_[:, None] * covariance * scaler.scale_[None, :]  # type: ignore[no-any-return]


def test_ledoit_wolf_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    from sklearn.covariance import ledoit_wolf as reference

    samples = rng.standard_normal((5, 20, 7)) @ rng.standard_normal((7, 7)) + 3.0
    centred = samples - samples.mean(axis=1, keepdims=True)
    for ours, given in zip(ledoit_wolf(centred), samples, strict=True):
        np.testing.assert_allclose(ours, reference(given)[0], rtol=1e-9)


@pytest.mark.parametrize("over", ["epochs", "time"])
def test_the_matrix_is_the_published_one(over: str, trials: Any) -> None:
    """Guggenmos 2018: covariances within conditions, averaged over trials or times and over conditions, power -1/2."""
    epochs, pictures = trials
    data = epochs.astype(np.float64)
    sigmas = []
    for picture in np.unique(pictures):
        own = data[pictures == picture]
        sets = [trial.T for trial in own] if over == "epochs" else [own[:, :, t] for t in range(own.shape[2])]
        sigmas.append(np.mean([shrunk(one) for one in sets], axis=0))
    wanted = fractional_matrix_power(np.mean(sigmas, axis=0), -0.5)
    found = fit_whitening(epochs, pictures, over=over)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9 * np.abs(wanted).max())


def test_no_shrinkage_makes_the_noise_white(trials: Any) -> None:
    epochs, _ = trials
    matrix = fit_whitening(epochs, np.arange(12), shrinkage=0.0)
    white = np.einsum("cd,ndt->nct", matrix, epochs.astype(np.float64))
    white -= white.mean(axis=2, keepdims=True)
    covariance = np.einsum("nct,ndt->cd", white, white) / (12 * 30)
    np.testing.assert_allclose(covariance, np.eye(8), atol=1e-5)


def test_full_shrinkage_keeps_the_channels_apart(trials: Any) -> None:
    epochs, pictures = trials
    matrix = fit_whitening(epochs, pictures, shrinkage=1.0)
    np.testing.assert_allclose(matrix, matrix[0, 0] * np.eye(8), atol=1e-9 * matrix[0, 0])


def test_the_order_of_the_trials_is_no_matter(trials: Any) -> None:
    epochs, pictures = trials
    turned = np.argsort(pictures, kind="stable")[::-1]
    np.testing.assert_allclose(
        fit_whitening(epochs[turned], pictures[turned]), fit_whitening(epochs, pictures), rtol=1e-9
    )


def test_the_step_multiplies_by_the_saved_matrix(
    trials: Any, channels: Any, recording: NDArray[np.float64], tmp_path: Path
) -> None:
    matrix = fit_whitening(*trials)
    step = save_whitening(tmp_path, matrix)
    assert step["sha256"] == hashlib.sha256((tmp_path / step["file"]).read_bytes()).hexdigest()
    plain = open_chain({"steps": [EPOCH]}, channels, 100.0)
    chain = open_chain({"steps": [EPOCH, step]}, channels, 100.0, tmp_path)
    assert (plain.layout.unit, chain.layout.unit) == ("T", "1")  # a magnetometer is among the channels
    given = chain.epochs(recording, [100, 200])
    np.testing.assert_allclose(given.data[1], matrix @ recording[:, 200:241], rtol=1e-6)


def test_a_wrong_file_is_named(trials: Any, channels: Any, tmp_path: Path) -> None:
    step = save_whitening(tmp_path, fit_whitening(*trials))
    chain = {"steps": [EPOCH, step]}
    with pytest.raises(InputError, match="give the folder that the file lies in"):
        open_chain(chain, channels, 100.0)
    with pytest.raises(FileError, match=r"is float64 \(8, 8\), expected float64 \(7, 7\): the epochs there have 7"):
        open_chain(chain, channels[:7], 100.0, tmp_path)
    with pytest.raises(FileError, match="is missing"):
        open_chain(chain, channels, 100.0, tmp_path / "elsewhere")
    save_whitening(tmp_path, np.eye(8))
    with pytest.raises(FileError, match="has another SHA-256"):
        open_chain(chain, channels, 100.0, tmp_path)


def test_whitening_per_session_is_refused_by_name(channels: Any) -> None:
    with pytest.raises(InputError, match="'whiten' is fitted per session, on all of its data: it cannot be repeated"):
        open_chain({"steps": [EPOCH, {"name": "whiten", "per": "session"}]}, channels, 100.0)


def test_what_cannot_be_fitted(trials: Any) -> None:
    epochs, pictures = trials
    with pytest.raises(InputError, match="none of the 12 trials repeats a condition"):
        fit_whitening(epochs, np.arange(12), over="time")
    with pytest.raises(ShapeError, match=r"the conditions \(3,\)"):
        fit_whitening(epochs, pictures[:3])
    with pytest.raises(InputError, match="the noise covariance has no inverse"):
        fit_whitening(epochs - epochs.mean(axis=1, keepdims=True), pictures, shrinkage=0.0)
    with pytest.raises(InputError, match="shrinkage is 'oas'"):
        fit_whitening(epochs, pictures, shrinkage="oas")
    epochs[3, 2, 1] = np.nan
    with pytest.raises(InputError, match="an epoch of condition 2 holds NaN"):
        fit_whitening(epochs, pictures)
