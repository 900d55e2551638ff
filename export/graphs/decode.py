"""`decode_context`, `decode_latent`, …: responses to one feature, whatever kind of decoder gives it.

The z-scores of the responses and the placement in the feature are the same for all; what lies between is the kind's
own, one file each in decoders/. A decoder with several features gives a graph for each, whose weights lie on the disk
once. Where the context is found by way of concepts, its graph decodes the embedding, compares it with the candidates',
and gives the context of the nearest.
"""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np
import onnx

from ...runtime.bundle import graph_specs
from ...runtime.bundle.graph_specs import TensorSpec
from ...runtime.bundle.manifest import DECODE
from ...runtime.decoders.base import Placement
from ...runtime.decoders.checkpoint import Checkpoint
from ...runtime.decoders.concepts import SHORTEST, SIMILARITY, ConceptRoute
from ...runtime.features import EMBEDDING
from .builder import Builder
from .decoders import DECODER_GRAPHS


def decode_specs(checkpoint: Checkpoint, feature: str) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Inputs and outputs of a decode graph."""
    n_candidates = None if checkpoint.candidates is None else len(checkpoint.candidates.names)
    found = graph_specs.decode_specs(checkpoint.layout.shape, feature, checkpoint.shapes[feature], n_candidates)
    return dict(found.inputs), dict(found.outputs)


def decode_model(checkpoint: Checkpoint, feature: str) -> onnx.ModelProto:
    """Make `decode_<feature>`: z-score by the training statistics, predict, put into the feature's units.

    Parameters
    ----------
    feature
        "context", "latent", "structure" or "semantic". Token 0 of the context is the constant of training captions.
    """
    build, route = Builder(DECODE + feature, feature), checkpoint.route if feature == "context" else None
    decoded = feature if route is None else EMBEDDING
    kind = next(made["kind"] for made in checkpoint.description["decoders"] if decoded in made["features"])
    decoder = checkpoint.decoders[decoded]
    add = import_module(DECODER_GRAPHS[kind], f"{__package__}.decoders").add
    predicted = add(build, _z_scores(build, checkpoint), decoder, decoded)
    _in_place(build, predicted, checkpoint, decoded, decoder.placements[decoded])
    if route is not None:
        _nearest(build, decoded, route)
    inputs, outputs = decode_specs(checkpoint, feature)
    return build.model(inputs, outputs)


def _z_scores(build: Builder, checkpoint: Checkpoint) -> str:
    """(responses - mean) / std, and 0 for what did not vary in training."""
    mean, std = checkpoint.statistics
    varies = std > 0
    centred = build.node("Sub", ["responses", build.constant("mean", mean)])
    scores = build.node("Div", [centred, build.constant("std", np.where(varies, std, 1).astype(np.float32))])
    if varies.all():
        return scores
    zero = build.constant("zero", np.zeros((), np.float32))
    return build.node("Where", [build.constant("varies", varies), scores, zero])


def _in_place(build: Builder, predicted: str, checkpoint: Checkpoint, feature: str, placement: Placement) -> None:
    """Scale to the feature's units and set every predicted dimension to its place; the others hold their mean."""
    shape, position = placement.shape, placement.position
    slot = np.full(math.prod(shape), -1, np.int64)
    slot[position] = np.arange(len(position))
    there = slot >= 0
    # A gather with the place of each dimension; those without a prediction read any and count with weight 0.
    spread = build.node(
        "Gather", [predicted, build.constant("slot", np.where(there, slot, 0).astype(np.int32))], axis=1
    )
    scale = np.where(there, placement.std, 0).astype(np.float32)
    offset = placement.mean.copy()
    if feature == "context":
        width = shape[1]
        scale[:width], offset[:width] = 0, checkpoint.context_bos
    scaled = build.node("Mul", [spread, build.constant("scale", scale)])
    flat = build.node("Add", [scaled, build.constant("offset", offset)])
    build.node("Reshape", [flat, build.constant("shape", np.array([-1, *shape]))], output=feature)


def _nearest(build: Builder, embedding: str, route: ConceptRoute) -> None:
    """From the decoded embedding to its similarity to each candidate, and the context of the first nearest one.

    In float32 always: rounding would choose another concept, and of a context it would save nothing.
    """
    build.exact = True
    centred = build.node("Sub", [embedding, build.constant("centre", route.centre)])
    axis = build.constant("last_axis", np.array([-1]))
    length = build.node("ReduceL2", [centred, axis], keepdims=1)
    length = build.node("Max", [length, build.constant("shortest", np.array(SHORTEST))])
    unit = build.node("Div", [centred, length])
    candidates = build.constant("candidates", route.embedding.T)
    similarity = build.node("MatMul", [unit, candidates], output=SIMILARITY)
    best = build.node("ArgMax", [similarity], axis=1, keepdims=0)  # of equal ones the first, as numpy's
    build.node("Gather", [build.constant("contexts", route.context), best], output="context", axis=0)
