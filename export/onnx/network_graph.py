"""What a graph is before it is exported: a function over frozen networks with named inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...runtime.bundle.graph_specs import TensorSpec


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
