"""What each graph of a bundle takes and gives: stated once, for the export and for the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine.

    Attributes
    ----------
    dtype : str
        numpy's name of it, such as "float32".
    shape : tuple of int or str
        A name stands for a free dimension; the same name is the same size in all inputs of one call.
    """

    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))}{',' if len(self.shape) == 1 else ''})"


Specs = Mapping[str, TensorSpec]

BATCH = "batch"
"""The one free dimension: trials. Everything else is fixed by the models."""
FREE = "width"
"""Stands for any one size, where the models' own is not known."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the specs of the networks follow from.

    Attributes
    ----------
    latent : (4, h, w)
    context : (15, d_text)
    structure : (6, n_tokens, d_vision)
    image_size : int
        Side of a picture in pixels.
    embedding : int or str
        Length of a CLIP image embedding; `FREE` where it is not known.
    """

    latent: tuple[int, ...]
    context: tuple[int, ...]
    structure: tuple[int, ...]
    image_size: int
    embedding: int | str = FREE


@dataclass(frozen=True)
class GraphSpecs:
    """Inputs and outputs of a graph, by name, in their order."""

    inputs: Specs
    outputs: Specs


def graph_specs(sizes: Sizes, *, semantic: bool) -> dict[str, GraphSpecs]:
    """Inputs and outputs of every network's graph, by its name. All are float32.

    `denoise` takes in `step` a row (timestep, latent_scale, noise_scale) of
    :func:`~minddiffuser.runtime.generators.ddim.step_table`; with (timestep, 0, 1) it gives the guided noise.
    `denoise_gradient` gives the vector-Jacobian product of `denoise`.

    Parameters
    ----------
    sizes : Sizes
    semantic : bool
        Whether `structure_gradient` knows the semantic term of eq. 6.
    """
    latent, image = float32(BATCH, *sizes.latent), float32(BATCH, 3, sizes.image_size, sizes.image_size)
    context, structure = float32(BATCH, *sizes.context), float32(BATCH, *sizes.structure)
    n_layers, width = sizes.structure[0], sizes.structure[-1]
    step = {
        "latent": latent,
        "step": float32(3),
        "context": context,
        "uncond_context": float32(*sizes.context),
        "guidance": float32(1),
    }
    target = {"target": structure, "mask": float32(*sizes.structure), "layer_weights": float32(BATCH, n_layers)}
    if semantic:
        target |= {"semantic_target": float32(BATCH, width), "semantic_weight": float32(1)}
    features = {
        "structure": structure,
        "semantic": float32(BATCH, width),
        "embedding": float32(BATCH, sizes.embedding),
    }
    gradients = {"latent_gradient": latent, "context_gradient": context}
    return {
        "denoise": GraphSpecs(step, {"next_latent": latent}),
        "vae_decode": GraphSpecs({"latent": latent}, {"image": image}),
        "clip_structure": GraphSpecs({"image": image}, features),
        "structure_gradient": GraphSpecs(
            {"latent": latent, **target}, {"loss": float32(BATCH), "latent_gradient": latent, "image": image}
        ),
        "denoise_gradient": GraphSpecs({**step, "next_gradient": latent}, gradients),
    }


def decode_specs(
    response_shape: tuple[int, ...], target: str, shape: tuple[int, ...], n_candidates: int | None = None
) -> GraphSpecs:
    """Inputs and outputs of the graph that decodes a target of a shape.

    Parameters
    ----------
    n_candidates : int, optional
        Where the context is found by way of concepts: of how many, to each of which it gives the similarity too.
    """
    outputs = {target: float32(BATCH, *shape)}
    if target == "context" and n_candidates is not None:
        outputs["similarity"] = float32(BATCH, n_candidates)
    return GraphSpecs({"responses": float32(BATCH, *response_shape)}, outputs)


def float32(*shape: int | str) -> TensorSpec:
    return TensorSpec("float32", shape)
