"""The register of the networks' graphs: one file and one line add another."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ...runtime.bundle.graph_specs import GraphSpecs, Sizes, graph_specs
from ...runtime.errors import check_choice
from ..onnx.network_graph import NetworkGraph
from . import NETWORK_GRAPHS

if TYPE_CHECKING:
    from ...runtime.models.models import Models


def network_graph(name: str, models: Models, *, semantic: bool) -> NetworkGraph:
    """Make a registered graph for these models.

    Parameters
    ----------
    semantic
        Whether gradients know the semantic term of eq. 6, which costs CLIP's deeper blocks at each iteration.

    Raises
    ------
    InputError
        No such graph.
    """
    check_choice("graph", name, NETWORK_GRAPHS)
    made: NetworkGraph = import_module(NETWORK_GRAPHS[name], __package__).graph(models, semantic=semantic)
    return made


def specs_of(models: Models, name: str, *, semantic: bool) -> GraphSpecs:
    """Inputs and outputs of a network's graph for these models."""
    sizes = Sizes(
        latent=models.latent_shape,
        context=models.context_shape,
        structure=models.structure_shape,
        image_size=models.image_size,
        embedding=models.embedding_size,
    )
    return graph_specs(sizes, semantic=semantic)[name]
