"""Contexts that are chosen among candidates: a tie that is decided otherwise passes, and nothing that is wrong does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from minddiffuser.export.graphs.decode import decode_model, decode_specs
from minddiffuser.export.precision.variants import in_precision
from minddiffuser.export.verify.gate import Case, verify, verify_file
from minddiffuser.export.verify.material import trials_for
from minddiffuser.export.verify.parity import TOLERANCES
from minddiffuser.runtime.bundle.graph_specs import TensorSpec
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint

RNG = np.random.default_rng(5)
CONTEXTS = RNG.standard_normal((4, 3, 2)).astype(np.float32)
SPECS = (
    {"x": TensorSpec("float32", ("batch", 4))},
    {"context": TensorSpec("float32", ("batch", 3, 2)), "similarity": TensorSpec("float32", ("batch", 4))},
)
# Of the second trial, candidates 1 and 2 are as near as float32 can tell.
CLOSE = np.array([[0.1, 0.9, 0.2, 0.3], [0.1, 0.5, 0.5 - 3e-8, 0.3]], np.float32)
Outputs = dict[str, np.ndarray]


def engine(feeds: Mapping[str, np.ndarray]) -> Outputs:
    return {"similarity": feeds["x"], "context": CONTEXTS[feeds["x"].argmax(1)]}


def turned(feeds: Mapping[str, np.ndarray]) -> Outputs:
    """As one that rounds otherwise: what lies within 1e-6 of the largest is a little larger."""
    x = feeds["x"].copy()
    near = x.max(axis=1, keepdims=True) - x < 1e-6
    x[near & (np.arange(4) == 2)] += np.float32(2e-7)
    return engine({"x": x})


FAULTS: dict[str, Callable[[Outputs], Outputs]] = {
    "the farthest": lambda o: {**o, "context": CONTEXTS[o["similarity"].argmin(1)]},
    "always the first": lambda o: {**o, "context": np.repeat(CONTEXTS[:1], len(o["context"]), 0)},
    "the next but one": lambda o: {**o, "context": CONTEXTS[(o["similarity"].argmax(1) + 2) % 4]},
    "a context that was rounded": lambda o: {**o, "context": o["context"].astype(np.float16).astype(np.float32)},
    "other similarities": lambda o: engine({"x": o["similarity"][:, ::-1]}),
    "similarities alone": lambda o: {**o, "similarity": o["similarity"][:, ::-1]},
    "no similarity": lambda o: {"context": o["context"]},
    "nan": lambda o: {**o, "similarity": o["similarity"] * np.nan},
    "the trials mixed": lambda o: {name: array[::-1] for name, array in o.items()},
}


def case(x: np.ndarray = CLOSE) -> Case:
    return Case(kind="decoded", feeds={"x": x}, expected=engine({"x": x}))


@pytest.mark.parametrize("precision", TOLERANCES)
def test_rounding_may_decide_a_tie(precision: str) -> None:
    assert (turned({"x": CLOSE})["context"][1] == CONTEXTS[2]).all()
    assert (engine({"x": CLOSE})["context"][1] == CONTEXTS[1]).all()
    for run in (engine, turned):
        assert verify(run, SPECS, [case()], precision, contexts=CONTEXTS).reason is None
    assert verify(turned, SPECS, [case()], "fp32").reason is not None, "it is this that makes it pass"


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("precision", TOLERANCES)
def test_what_is_wrong_is_found(name: str, precision: str) -> None:
    x = RNG.uniform(-1, 1, (3, 4)).astype(np.float32)
    found = verify(lambda feeds: FAULTS[name](turned(feeds)), SPECS, [case(x)], precision, contexts=CONTEXTS)
    assert found.reason is not None


@pytest.fixture
def checkpoint(tmp_path, request: pytest.FixtureRequest) -> Checkpoint:  # type: ignore[no-untyped-def]
    from kind_checkpoint import write_kind_checkpoint

    return open_checkpoint(write_kind_checkpoint(tmp_path / "c", request.param, (40,), route="concepts").folder)


@pytest.mark.parametrize("checkpoint", ["linear", "network"], indirect=True)
@pytest.mark.parametrize("precision", TOLERANCES)
def test_every_precision_hands_contexts_on_as_they_are(checkpoint: Checkpoint, precision: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """The graph itself through the gate, on trials whose concept is clear and on any."""
    assert checkpoint.route is not None
    (trials,) = trials_for(checkpoint, None, (3,))
    margins = np.diff(np.sort(checkpoint.similarities(trials.responses), axis=1)[:, -2:])
    rows = np.random.default_rng(20261106).standard_normal((40, 40), dtype=np.float32)
    mean, std = checkpoint.statistics
    any_margins = np.diff(np.sort(checkpoint.similarities((mean + std * rows).astype(np.float32)), axis=1)[:, -2:])
    assert margins.min() > np.median(any_margins)
    (other,) = trials_for(checkpoint, None, (5,), seed=3)
    cases = [
        Case(
            kind="decoded",
            feeds={"responses": t.responses},
            expected={"context": t.decoded.context, "similarity": checkpoint.similarities(t.responses)},
        )
        for t in (trials, other)
    ]
    converted = in_precision(
        [decode_model(checkpoint, "context")], "decode_context", precision, [cases[0].feeds], threads=1
    )
    if converted is None:  # nothing that is large enough for int8
        assert precision == "int8"
        return
    model = converted.models[0]
    kept = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}["context.exact.contexts"]
    np.testing.assert_array_equal(kept, checkpoint.route.context)
    onnx.save(model, tmp_path / "decode_context.onnx")
    specs = decode_specs(checkpoint, "context")
    found = verify_file(
        "decode_context",
        tmp_path / "decode_context.onnx",
        specs,
        cases,
        precision,
        threads=1,
        contexts=checkpoint.route.context,
    )
    assert found.reason is None
