"""One sentence for every way in which a plan does not fit, and none for a plan that does."""

import json
import platform
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minddiffuser.runtime.engines.cuda.gpu import Gpu, find_gpu
from minddiffuser.runtime.engines.tensorrt import identity as trt_identity
from minddiffuser.runtime.engines.tensorrt.identity import check_plan, this_machine

A100, A100_40, H200 = "NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB", "NVIDIA H200"
T4, RTX_4090, RTX_5090 = "Tesla T4", "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 5090"
CAPABILITY = {A100: "8.0", A100_40: "8.0", H200: "9.0", T4: "7.5", RTX_4090: "8.9", RTX_5090: "12.0"}


def machine(target: str, gpu: str | None, library: str | None, system: str = "linux-x86_64") -> dict[str, Any]:
    return {
        "target": target,
        "library": library,
        "cuda": "13.0",
        "gpu": gpu,
        "compute_capability": CAPABILITY[gpu] if gpu else None,
        "platform": system,
    }


def plan(target: str, gpu: str | None, library: str, system: str = "linux-x86_64", **options: Any) -> dict[str, Any]:
    graph = {"sha256": "a" * 64, "data": {"weights.bin": "b" * 64}}
    return {**machine(target, gpu, library, system), "options": options, "graph": graph}


CLASSIC, RTX = "tensorrt", "tensorrt-rtx"
SAME, AMPERE = "same_compute_capability", "ampere_plus"


@pytest.mark.parametrize(
    ("built", "here"),
    [
        (plan(CLASSIC, A100, "11.1.0.106"), machine(CLASSIC, A100, "11.1.0.106")),
        (plan(CLASSIC, A100, "11.1.0"), {**machine(CLASSIC, A100, "11.1.0"), "cuda": "12.9"}),
        # Later releases, up to the next major one, for version-compatible plans.
        (plan(CLASSIC, A100, "10.3.0", version_compatible=True), machine(CLASSIC, A100, "10.3.1")),
        (plan(CLASSIC, A100, "10.9.0", version_compatible=True), machine(CLASSIC, A100, "10.10.0")),
        (plan(CLASSIC, A100, "10.9.0", version_compatible=True), machine(CLASSIC, A100, "11.0.0")),
        # Other GPUs, as far as the plan says.
        (plan(CLASSIC, A100, "11.1", hardware_compatibility=SAME), machine(CLASSIC, A100_40, "11.1")),
        (plan(CLASSIC, A100, "11.1", hardware_compatibility=AMPERE), machine(CLASSIC, H200, "11.1")),
        (plan(CLASSIC, H200, "11.1", hardware_compatibility=AMPERE), machine(CLASSIC, A100, "11.1")),
        # TensorRT-RTX: the compute capabilities that were asked for, on any system.
        (plan(RTX, None, "1.7.1"), machine(RTX, RTX_5090, "1.7.1", "win32-amd64")),
        (plan(RTX, None, "1.7.1"), machine(RTX, A100, "1.7.1")),
        (plan(RTX, None, "1.7.1", compute_capabilities=["8.6", "8.9"]), machine(RTX, RTX_4090, "1.7.1")),
        (plan(RTX, None, "1.7.1", compute_capabilities=["7.5"]), machine(RTX, T4, "1.7.1")),
        (plan(RTX, RTX_4090, "1.7.1", compute_capabilities=["current"]), machine(RTX, RTX_4090, "1.7.1")),
    ],
)
def test_a_plan_that_fits(built: dict[str, Any], here: dict[str, Any]) -> None:
    assert check_plan(built, here) is None
    again = json.loads(json.dumps(built))  # as a manifest keeps it
    assert check_plan(again, here, graph_sha256="a" * 64, data={"weights.bin": "b" * 64}) is None


@pytest.mark.parametrize(
    ("built", "here", "words"),
    [
        (plan(RTX, None, "1.7.1"), machine(CLASSIC, A100, "11.1"), ["TensorRT-RTX", "open it with"]),
        (plan(CLASSIC, A100, "11.1"), machine(RTX, A100, "1.7.1"), ["for TensorRT,", "open it with"]),
        (plan(CLASSIC, A100, "11.1"), machine(CLASSIC, A100, None), ["does not load", "minddiffuser[gpu]"]),
        (plan(RTX, None, "1.7.1"), machine(RTX, RTX_4090, None), ["does not load", "minddiffuser[rtx]"]),
        (plan("tensorrt-9", A100, "11.1"), machine(CLASSIC, A100, "11.1"), ["'tensorrt-9'"]),
        # Another release.
        (plan(CLASSIC, A100, "11.1.0"), machine(CLASSIC, A100, "11.1.1"), ["11.1.0", "11.1.1"]),
        (plan(RTX, None, "1.7.1"), machine(RTX, RTX_4090, "1.7.2"), ["1.7.1", "1.7.2"]),
        (plan(CLASSIC, A100, "10.9.1", version_compatible=True), machine(CLASSIC, A100, "10.9.0"), ["later releases"]),
        (plan(CLASSIC, A100, "11.0", version_compatible=True), machine(CLASSIC, A100, "10.16"), ["later releases"]),
        (plan(CLASSIC, A100, "10.9", version_compatible=True), machine(CLASSIC, A100, "12.0"), ["release 11"]),
        (plan(CLASSIC, A100, "10.x", version_compatible=True), machine(CLASSIC, A100, "10.9"), ["10.x"]),
        # Another GPU.
        (plan(CLASSIC, A100, "11.1"), machine(CLASSIC, None, "11.1"), ["no", "needs a CUDA GPU"]),
        (plan(CLASSIC, A100, "11.1"), machine(CLASSIC, A100_40, "11.1"), [A100, A100_40]),
        (plan(CLASSIC, A100, "11.1"), machine(CLASSIC, H200, "11.1"), ["8.0", H200, "9.0"]),
        (plan(CLASSIC, A100, "11.1", hardware_compatibility=SAME), machine(CLASSIC, H200, "11.1"), ["8.0", "9.0"]),
        (plan(CLASSIC, A100, "11.1", hardware_compatibility=AMPERE), machine(CLASSIC, T4, "11.1"), ["8.0", "7.5"]),
        (plan(CLASSIC, None, "11.1"), machine(CLASSIC, A100, "11.1"), ["unknown GPU"]),
        (plan(RTX, None, "1.7.1"), machine(RTX, T4, "1.7.1"), ["8.0 and later", T4]),
        (plan(RTX, None, "1.7.1", compute_capabilities=["8.6"]), machine(RTX, RTX_4090, "1.7.1"), ["8.6", "8.9"]),
        (
            plan(RTX, RTX_4090, "1.7.1", compute_capabilities=["current"]),
            machine(RTX, RTX_5090, "1.7.1"),
            ["8.9", "12.0"],
        ),
        (plan(RTX, None, "1.7.1", compute_capabilities=["current"]), machine(RTX, RTX_5090, "1.7.1"), ["unknown"]),
        # Another system.
        (plan(CLASSIC, A100, "11.1"), machine(CLASSIC, A100, "11.1", "linux-aarch64"), ["x86_64", "aarch64"]),
        (plan(CLASSIC, A100, "11.1", "win32-amd64"), machine(CLASSIC, A100, "11.1"), ["win32", "linux"]),
    ],
)
def test_a_plan_that_does_not_fit(built: dict[str, Any], here: dict[str, Any], words: list[str]) -> None:
    message = check_plan(built, here)
    assert message is not None
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_plan_of_another_graph_or_other_weights() -> None:
    built, here = plan(CLASSIC, A100, "11.1"), machine(CLASSIC, A100, "11.1")
    assert "another version of its ONNX graph" in str(check_plan(built, here, graph_sha256="c" * 64))
    for data in ({}, {"weights.bin": "c" * 64}, {"weights.bin": "b" * 64, "more.bin": "d" * 64}):
        assert "other weights" in str(check_plan(built, here, data=data))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"target": None}, "target"),
        ({"library": 11}, "library"),
        ({"library": "11\x1b[2J"}, "library"),
        ({"gpu": 3}, "gpu"),
        ({"compute_capability": 8.0}, "compute_capability"),
        ({"platform": None}, "platform"),
        ({"options": []}, "options"),
        ({"graph": "a"}, "graph"),
        ({"graph": {"sha256": 1}}, "graph"),
        ({"graph": {"sha256": "a", "data": []}}, "graph"),
        ({"options": {"compute_capabilities": "8.6"}}, "options.compute_capabilities"),
        ({"options": {"compute_capabilities": [8.6]}}, "options.compute_capabilities"),
        ({"options": {"hardware_compatibility": "all"}}, "options.hardware_compatibility"),
        ({"options": {"version_compatible": 1}}, "options.version_compatible"),
    ],
)
def test_a_description_that_is_damaged(change: dict[str, Any], field: str) -> None:
    here = machine(CLASSIC, A100, "11.1")
    message = check_plan({**plan(CLASSIC, A100, "11.1"), **change}, here)
    assert message == (
        f"the plan's description has no usable {field!r}: build it here with md-export build BUNDLE --target tensorrt"
    )
    assert "target" in str(check_plan({}, here))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(plan(CLASSIC, A100, "11.1"))),
    option=st.sampled_from(["compute_capabilities", "hardware_compatibility", "version_compatible"]),
    value=JSON,
    target=st.sampled_from([CLASSIC, RTX]),
)
def test_whatever_a_manifest_holds_gives_a_sentence_or_nothing(name: str, option: str, value: Any, target: str) -> None:
    for built in ({**plan(target, A100, "11.1"), name: value}, plan(target, A100, "11.1", **{option: value})):
        message = check_plan(built, machine(target, A100, "11.1"), graph_sha256="a" * 64, data={})
        assert message is None or message.isprintable()


def test_this_machine_tells_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    here = this_machine(RTX, Gpu(0, RTX_4090, "8.9", "12.9"))
    assert (here["gpu"], here["compute_capability"], here["cuda"]) == (RTX_4090, "8.9", "12.9")
    assert here["platform"] == f"{sys.platform}-{platform.machine()}".lower()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(trt_identity, "find_gpu", lambda: None)
    here = this_machine(CLASSIC)
    assert (here["library"], here["gpu"], here["compute_capability"], here["cuda"]) == (None,) * 4


def test_without_any_library_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert find_gpu() is None
