"""Stage-1 pictures of a bundle's engines, for comparison with the reference's. Needs no PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.backends.bundle import STAGE_1, BundleBackend
from ...runtime.bundle.open import Bundle
from ...runtime.engines.open import EngineSet, EngineSettings

SEED = 42


def parity_noise(n_trials: int, latent_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The start noise of the pictures that a bundle is verified by, (n_trials, *latent_shape).

    Not that of a run, which goes by a trial's id: a bundle keeps pictures but not their noise, so that this must stay
    as it is for bundles of every release to be checked.
    """
    rows = [np.random.default_rng([SEED, row]).standard_normal(latent_shape, np.float32) for row in range(n_trials)]
    return np.stack(rows)


def engine_pictures(
    folder: Path, responses: NDArray[np.float32], precision: str, threads: int | None
) -> NDArray[np.float32] | None:
    """Decode and run stage 1.

    Returns
    -------
    (n, 3, H, W) float32 in [0, 1]; None where this machine's ONNX Runtime has no kernels for the precision.
    """
    bundle = Bundle.open(folder, verify=False)
    if precision == "bf16":
        return None
    settings = EngineSettings(backend="ort", precision=precision, threads=threads)
    with BundleBackend(EngineSet(bundle, settings, graphs=STAGE_1)) as engines:
        noise = parity_noise(len(responses), engines.latent_shape)
        return engines.generator(engines.decode_start(responses), noise).stage1()
