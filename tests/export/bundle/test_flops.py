"""Operations of every network's graph against those of the ONNX graph that is made of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from minddiffuser.export.bundle.flops import all_flops
from minddiffuser.export.graphs import NETWORK_GRAPHS
from minddiffuser.runtime.backends.flops import autograd_costs, without_data
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine.costs import engine_costs

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def of_onnx(model: onnx.ModelProto) -> int:
    """Operations for one trial, by the shapes that arrays have where ONNX Runtime runs the graph."""
    assert not {node.op_type for node in model.graph.node} & {"Einsum", "Attention", "Loop", "If"}
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    known = {*shapes, *(value.name for value in (*model.graph.input, *model.graph.output))}
    names = {name for node in products for name in (*node.input[:2], node.output[0])} - known
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    sizes = {
        value.name: [size if isinstance(size, int) else 1 for size in value.shape] for value in session.get_inputs()
    }
    feeds = {name: np.ones(shape, np.float32) for name, shape in sizes.items()}
    found = dict(zip(outputs, session.run(outputs, feeds), strict=True))
    shapes |= {name: array.shape for name, array in (feeds | found).items()}
    total = 0
    for node in products:
        left, right, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
        if node.op_type == "Conv":
            total += 2 * math.prod(out) * math.prod(right[1:])
        elif node.op_type == "ConvTranspose":
            total += 2 * math.prod(left) * math.prod(right[1:])
        else:
            turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            total += 2 * math.prod(out) * left[-2 if turned else -1]
    return total


@pytest.mark.parametrize("name", NETWORK_GRAPHS)
def test_the_manifest_says_what_the_exported_graph_computes(name: str, tiny_bundle: Path) -> None:
    models, graph = load_models("tiny"), Bundle.open(tiny_bundle).graphs[name]
    exported = of_onnx(onnx.load(str(graph.variants[0].file)))
    # The UNet's last layer is linear: its output is not wanted on the way back, and the exporter drops it.
    last = models.unet.conv_out.weight
    dropped = 2 * 2 * last.numel() * math.prod(models.latent_shape[1:]) if name == "denoise_gradient" else 0
    assert graph.flops == exported + dropped


@pytest.mark.long
def test_engines_compute_what_autograd_does_and_more(small_world: Path) -> None:
    models = load_models(str(small_world))
    flops = all_flops(without_data(models), semantic=False)
    engines, autograd = engine_costs(flops), autograd_costs(models)
    assert flops["denoise"] == 2 * engines.reference_flops
    assert engines.reference_flops == autograd.reference_flops
    assert engines.predict == autograd.predict == 2.0
    assert engines.decode == autograd.decode
    assert engines.pull_back >= autograd.pull_back
    # A step's forward pass again, and the way back to latent and context.
    assert engines.pull_back == pytest.approx(autograd.predict + autograd.back_with_context, rel=1e-3)
    # Engines enlarge pictures by products in the graph of the gradient.
    assert engines.structural >= autograd.structural
