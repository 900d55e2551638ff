"""One graph in each precision: what is converted, what stays in float32, and the measurement that decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ...runtime.bundle.manifest import DECODE
from ..graphs.builder import is_exact
from . import NothingToQuantise, calibrated, decide, dynamic, probe, to_half, weights_only

Feeds = dict[str, NDArray[np.float32]]
HALVES = {"fp16": "float16", "bf16": "bfloat16"}
# What int8 does to each graph (docs/engines.md has the numbers): of decoders only the weights are stored so, since they
# cost little to run; transformers' products are quantised as they run; convolutions by calibration. Gradients stay in
# float32: their weights are used in two layouts, so nothing gets smaller, and the gradient of rounding is zero.
INT8_ROUTES = {"decode": "weights", "clip_structure": "dynamic", "denoise": "dynamic", "vae_decode": "calibrated"}


@dataclass(frozen=True, eq=False)
class Converted:
    """A graph in one precision, the one item of `models`, and each exception from it; `note` says how it was made."""

    models: list[onnx.ModelProto]
    exceptions: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


def in_precision(
    models: list[onnx.ModelProto], graph: str, precision: str, batches: Sequence[Feeds], *, threads: int
) -> Converted | None:
    """Convert a float32 graph.

    Parameters
    ----------
    models
        One item, the graph in float32 with its weights inside; taken out for "fp32", which therefore comes last, and
        left as it is for the others.
    graph
        Its name.
    precision
        "fp32", "fp16", "bf16" or "int8".
    batches
        Real inputs, for the activation-range probe and for calibration.

    Returns
    -------
    None where this precision does nothing for this graph.
    """
    if precision == "fp32":
        return Converted([models.pop()])
    model = models[0]
    if precision in HALVES:
        ranges = probe(model, list(batches), threads=threads, precisions=(precision,))
        exceptions = decide(ranges, model, precision)
        kept = {exception["layer"] for exception in exceptions}
        kept |= {node.name for node in model.graph.node if is_exact(node)}
        converted = to_half(model, HALVES[precision], keep=kept)
        note = f"{len(kept)} of {len(model.graph.node)} nodes stay in float32, by the measured range of their values"
        return Converted([converted], [dict(exception) for exception in exceptions], note)
    try:
        return _int8(model, graph, batches, threads)
    except NothingToQuantise:  # as in a decoder of a few small rows
        return None


def _int8(model: onnx.ModelProto, graph: str, batches: Sequence[Feeds], threads: int) -> Converted | None:
    route = INT8_ROUTES.get("decode" if graph.startswith(DECODE) else graph)
    if route == "weights":
        exact = {name for node in model.graph.node if is_exact(node) for name in node.input}
        return Converted([weights_only(model, keep=exact)], note="weights stored in 8 bits, sums in float32")
    if route == "dynamic":
        return Converted([dynamic(model)], note="products with constant weights, quantised as they run")
    if route == "calibrated":
        found = calibrated(model, list(batches), threads=threads)
        note = f"calibrated on decoded latents, error {found.error:.3g}"
        return Converted([found.model], [dict(exemption) for exemption in found.exemptions], note)
    return None
