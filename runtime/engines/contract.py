"""Check that a graph of a bundle has the inputs and outputs that its name implies."""

from __future__ import annotations

from ..bundle.graph_specs import FREE, GraphSpecs, Sizes, TensorSpec, decode_specs, graph_specs
from ..bundle.manifest import DECODE
from ..bundle.open import Bundle
from ..errors import FileError
from ..features import REQUIRED_FEATURES


def check_contract(bundle: Bundle, graph: str) -> None:
    """Refuse a graph whose description is not that of its name; graphs of other names are left to the caller.

    Raises
    ------
    FileError
        An input or output is missing, is one too many, or has another type or shape.
    """
    contract = _specs(bundle, graph)
    if contract is None:
        return
    described = bundle.graphs[graph]
    for what, given, wanted in (
        ("inputs", described.inputs, contract.inputs),
        ("outputs", described.outputs, contract.outputs),
    ):
        if given.keys() != wanted.keys():
            raise FileError(
                f"the graph {graph} of {bundle.folder} has the {what} {', '.join(given)}, expected "
                f"{', '.join(wanted)}: export the bundle again"
            )
        for name, spec in wanted.items():
            if not _fits(given[name], spec):
                raise FileError(
                    f"{name} of the graph {graph} of {bundle.folder} is {given[name]}, expected {spec}: export the "
                    "bundle again"
                )


def _fits(given: TensorSpec, wanted: TensorSpec) -> bool:
    """A name among the wanted sizes stands for a free one; the embedding's width is the models' own."""
    return (
        given.dtype == wanted.dtype
        and len(given.shape) == len(wanted.shape)
        and all(
            isinstance(size, str)
            if isinstance(expected, str) and expected != FREE
            else isinstance(size, int) and expected in (size, FREE)
            for size, expected in zip(given.shape, wanted.shape, strict=True)
        )
    )


def _specs(bundle: Bundle, graph: str) -> GraphSpecs | None:
    if graph.startswith(DECODE):
        target = graph.removeprefix(DECODE)
        if target not in bundle.shapes:
            return None
        n_candidates = None if bundle.candidates is None else len(bundle.candidates.names)
        return decode_specs(bundle.layout.shape, target, bundle.shapes[target], n_candidates)
    context, latent, structure = (bundle.shapes[name] for name in REQUIRED_FEATURES)
    sizes = Sizes(context=context, latent=latent, structure=structure, image_size=bundle.image_size)
    semantic = graph in bundle.graphs and "semantic_target" in bundle.graphs[graph].inputs
    return graph_specs(sizes, semantic=semantic).get(graph)
