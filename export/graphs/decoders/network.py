"""A network decoder as PyTorch traces it: the trunk and the head of one feature."""

from __future__ import annotations

import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from ....runtime.decoders.network import Network
from ....runtime.errors import InputError
from ...onnx.convert import OPSET
from ...onnx.simplify import simplify
from ..builder import Builder

# Neither 1, which is taken for a broadcast, nor the width of any layer, or nearly none.
_EXAMPLE_BATCH = 3
# Any number of elements: see `_compute_what_is_fixed`.
_ALL = 1 << 40


class _OneFeature(nn.Module):
    def __init__(self, network: nn.Module, number: int) -> None:
        super().__init__()
        self.network, self._number = network, number

    def forward(self, scores: Tensor) -> Tensor:
        output: Tensor = self.network(scores)[self._number]
        return output


def add(build: Builder, scores: str, decoder: Network, feature: str) -> str:
    """Nodes from z-scored responses (batch, *response_shape) to predictions (batch, n_predicted).

    Raises
    ------
    InputError
        The network holds what cannot be exported.
    """
    module = _OneFeature(decoder.module, list(decoder.placements).index(feature)).eval()
    example = torch.zeros(_EXAMPLE_BATCH, *decoder.stored.response_shape)
    try:
        with torch.no_grad():
            program = torch.export.export(
                module, (example,), strict=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["scores"],
            output_names=["predicted"],
            optimize=False,
            verbose=False,
        )
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the decoder {decoder.architecture!r} of {feature} cannot be exported: {reason}") from error
    if converted is None:
        raise InputError(f"PyTorch gave no ONNX program for {feature}: install a PyTorch that has torch.onnx")
    simplify(converted.model)
    _compute_what_is_fixed(converted.model)
    (predicted,) = build.add(ir.to_proto(converted.model).graph, {"scores": scores})
    return predicted


def _compute_what_is_fixed(model: ir.Model) -> None:
    """Compute in place what does not depend on the responses, such as how sensors are merged by their positions.

    In float32, once: at run time it would cost as much as the network, and half precision is not enough for it.
    """
    optimizer.fold_constants(model, input_size_limit=_ALL, output_size_limit=_ALL)
    optimizer.remove_unused_nodes(model)
