"""What each graph of a bundle takes and gives: fixed by its name and the bundle's shapes, whoever wrote the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bundle_schema import DECODE
from ..errors import FileError
from .base import TensorSpec

if TYPE_CHECKING:
    from ..bundle import Bundle

_Shape = tuple[int | str, ...]
_Shapes = dict[str, _Shape]
_N = "batch"


def check_contract(bundle: Bundle, graph: str) -> None:
    """Refuse a graph whose description is not that of its name; graphs of other names are the caller's business.

    Raises
    ------
    FileError
        An input or output is missing, is one too many, or has another type or shape.
    """
    contract = _contract(bundle, graph)
    if contract is None:
        return
    described = bundle.graphs[graph]
    for what, given, wanted in (
        ("inputs", described.inputs, contract[0]),
        ("outputs", described.outputs, contract[1]),
    ):
        if given.keys() != wanted.keys():
            raise FileError(
                f"the graph {graph} of {bundle.folder} has the {what} {', '.join(given)}, expected "
                f"{', '.join(wanted)}: export the bundle again"
            )
        for name, shape in wanted.items():
            if not _fits(given[name], shape):
                raise FileError(
                    f"{name} of the graph {graph} of {bundle.folder} is {given[name]}, expected "
                    f"{TensorSpec('float32', shape)}: export the bundle again"
                )


def _fits(given: TensorSpec, shape: _Shape) -> bool:
    """A name in `shape` stands for a free size; the embedding's width is the models' own."""
    return (
        given.dtype == "float32"
        and len(given.shape) == len(shape)
        and all(
            isinstance(size, str) if wanted == _N else isinstance(size, int) and wanted in (size, "width")
            for size, wanted in zip(given.shape, shape, strict=True)
        )
    )


def _contract(bundle: Bundle, graph: str) -> tuple[_Shapes, _Shapes] | None:
    if graph.startswith(DECODE):
        target = graph.removeprefix(DECODE)
        if target not in bundle.shapes:
            return None
        return {"responses": (_N, *bundle.layout.shape)}, {target: (_N, *bundle.shapes[target])}
    latent: _Shape = (_N, *bundle.shapes["latent"])
    context, structure, size = bundle.shapes["context"], bundle.shapes["structure"], bundle.image_size
    image: _Shape = (_N, 3, size, size)
    width = structure[-1]
    step: _Shapes = {
        "latent": latent,
        "step": (3,),
        "context": (_N, *context),
        "uncond_context": context,
        "guidance": (1,),
    }
    head: _Shapes = {"latent": latent, "target": (_N, *structure), "mask": structure}
    head["layer_weights"] = (_N, structure[0])
    if graph in bundle.graphs and "semantic_target" in bundle.graphs[graph].inputs:
        head |= {"semantic_target": (_N, width), "semantic_weight": (1,)}
    features: _Shapes = {"structure": (_N, *structure), "semantic": (_N, width), "embedding": (_N, "width")}
    contracts: dict[str, tuple[_Shapes, _Shapes]] = {
        "denoise": (step, {"next_latent": latent}),
        "vae_decode": ({"latent": latent}, {"image": image}),
        "clip_structure": ({"image": image}, features),
        "structure_gradient": (head, {"loss": (_N,), "latent_gradient": latent, "image": image}),
        "denoise_gradient": (
            {**step, "next_gradient": latent},
            {"latent_gradient": latent, "context_gradient": (_N, *context)},
        ),
    }
    return contracts.get(graph)
