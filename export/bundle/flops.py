"""Floating-point operations of a network's graph, counted by shapes on the function that it is traced from."""

from __future__ import annotations

import torch

from ...runtime.backends.flops import flops_of
from ...runtime.bundle.graph_specs import BATCH
from ...runtime.models.models import Models
from ..graphs import NETWORK_GRAPHS
from ..graphs.base import network_graph
from ..onnx.tracing import as_in_graph


def graph_flops(name: str, bare: Models, *, semantic: bool) -> int:
    """Operations for one trial, those included that a gradient computes again.

    Parameters
    ----------
    name
        Of a registered graph.
    bare
        The networks :func:`~minddiffuser.runtime.backends.flops.without_data`.
    semantic
        See :func:`~..graphs.base.network_graph`.
    """
    graph = network_graph(name, bare, semantic=semantic)
    shapes = ([1 if size == BATCH else int(size) for size in spec.shape] for spec in graph.inputs.values())
    given = [torch.empty(shape, device="meta") for shape in shapes]
    with as_in_graph(graph), torch.no_grad():
        return flops_of(lambda: graph.function(*given))


def all_flops(bare: Models, *, semantic: bool) -> dict[str, int]:
    """The same of every graph, by name; arguments as there."""
    return {name: graph_flops(name, bare, semantic=semantic) for name in NETWORK_GRAPHS}
