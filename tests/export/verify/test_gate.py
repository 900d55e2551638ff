"""The gate on graphs of one operator: what passes, what does not, and what it says then."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from minddiffuser.export.verify import gate, rows
from minddiffuser.export.verify.gate import Case, end_to_end, expected_cases, verify, verify_file
from minddiffuser.export.verify.parity import GUIDED_PICTURES, PICTURES, TOLERANCES, GateFailure, Spread, failed
from minddiffuser.runtime.bundle.graph_specs import TensorSpec
from minddiffuser.runtime.bundle.manifest import PRECISIONS

Build = Callable[..., ModelProto]
SPECS = {"x": TensorSpec("float32", ("batch", 3))}, {"y": TensorSpec("float32", ("batch", 3))}


def case(kind: str = "decoded", batch: int = 2, seed: int = 0) -> Case:
    """The reference doubles."""
    x = np.random.default_rng(seed).standard_normal((batch, 3)).astype(np.float32)
    return Case(kind=kind, feeds={"x": x}, expected={"y": 2 * x})


def doubled(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": 2 * feeds["x"]}


def test_figures_are_kept_by_kind_of_input() -> None:
    """The worst over the cases of one kind."""

    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        off = 1e-5 if len(feeds["x"]) == 5 else 1e-6
        return {"y": 2 * feeds["x"] + np.float32(off)}

    cases = [case("random"), case("decoded", 5), case("decoded", 2)]
    found = verify(run, SPECS, cases, "fp32")
    assert found.reason is None
    metrics = json.loads(json.dumps(found.parity, allow_nan=False))
    assert metrics["verified"] == "run"
    assert metrics["tolerance"] == TOLERANCES["fp32"].worst
    assert metrics["reason"] == TOLERANCES["fp32"].reason
    worst = {kind: tensors["y"]["worst"] for kind, tensors in metrics["inputs"].items()}
    peaks = [np.abs(c.expected["y"]).max() for c in cases]
    assert worst["random"] == pytest.approx(1e-6 / peaks[0], rel=0.3)
    assert worst["decoded"] == pytest.approx(1e-5 / peaks[1], rel=0.1)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda y: y * np.nan, "y holds NaN or infinite values (on random inputs)"),
        (lambda y: y[:, :2], "y has shape (2, 2), expected (2, 3) (on random inputs)"),
        (lambda y: y + 0.1, "of its peak, tolerance 0.0001 (on random inputs)"),
        (lambda y: -y, "y is off by 2 of its peak"),
    ],
)
def test_a_failure_says_which_graph_which_tensor_and_what_to_try(
    broken: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    found = verify(lambda feeds: {"y": broken(2 * feeds["x"])}, SPECS, [case("random"), case("decoded")], "fp32")
    assert found.reason is not None
    assert words in found.reason
    json.dumps(found.parity, allow_nan=False)  # an infinite error can be written down for --keep-failed
    error = failed("doubler", "fp32", found.reason)
    assert isinstance(error, GateFailure)
    assert str(error).startswith("the graph doubler in fp32 is not exported: y ")
    assert "report this as a bug" in str(error)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_has_something_to_try(precision: str) -> None:
    metrics = str(failed("doubler", precision, "y is wrong"))
    assert len(metrics.partition("; ")[2]) > 20
    assert "\n" not in metrics


def test_one_wrong_case_among_many_is_enough() -> None:
    cases = [case(seed=seed) for seed in range(4)]
    wrong = cases[2].feeds["x"]

    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": (2 if feeds["x"] is not wrong else 2.1) * feeds["x"]}

    assert "(on decoded inputs)" in str(verify(run, SPECS, cases, "fp32").reason)


class Doubler:
    """The reference of a graph whose output doubles."""

    name = "doubler"

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return doubled(feeds)


def test_cases_hold_what_the_reference_gives() -> None:
    inputs: dict[str, Any] = {"random": [case().feeds], "decoded": [case(batch=1).feeds, case(batch=3).feeds]}
    engine: Any = Doubler()
    cases = expected_cases(engine, inputs)
    assert [(c.kind, len(c.expected["y"])) for c in cases] == [("random", 2), ("decoded", 1), ("decoded", 3)]
    for c in cases:
        np.testing.assert_array_equal(c.expected["y"], 2 * c.feeds["x"])
        assert c.spread == {}


class Clamped:
    """A loss over numbers that are clamped at 1, as pixels are: the slope of one that lies there is 0 or 1."""

    name = "structure_gradient"

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        latent = feeds["latent"]
        return {"loss": np.minimum(latent, 1).sum(1), "latent_gradient": (latent < 1).astype(np.float32)}


CLAMPED = (
    {"latent": TensorSpec("float32", ("batch", 4000))},
    {"loss": TensorSpec("float32", ("batch",)), "latent_gradient": TensorSpec("float32", ("batch", 4000))},
)


def near_one(feeds: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    return {"fp32": {"latent_gradient": (np.abs(feeds["latent"] - 1) < 1e-4).astype(np.float32)}}


def test_a_slope_may_jump_where_rounding_decides_and_nowhere_else() -> None:
    """Some of four thousand numbers lie within the rounding error of where they are clamped."""
    engine: Any = Clamped()
    latent = np.random.default_rng(0).uniform(-1, 0.9, (1, 4000)).astype(np.float32)
    calm = expected_cases(engine, {"decoded": [{"latent": latent}]}, near_one)
    assert calm[0].spread == {"fp32": {"latent_gradient": Spread(0, 0)}}
    edge = latent.copy()
    edge[0, :20] = 1 - 1e-6
    (jumpy,) = expected_cases(engine, {"decoded": [{"latent": edge}]}, near_one)
    spread = jumpy.spread["fp32"]["latent_gradient"]
    assert spread.jump == 1
    assert spread.turn == pytest.approx(1 - (1 - 20 / 4000) ** 0.5)  # Pythagoras: 20 of 4,000 ones may go

    def other_side(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = engine.run(feeds)
        found["latent_gradient"][0, :20] = 0
        return found

    found = verify(other_side, CLAMPED, [jumpy], "fp32")
    assert found.reason is None
    deviation = found.parity["inputs"]["decoded"]["latent_gradient"]
    assert (deviation["worst"], deviation["jump"], deviation["turn"]) == (1, 1, spread.turn)
    assert deviation["cosine"] == pytest.approx(1 - spread.turn)
    assert "jump" not in found.parity["inputs"]["decoded"]["loss"]
    metrics = str(verify(other_side, CLAMPED, calm, "fp32").reason)
    assert "latent_gradient is off by 1 of its peak, tolerance 0.0001" in metrics
    assert "latent_gradient is off by 1" in str(verify(other_side, CLAMPED, [jumpy], "fp16").reason)
    for tensor, factor, words in (("loss", 1.01, "loss is off by"), ("latent_gradient", 0, "has cosine 0.0")):
        scaled = {tensor: factor}  # only the slope may jump, and not all of it
        found = verify(lambda f, by=scaled: times(engine.run(f), by), CLAMPED, [jumpy], "fp32")
        assert words in str(found.reason)


def test_a_bound_that_is_no_number_allows_nothing() -> None:
    engine: Any = Doubler()

    def endless(feeds: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        return {"fp32": {"y": np.full_like(feeds["x"], np.inf)}}

    (found,) = expected_cases(engine, {"random": [case().feeds]}, endless)
    assert found.spread == {"fp32": {"y": Spread(0, 0)}}


def times(outputs: dict[str, np.ndarray], by: Mapping[str, float]) -> dict[str, np.ndarray]:
    return {name: np.float32(by.get(name, 1)) * array for name, array in outputs.items()}


def write(model: ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def first_of_all(build: Build) -> ModelProto:
    """A graph that gives the first trial's answer to every trial: right as long as there is only one."""
    nodes = [
        ("Shape", "x", "shape"),
        ("Gather", "x zero", "first", {"axis": 0}),
        ("Mul", "first two", "doubled"),
        ("Expand", "doubled shape", "y"),
    ]
    weights = {"zero": np.array([0]), "two": np.float32([2])}
    return build(nodes, {"x": ("batch", 3)}, {"y": ("batch", 3)}, weights)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_graph_that_mixes_trials_does_not_pass_on_one(
    build: Build, tmp_path: Path, precision: str, batch: int
) -> None:
    """Nor on two that are the same."""
    path = write(first_of_all(build), tmp_path / "first.onnx")
    one = case(batch=1)
    several = Case(
        kind="decoded", feeds={"x": one.feeds["x"].repeat(batch, 0)}, expected={"y": one.expected["y"].repeat(batch, 0)}
    )
    for bounded in ("fast", "low"):
        found = verify_file("doubler", path, SPECS, [several], precision, threads=1, memory=bounded)
        assert "y of a trial depends on the other trials that are run with it" in str(found.reason)
        assert found.one_row is None
    good = write(build([("Add", "x x", "y")], {"x": ("batch", 3)}, {"y": ("batch", 3)}), tmp_path / "good.onnx")
    found = verify_file("doubler", good, SPECS, [several], precision, threads=1)
    assert (found.reason, found.parity["rows_together"]) == (None, pytest.approx(0, abs=1e-6))


def test_where_there_is_no_room_for_two_trials_one_is_said_to_be_all(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(first_of_all(build), tmp_path / "first.onnx")
    monkeypatch.setattr(rows, "measured", lambda call: (call(), 3 << 30))
    monkeypatch.setattr(rows, "available", lambda: 5 << 30)
    found = verify_file("doubler", path, SPECS, [case(batch=1)], "fp32", threads=1, memory="low")
    assert found.reason is None
    assert found.one_row == "two trials at once need about 6.0 GiB, and 5.0 GiB are free"
    monkeypatch.setattr(rows, "available", lambda: 7 << 30)
    assert verify_file("doubler", path, SPECS, [case(batch=1)], "fp32", threads=1, memory="low").reason is not None


def test_a_file_is_run_by_onnx_runtime(build: Build, tmp_path: Path) -> None:
    model = build([("Add", "x x", "y")], {"x": ("batch", 3)}, {"y": ("batch", 3)})
    path = write(model, tmp_path / "doubler.fp32.onnx")
    found = verify_file("doubler", path, SPECS, [case(), case(batch=5)], "fp32", threads=1)
    assert (found.reason, found.parity["verified"]) == (None, "run")
    wrong = build([("Mul", "x x", "y")], {"x": ("batch", 3)}, {"y": ("batch", 3)})
    found = verify_file("doubler", write(wrong, tmp_path / "wrong.onnx"), SPECS, [case()], "fp32", threads=1)
    assert "y is off by" in str(found.reason)


def half_model(build: Build, kind: int, name: str) -> ModelProto:
    """Doubling by a sum with a large number, which half precision cannot hold beside a small one."""
    return build(
        [
            ("Cast", "x", "h", {"to": kind}),
            ("Cast", "big", "b", {"to": kind}),
            ("Add", "h b", "s"),
            ("Sub", "s b", "back"),
            ("Add", "back h", "d"),
            ("Cast", "d", "y", {"to": TensorProto.FLOAT}),
        ],
        {"x": ("batch", 3)},
        {"y": ("batch", 3)},
        {"big": np.array(1.0 if name == "exact" else 1024.0, np.float32)},
    )


@pytest.mark.parametrize(("precision", "kind"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_rounding_of_half_precision_is_seen(build: Build, tmp_path: Path, precision: str, kind: int) -> None:
    x = np.array([[0.5, -0.25, 1.0], [0.125, 2.0, -1.0]], np.float32)
    cases = [Case(kind="decoded", feeds={"x": x}, expected={"y": 2 * x})]
    exact = write(half_model(build, kind, "exact"), tmp_path / "exact.onnx")
    assert verify_file("doubler", exact, SPECS, cases, precision, threads=1).reason is None
    coarse = write(half_model(build, kind, "coarse"), tmp_path / "coarse.onnx")
    found = verify_file("doubler", coarse, SPECS, cases, precision, threads=1)
    assert "y is off by" in str(found.reason)
    assert "emulated" in found.parity["verified"]


def test_an_overflow_of_float16_is_seen(build: Build, tmp_path: Path) -> None:
    """ONNX Runtime has no float16 sum on the CPU: it would compute this in float32, and get it right."""
    nodes = [
        ("Cast", "x", "h", {"to": TensorProto.FLOAT16}),
        ("Mul", "h large", "a"),
        ("Mul", "a large", "b"),
        ("Mul", "b tiny", "c"),
        ("Mul", "c twice", "d"),
        ("Cast", "d", "y", {"to": TensorProto.FLOAT}),
    ]
    weights = {name: np.array(v, np.float16) for name, v in {"large": 512, "tiny": 2**-18, "twice": 2}.items()}
    path = write(build(nodes, {"x": ("batch", 3)}, {"y": ("batch", 3)}, weights), tmp_path / "large.onnx")
    found = verify_file("doubler", path, SPECS, [case()], "fp16", threads=1)
    assert found.reason == "y holds NaN or infinite values (on decoded inputs)"


def pictures(n: int = 3, size: int = 16) -> np.ndarray:
    """Soft random pictures."""
    coarse = np.random.default_rng(4).random((n, 3, 4, 4), np.float32)
    return coarse.repeat(size // 4, 2).repeat(size // 4, 3)


def embed(images: np.ndarray) -> np.ndarray:
    return images.mean((2, 3)).reshape(len(images), -1)


def test_equal_pictures_pass() -> None:
    expected = pictures()
    found = end_to_end(expected.copy(), expected, pictures() * 0.9, embed, PICTURES["fp32"])
    assert found.reason is None
    metrics = json.loads(json.dumps(found.metrics, allow_nan=False))
    assert metrics["psnr_db"] == 120
    assert metrics["n_trials"] == 3
    assert metrics["compared_with"] == "the stimuli"
    assert metrics["differences"] == {"pixcorr": 0, "ssim": 0, "identification": 0}


def test_one_trial_has_no_identification() -> None:
    expected = pictures(1)
    found = end_to_end(expected, expected, None, embed, PICTURES["fp32"])
    assert set(found.metrics["differences"]) == {"pixcorr", "ssim"}
    assert found.metrics["compared_with"] == "PyTorch's pictures"


def test_pictures_that_are_no_numbers_are_reported() -> None:
    found = pictures()
    found[1, 0, 0, 0] = np.nan
    assert (
        end_to_end(found, pictures(), None, embed, PICTURES["fp32"]).reason
        == "the pictures hold NaN or infinite values"
    )


def test_pictures_of_another_trial_are_reported_in_decibels() -> None:
    expected = pictures()
    reason = str(end_to_end(expected[[1, 0, 2]], expected, expected, embed, PICTURES["fp32"]).reason)
    assert "dB PSNR to PyTorch's, at least 45 are needed" in reason
    flat = end_to_end(np.full_like(expected, 0.5), expected, expected, embed, PICTURES["bf16"])
    assert "dB PSNR" in str(flat.reason)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_of_a_guided_pass_at_most_40_decibels_are_asked(precision: str) -> None:
    expected, asked = 0.2 + 0.6 * pictures(), GUIDED_PICTURES[precision]
    assert asked.psnr == min(40, PICTURES[precision].psnr)
    assert asked.metric == PICTURES[precision].metric
    for decibels, good in ((asked.psnr + 0.5, True), (asked.psnr - 0.5, False)):
        brighter = np.float32(expected + 10 ** (-decibels / 20))
        found = end_to_end(brighter, expected, None, embed, replace(asked, metric=1.0), what="guided ones")
        assert (found.reason is None) == good
        if not good:
            assert str(found.reason).startswith("guided ones have ")
            assert f"at least {asked.psnr:g} are needed" in str(found.reason)


@pytest.mark.parametrize("name", ["pixcorr", "ssim", "identification"])
@pytest.mark.parametrize("by", [0.3, float("nan")])
def test_a_metric_that_differs_is_reported_by_name(name: str, by: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By turns, each metric says something else of the engines' pictures than of PyTorch's."""
    expected = pictures()
    found = np.clip(expected + 1e-4, 0, 1)  # tells the two apart
    metric = {"identification": "two_way"}.get(name, name)
    real = getattr(gate, metric)

    def biased(first: Any, second: Any) -> Any:
        own = embed(found) if metric == "two_way" else found
        return real(first, second) + (by if second.shape == own.shape and np.array_equal(second, own) else 0)

    monkeypatch.setattr(gate, metric, biased)
    reason = str(end_to_end(found, expected, expected, embed, PICTURES["fp32"]).reason)
    assert reason.startswith(f"{name} differs by ")
    # Of three trials there are six pairs: one of them more or less is no difference.
    allowed = 1 / 6 if name == "identification" else PICTURES["fp32"].metric
    assert f"at most {allowed:g} is allowed" in reason
