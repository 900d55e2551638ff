"""What a graph is before it is exported, and the register of those there are: one file and one line add another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...runtime.bundle.graph_specs import GraphSpecs, Sizes, graph_specs
from ...runtime.engines.base import TensorSpec
from ...runtime.errors import check_choice

if TYPE_CHECKING:
    from ...runtime.models.models import Models

# name -> module beside this one, with `graph(models, semantic=...) -> NetworkGraph`
NETWORK_GRAPHS: dict[str, str] = {
    "denoise": ".denoise",
    "vae_decode": ".vae_decode",
    "clip_structure": ".clip_structure",
    "structure_gradient": ".structure_gradient",
    "denoise_gradient": ".denoise_gradient",
}


@dataclass(frozen=True, kw_only=True)
class NetworkGraph:
    """A function of tensors over frozen networks, with named inputs and outputs.

    Attributes
    ----------
    name
    inputs, outputs
        In the order of the function's arguments and results.
    forward
        Plain differentiable PyTorch. For a gradient graph this is the function to differentiate, and `backward` makes
        the graph's own function from it once it has been traced.
    forward_inputs
        Those of `inputs` that `forward` takes.
    backward
        traced forward -> function of all `inputs`; None for a graph that is just its forward function.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    forward: Callable[..., Any]
    forward_inputs: tuple[str, ...]
    backward: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None

    @property
    def function(self) -> Callable[..., Any]:
        """The graph's function, not traced."""
        return self.forward if self.backward is None else self.backward(self.forward)


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
