"""The gradient of stage 2 on engines: reverse mode by hand over the stored latents, without PyTorch.

One evaluation runs `denoise` forward and keeps the latent before each step, differentiates the loss at the last latent
by `structure_gradient`, and goes back through the steps with `denoise_gradient`, which computes its own forward pass
again from the stored latent: memory holds one latent per step, whatever the size of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.base import Engines, Runs
from ..engines.ort.engine import as_numpy
from ..errors import InputError, ShapeError
from ..generators.engines import EngineGenerator
from .settings import AdamSettings
from .target import check_semantic_target, check_target
from .weights import StructuralWeights

Float32 = NDArray[np.float32]


class EngineObjective:
    """What :class:`~minddiffuser.runtime.refine.autograd.AutogradObjective` is, over engines. Arrays are numpy's.

    Parameters
    ----------
    engines : mapping
        "structure_gradient" and, unless `backprop_steps` is 0, "denoise_gradient".
    generator : EngineGenerator
    target, mask, settings, semantic_target
        As there.

    Raises
    ------
    ShapeError, InputError
        As there; and a semantic weight where the engine was exported without the semantic term.
    """

    def __init__(
        self,
        engines: Engines,
        generator: EngineGenerator,
        target: Float32,
        mask: NDArray[np.bool_],
        settings: AdamSettings,
        semantic_target: Float32 | None = None,
    ) -> None:
        target, mask = np.asarray(target), np.asarray(mask)
        check_target(target, mask)
        self._engines, self._generator, self._settings = engines, generator, settings
        head = engines["structure_gradient"]
        expected = head.inputs["target"].shape[1:]
        if target.shape[1:] != expected:
            raise ShapeError(
                f"the target has shape {target.shape}, the engines take (n, {', '.join(map(str, expected))}): "
                "decode the target with the CLIP and layer preset that refinement uses"
            )
        fixed = _structure_inputs(target, StructuralWeights.of_settings(settings, target, mask))
        semantic = None
        if settings.semantic_weight > 0:
            checked = check_semantic_target(semantic_target, len(target), settings)
            semantic = (checked, settings.semantic_weight)
        fixed |= _semantic_inputs(head, len(target), semantic)
        self._placed = {name: head.place(array) for name, array in fixed.items()}

    def value_and_gradient(self, params: Mapping[str, Float32]) -> tuple[Float32, dict[str, Float32], Float32]:
        """Render, compare, and differentiate each trial's own loss; see AutogradObjective."""
        chosen = self._settings.optimised(params)
        latents = self._generator.latents(params)
        found = self._engines["structure_gradient"].run({"latent": latents[-1], **self._placed})
        at_latent, at_context = self._back(found["latent_gradient"], latents, params)
        gradients = {"latent": as_numpy(at_latent) * np.float32(self._generator.latent_scale)}
        if at_context is not None:
            at_context[:, 0] = 0  # token 0 comes from the start, whatever the parameter says
            gradients["context"] = at_context
        return as_numpy(found["loss"]), {name: gradients[name] for name in chosen}, as_numpy(found["image"])

    def _back(self, gradient: Any, latents: list[Any], params: Mapping[str, Float32]) -> tuple[Any, Float32 | None]:
        """From the gradient at the last latent to those at the first latent and at the context."""
        n_steps = len(latents) - 1
        if n_steps == 0:
            return gradient, None
        step_back, first = self._engines["denoise_gradient"], self._generator.first_step
        context = step_back.place(self._generator.whole_context(params))
        total: Any = None
        waiting: list[Any] = []
        for row in reversed(range(n_steps)):
            feeds = {**self._generator.step_inputs(latents[row], context, first + row), "next_gradient": gradient}
            found = step_back.run(feeds)
            gradient, part = found["latent_gradient"], found["context_gradient"]
            if isinstance(part, np.ndarray) or hasattr(part, "detach"):  # summed where it is
                total = part if total is None else total + part
            else:  # only the host can add these up, and would wait for the GPU after each step
                waiting.append(part)
        for part in waiting:
            total = as_numpy(part) if total is None else total + as_numpy(part)
        return gradient, np.array(as_numpy(total))


def structural(
    head: Runs,
    x0: Float32,
    target: Float32,
    weights: StructuralWeights,
    semantic: tuple[Float32, float] | None = None,
    *,
    largest_batch: int | None,
) -> tuple[Float32, Float32, Float32]:
    """Structural loss of clean latents, its gradient and the pictures; see :meth:`..backends.base.Backend.structural`.

    Parameters
    ----------
    head
        The engine of "structure_gradient".
    largest_batch
        The most rows that it takes at once; None: any number.
    """
    fixed = {**_structure_inputs(target, weights), **_semantic_inputs(head, len(target), semantic)}
    common = [name for name in ("mask", "semantic_weight") if name in fixed]
    shared: dict[str, Any] = {name: head.place(fixed.pop(name)) for name in common}
    most = largest_batch or max(len(x0), 1)
    found = []
    for at in range(0, max(len(x0), len(target), 1), most):
        rows = {name: array[at : at + most] for name, array in {"latent": np.asarray(x0), **fixed}.items()}
        found.append(head.run({**rows, **shared}))
    loss, gradient, image = (
        np.concatenate([as_numpy(part[name]) for part in found]) for name in ("loss", "latent_gradient", "image")
    )
    return loss, gradient, image


def _structure_inputs(target: Float32, weights: StructuralWeights) -> dict[str, Float32]:
    return {"target": weights.counted(target), "mask": weights.dimensions, "layer_weights": weights.layers}


def _semantic_inputs(head: Runs, n: int, semantic: tuple[Float32, float] | None) -> dict[str, Float32]:
    """Target and weight of the semantic term, zeros where the engine knows it and it is not wanted."""
    if "semantic_target" not in head.inputs:
        if semantic is None:
            return {}
        raise InputError(
            f"semantic_weight is {semantic[1]}, and the bundle's gradients were exported without the semantic term: "
            "export one from a checkpoint that decodes it, or leave the weight out"
        )
    if semantic is None:
        semantic = np.zeros((n, int(head.inputs["semantic_target"].shape[1])), np.float32), 0.0
    return {"semantic_target": semantic[0], "semantic_weight": np.array([semantic[1]], np.float32)}
