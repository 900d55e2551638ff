"""Pictures of both stages by a bundle's engines, for comparison with the reference's. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.backends.bundle import STAGE_1, STAGE_2, BundleBackend
from ...runtime.bundle.open import Bundle
from ...runtime.engines.open import EngineSet, EngineSettings
from ...runtime.generators.base import A, Float32, Sampler
from ...runtime.refine.guided import guided_pass
from ...runtime.refine.settings import GuidedSettings
from ...runtime.refine.weights import StructuralWeights
from ...runtime.sampling import Sampling
from ..settings import memory_for

SEED = 42
# Three guided steps and a plain one. Guidance enlarges any difference from step to step, more so with larger steps, so
# that at a run's settings even float32 and float64 part in some trials; what is compared is whether the parts are put
# together rightly, and that these few steps show. As `SEED`, they must stay as they are.
GUIDED = GuidedSettings(
    candidates=1,
    start_steps=0,
    finish_steps=0,
    n_steps=8,
    strength=0.5,
    guided_share=0.75,
    step_size=0.1,
    jacobian=True,
    layer_weights="uniform",
    loss_mean="kept",
    semantic_weight=0.0,
)


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


def lacks_for_guidance(graphs: Collection[str]) -> str | None:
    """Why a guided pass cannot be run with these graphs of a bundle, or None."""
    missing = [name for name in (*STAGE_1, *STAGE_2) if name not in graphs]
    return f"the bundle lacks {', '.join(missing)}" if missing else None


def engine_guided_pictures(
    folder: Path, responses: NDArray[np.float32], precision: str, threads: int | None
) -> NDArray[np.float32] | None:
    """Decode and run a pass of the `guided` refiner with the settings `GUIDED`; see :func:`engine_pictures`."""
    bundle = Bundle.open(folder, verify=False)
    if precision == "bf16":
        return None
    memory = memory_for(bundle.image_size)
    settings = EngineSettings(backend="ort", precision=precision, threads=threads, memory=memory)
    with BundleBackend(EngineSet(bundle, settings, graphs=(*STAGE_1, *STAGE_2))) as engines:
        noise = parity_noise(len(responses), engines.latent_shape)
        decoded = engines.decode(responses, semantic=False)
        sampler = engines.generator(decoded, noise, GUIDED.sampling(Sampling()))
        return guided_pictures(sampler, engines.structural, noise, decoded.structure, engines.decoder.mask)


def guided_pictures(
    sampler: Sampler[A],
    structural: Callable[[A, Float32, StructuralWeights], tuple[A, A, A]],
    noise: Float32,
    target: Float32,
    mask: NDArray[np.bool_],
) -> A:
    """Run the guided pass of `GUIDED` on whatever computes; pictures (n, 3, H, W).

    Parameters
    ----------
    sampler
        With the sampling of `GUIDED`.
    structural
        See :meth:`~minddiffuser.runtime.backends.base.Backend.structural`.
    noise : (n, 4, h, w)
    target, mask
        See :class:`~minddiffuser.runtime.refine.base.Problem`.
    """
    weights = StructuralWeights.of_settings(GUIDED, target, mask)

    def loss(x0: Any) -> Any:
        return structural(x0, target, weights)

    n_guided = GUIDED.n_guided(Sampling())
    return guided_pass(sampler, sampler.start(noise), loss, step_size=GUIDED.step_size, n_guided=n_guided).image
