"""A bundle verified again where it is: a line for each engine, and every way to be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

from minddiffuser.export.verify import check
from minddiffuser.export.verify import rows as rows_module
from minddiffuser.export.verify.check import BAD, NOT_RUN, OK, Line, check_bundle, fitted
from minddiffuser.runtime.bundle.manifest import VERSION
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.engines.cuda import gpu as cuda_gpu
from minddiffuser.runtime.engines.cuda.gpu import Gpu
from minddiffuser.runtime.engines.tensorrt import identity as trt_identity
from minddiffuser.runtime.errors import FileError, InputError, MissingExtra
from minddiffuser.runtime.generators.engines import EngineGenerator

Command = Callable[..., tuple[int, list[str], list[str]]]
Edit = Callable[..., None]


@contextmanager
def flipped(path: Path, offset: int) -> Iterator[None]:
    """One bit of a file is another one for a while."""
    data = path.read_bytes()
    changed = bytearray(data)
    changed[offset] ^= 4
    path.write_bytes(changed)
    try:
        yield
    finally:
        path.write_bytes(data)


def expect_refusal(reported: tuple[int, list[str], list[str]], *words: str) -> None:
    code, out, err = reported
    assert (code, out, len(err)) == (2, [], 1), reported
    assert err[0].startswith("md-export: ")
    for word in words:
        assert word in err[0]


def test_a_good_bundle_has_one_line_for_each_graph_and_kind_of_pictures(tiny_bundle: Path, command: Command) -> None:
    code, out, err = command("check", tiny_bundle, "--threads", "1")
    assert (code, err) == (0, [])
    graphs = list(Bundle.open(tiny_bundle).graphs)
    assert len(graphs) == 9
    assert [line.split()[:4] for line in out[:9]] == [[name, "onnx", "fp32", "ok"] for name in graphs]
    assert all("worst error" in line for line in out[:9])
    assert all("tolerance 0.0001" in line for line in out[:9] if "structure_gradient" not in line)  # clamped pixels
    for line, name in zip(out[9:11], ("pictures of stage 1", "pictures of a guided pass"), strict=True):
        assert line.startswith(name)
        assert "dB PSNR to PyTorch's" in line
    assert out[11:] == ["11 ok"]


@pytest.fixture
def pictures_alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The graphs are left out: each has its own test below, on less."""
    monkeypatch.setattr(check, "_line", lambda *_: Line(graph="", target="", precision="", verdict=OK))
    return monkeypatch


def test_pictures_that_are_not_the_references_fail(
    tiny_bundle: Path, tmp_path: Path, edit_parity: Edit, pictures_alone: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    pictures_alone.setattr(check, "engine_guided_pictures", lambda *_: None)

    def line() -> Line:
        return check_bundle(folder, threads=1)[-2]

    assert line().verdict == OK
    edit_parity(folder, lambda arrays: arrays.update(stage1=np.roll(arrays["stage1"], 3, axis=-1)))
    assert line().verdict == BAD
    assert "dB PSNR to PyTorch's, at least 45" in line().detail
    edit_parity(folder, lambda arrays: arrays.update(stage1=arrays["stage1"][:1]))
    assert "the reference's pictures have shape (1, 3, 64, 64), expected (2, 3, 64, 64)" in line().detail
    edit_parity(folder, lambda arrays: arrays.pop("stage1"))
    assert line().verdict == BAD
    edit_parity(folder, lambda arrays: arrays.update(responses=arrays["responses"][:, :5]))
    assert line().verdict == BAD
    assert "the reference's responses have shape (2, 5), expected (n, 2000)" in line().detail
    edit_parity(folder, lambda arrays: arrays.update(responses=np.ones(5, np.float32)))
    assert "the reference's responses have shape (5,)" in line().detail
    edit_parity(folder, lambda arrays: arrays.pop("responses"))
    assert check_bundle(folder, threads=1)[-1].graph == ""


def test_guided_pictures_that_are_not_the_references_fail(
    tiny_bundle: Path, tmp_path: Path, edit_parity: Edit, pictures_alone: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    pictures_alone.setattr(check, "engine_pictures", lambda *_: None)
    responses = load_file(folder / "parity.safetensors")["responses"]
    found = check.engine_guided_pictures(folder, responses, "fp32", 1)  # once for all
    pictures_alone.setattr(check, "engine_guided_pictures", lambda *_: found)

    def line() -> Line:
        return check_bundle(folder, threads=1)[-1]

    assert (line().graph, line().verdict) == ("pictures of a guided pass", OK)
    edit_parity(folder, lambda arrays: arrays.update(guided=np.roll(arrays["guided"], 3, axis=-1)))
    assert line().verdict == BAD
    assert "dB PSNR to PyTorch's, at least 40" in line().detail
    edit_parity(folder, lambda arrays: arrays.update(guided=arrays["guided"][:1]))
    assert "the reference's pictures have shape (1, 3, 64, 64), expected (2, 3, 64, 64)" in line().detail
    edit_parity(folder, lambda arrays: arrays.pop("guided"))  # as in bundles of earlier releases
    assert line().verdict == NOT_RUN
    assert line().detail == "the bundle holds no reference pictures of one: export it again"


@pytest.mark.parametrize("missing", ["denoise_gradient", "structure_gradient", "decode_structure"])
def test_a_guided_pass_needs_gradients(
    tiny_bundle: Path, tmp_path: Path, reseal: Edit, pictures_alone: pytest.MonkeyPatch, missing: str
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    pictures_alone.setattr(check, "engine_pictures", lambda *_: None)
    reseal(folder, lambda content: content["graphs"].pop(missing))
    line = check_bundle(folder, threads=1)[-1]
    assert (line.graph, line.verdict) == ("pictures of a guided pass", NOT_RUN)
    assert line.detail == f"the bundle lacks {missing}"


def test_a_guided_pass_that_leaves_out_the_way_back_through_the_unet_fails(
    tiny_bundle: Path, pictures_alone: pytest.MonkeyPatch
) -> None:
    """The graphs may all be right, and the gradient in the wrong place."""
    pictures_alone.setattr(check, "engine_pictures", lambda *_: None)
    real = EngineGenerator.linearise
    pictures_alone.setattr(EngineGenerator, "linearise", lambda *given: (*real(*given)[:2], lambda v: v))
    assert check_bundle(tiny_bundle, threads=1)[-1].verdict == BAD


def test_a_flipped_byte_in_any_file(tiny_bundle: Path, tmp_path: Path, command: Command) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    for name in Bundle.open(folder).files:
        with flipped(folder / name, -2):
            expect_refusal(command("check", folder), name)


def test_a_flipped_byte_anywhere_is_one_sentence(copied: Path, command: Command) -> None:
    """In the manifest too: nowhere does a flip pass, except in the white space between its words."""
    files = [*Bundle.open(copied).files, "manifest.json"]
    for name in files:
        size = (copied / name).stat().st_size
        offsets = range(0, size, max(1, size // 40)) if name == "manifest.json" else (0, size // 2, size - 1)
        for offset in offsets:
            with flipped(copied / name, offset):
                code, out, err = command("check", copied)
                if name == "manifest.json" and code == 0:
                    assert (copied / name).read_bytes()[offset] ^ 4 in b" \n"
                    continue
                assert (code, out, len(err)) == (2, [], 1), (name, offset, err)
    assert command("check", copied)[0] == 0


def test_a_file_that_is_missing_or_cut_off(copied: Path, command: Command) -> None:
    for name in Bundle.open(copied).files:
        data = (copied / name).read_bytes()
        (copied / name).write_bytes(data[:-1])
        expect_refusal(command("check", copied), name, f"has {len(data) - 1} bytes")
        (copied / name).unlink()
        expect_refusal(command("check", copied), f"lacks {name}")
        (copied / name).write_bytes(data)


def test_an_output_that_differs_names_graph_and_tensor(copied: Path, command: Command, edit_parity: Edit) -> None:
    def edit(arrays: dict[str, np.ndarray]) -> None:
        arrays["decode_structure/out/structure"][1, 3, 2, 1] += 0.5

    edit_parity(copied, edit)
    code, out, err = command("check", copied)
    assert code == 1
    assert "ok" in out[0]
    assert "decode_structure" in out[1]
    assert "FAILED" in out[1]
    assert "structure is off by" in out[1]
    assert err == [f"md-export: 1 of 2 checks failed in {copied}"]


def test_what_may_differ_besides_is_read_from_the_bundle(copied: Path, edit_parity: Edit) -> None:
    """Of the other precisions' figures nothing."""

    def off(arrays: dict[str, Any]) -> None:
        expected = arrays["decode_context/out/context"]
        expected.reshape(-1)[0] += 0.01 * np.abs(expected).max()
        arrays["decode_context/spread/fp16/context"] = np.array([0.5, 0.5], np.float32)

    edit_parity(copied, off)
    assert check_bundle(copied, threads=1)[0].verdict == BAD
    edit_parity(copied, lambda a: a.update({"decode_context/spread/fp32/context": np.array([0.02, 1e-3], np.float32)}))
    line = check_bundle(copied, threads=1)[0]
    assert (line.verdict, line.tolerance) == (OK, pytest.approx(0.0201))
    assert line.worst == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda a: a.update({"decode_context/out/context": a["decode_context/out/context"] * np.nan}),
            "context holds NaN or infinite values in the reference",
        ),
        (
            lambda a: a.update({"decode_context/out/context": a["decode_context/out/context"][:1]}),
            "reference outputs are",
        ),
        (lambda a: a.update({"decode_context/out/other": np.ones(2, np.float32)}), "reference outputs are"),
        (lambda a: a.update({"decode_context/out/context": np.float32(1)}), "reference outputs are"),
        (lambda a: a.update({"decode_context/in/responses": np.ones((0, 24), np.float32)}), "(0, 24), expected"),
        (lambda a: a.pop("decode_context/out/context"), "holds no reference outputs"),
        (lambda a: a.pop("decode_context/in/responses"), "lacks responses"),
        (lambda a: a.update({"decode_context/in/responses": np.ones((2, 3), np.float32)}), "(2, 3), expected"),
        (lambda a: a.update({"decode_context/in/responses": np.ones((2, 24), np.float64)}), "float64"),
        *(
            (lambda a, s=s: a.update({"decode_context/spread/fp32/context": np.array(s)}), "two numbers from 0 to 1")
            for s in ([np.nan, 0.0], [0.0, np.nan], [-0.25, 0.0], [np.inf, 0.0], [0.0], 0.5, [[0.0, 0.0]])
        ),
    ],
)
def test_references_that_cannot_be_compared_with_fail(
    copied: Path, edit_parity: Edit, edit: Callable[[dict[str, Any]], Any], words: str
) -> None:
    """A stranger's bundle may hold anything under any name; a graph that cannot be verified is not verified."""
    edit_parity(copied, edit)
    line = check_bundle(copied, threads=1)[0]
    assert line.verdict == BAD
    assert words in line.detail
    assert check_bundle(copied, threads=1)[1].verdict == OK


def test_a_graph_that_does_not_open_fails(copied: Path, reseal: Edit) -> None:
    path = copied / "engines" / "decode_context.fp32.onnx"
    model = onnx.load(str(path), load_external_data=False)
    model.graph.node[0].op_type = "Dream"
    path.write_bytes(model.SerializeToString())
    reseal(copied, lambda content: None)
    line = check_bundle(copied, threads=1)[0]
    assert line.verdict == BAD
    assert "ONNX Runtime cannot open the graph decode_context" in line.detail


def test_a_graph_that_computes_something_else_fails(copied: Path, reseal: Edit) -> None:
    path = copied / "engines" / "decode_context.fp32.onnx"
    model = onnx.load(str(path), load_external_data=False)
    last = model.graph.node[-1]
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Neg", [last.input[0]], ["negative"]))
    model.graph.node[-1].input[0] = "negative"
    path.write_bytes(model.SerializeToString())
    reseal(copied, lambda content: None)
    line = check_bundle(copied, threads=1)[0]
    assert (line.verdict, line.worst) == (BAD, pytest.approx(2, abs=0.1))


def give_the_first_trial_to_all(path: Path) -> None:
    """Right as long as there is one trial: its answer is everybody's."""
    model = onnx.load(str(path), load_external_data=False)
    graph, output = model.graph, model.graph.output[0].name
    for node in graph.node:
        node.output[:] = ["own" if name == output else name for name in node.output]
        node.input[:] = ["own" if name == output else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    graph.node.extend(
        [
            helper.make_node("Shape", ["own"], ["shape_of_all"]),
            helper.make_node("Gather", ["own", "zero"], ["first"], axis=0),
            helper.make_node("Expand", ["first", "shape_of_all"], [output]),
        ]
    )
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("rows", [[0], [0, 0], [0, 1]])
def test_a_graph_that_mixes_trials_fails_whatever_it_was_verified_on(
    copied: Path, reseal: Edit, edit_parity: Edit, rows: list[int]
) -> None:
    """As a bundle of large pictures holds one trial, and a stranger's may hold one twice."""

    def keep(arrays: dict[str, Any]) -> None:
        arrays.update({name: array[rows] for name, array in arrays.items() if name.startswith("decode")})

    edit_parity(copied, keep)
    assert [line.verdict for line in check_bundle(copied, threads=1)] == [OK, OK]
    give_the_first_trial_to_all(copied / "engines" / "decode_structure.fp32.onnx")
    reseal(copied, lambda content: None)
    first, second = check_bundle(copied, threads=1)
    assert (first.verdict, second.verdict) == (OK, BAD)
    assert ("depends on the other trials" if len(set(rows)) == 1 else "is off by") in second.detail


def test_one_trial_is_no_verification_where_two_do_not_fit(
    copied: Path, edit_parity: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(arrays: dict[str, Any]) -> None:
        arrays.update({name: array[:1] for name, array in arrays.items() if name.startswith("decode")})

    edit_parity(copied, keep)
    monkeypatch.setattr(check, "memory_for", lambda _size: "low")
    monkeypatch.setattr(rows_module, "measured", lambda call: (call(), 3 << 30))
    monkeypatch.setattr(rows_module, "available", lambda: 5 << 30)
    lines = check_bundle(copied, threads=1)
    assert [line.verdict for line in lines] == [NOT_RUN, NOT_RUN]
    assert (
        "two trials at once need about 6.0 GiB, and 5.0 GiB are free: check it on a machine with more"
        in lines[0].detail
    )


def add_variant(content: dict[str, Any], **changes: Any) -> None:
    variants = content["graphs"]["decode_structure"]["variants"]
    variants.append({**variants[0], **changes})


def test_what_this_machine_cannot_run_is_reported_and_does_not_count(
    copied: Path, command: Command, reseal: Edit
) -> None:
    reseal(copied, lambda content: add_variant(content, precision="bf16"))
    code, out, err = command("check", copied)
    assert (code, err) == (0, [])
    assert out[2].split()[:5] == ["decode_structure", "onnx", "bf16", "not", "run:"]
    assert out[3] == "2 ok, 1 not run here"


def test_a_bundle_of_which_nothing_runs_is_no_success(copied: Path, command: Command, reseal: Edit) -> None:
    def edit(content: dict[str, Any]) -> None:
        for graph in content["graphs"].values():
            graph["variants"][0]["precision"] = "bf16"

    reseal(copied, edit)
    code, out, err = command("check", copied)
    assert (code, len(out)) == (1, 2)
    assert err == [f"md-export: no engine in {copied} runs on this machine"]


def test_an_engine_that_is_for_this_machine_and_does_not_run_fails(
    copied: Path, reseal: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> Any:
        raise InputError("no memory for it")

    monkeypatch.setattr(check, "running", run)
    assert [line.verdict for line in check_bundle(copied)] == [BAD, BAD]
    assert check_bundle(copied)[0].detail == "no memory for it"


def test_without_onnx_runtime_the_extra_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> Any:
        raise MissingExtra("running a bundle needs onnxruntime: pip install 'minddiffuser[edge]'")

    monkeypatch.setattr(check, "running", run)
    with pytest.raises(MissingExtra, match="edge"):
        check_bundle(copied)


def add_plan(folder: Path, reseal: Edit) -> None:
    plan = folder / "engines" / "tensorrt-rtx" / "decode_structure.fp32.plan"
    plan.parent.mkdir()
    plan.write_bytes(b"ftrt" + bytes(60))
    name = plan.relative_to(folder).as_posix()
    builder = {
        "target": "tensorrt-rtx",
        "library": "1.0.0",
        "gpu": None,
        "compute_capability": None,
        "platform": "linux-x86_64",
        "options": {},
        "graph": {"sha256": "ab" * 32},
    }

    def edit(content: dict[str, Any]) -> None:
        add_variant(content, target="tensorrt-rtx", file=name, data=[], batch_sizes=[1, 4], builder=builder)
        content["files"][name] = dict(content["files"]["arrays.safetensors"])

    reseal(folder, edit)
    reseal(folder, lambda content: None)  # with the plan's own hash


def test_a_plan_is_not_run_without_a_gpu(copied: Path, reseal: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    add_plan(copied, reseal)
    monkeypatch.setattr(cuda_gpu, "find_gpu", lambda: None)
    lines = check_bundle(copied, threads=1)
    assert [line.verdict for line in lines] == [OK, OK, NOT_RUN]
    assert lines[2].detail == "no NVIDIA GPU was found"


def test_a_plan_for_another_machine_is_reported_and_not_run(
    copied: Path, reseal: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_plan(copied, reseal)
    monkeypatch.setattr(cuda_gpu, "find_gpu", lambda: Gpu(0, "NVIDIA GeForce RTX 4090", "8.9", "13.0"))
    monkeypatch.setattr(trt_identity, "library_version", lambda target: "2.0.0")
    line = check_bundle(copied, threads=1)[2]
    assert line.verdict == NOT_RUN
    assert "the plan was built by TensorRT-RTX 1.0.0, this machine has 2.0.0" in line.detail


@pytest.mark.parametrize(("sizes", "rows"), [((1, 4), [0, 1]), ((1,), [0]), ((4, 8), [0, 1, 0, 1])])
def test_an_engine_is_verified_on_as_many_trials_as_it_takes(
    copied: Path, sizes: tuple[int, ...], rows: list[int]
) -> None:
    bundle = Bundle.open(copied)
    variant = replace(bundle.graphs["decode_structure"].variants[0], batch_sizes=sizes)
    responses, out = np.arange(2 * 24.0).reshape(2, 24), np.arange(2.0).reshape(2, 1)
    feeds, expected = fitted(bundle, variant, {"responses": responses}, {"structure": out})
    np.testing.assert_array_equal(feeds["responses"], responses[rows])
    np.testing.assert_array_equal(expected["structure"], out[rows])


@pytest.mark.parametrize("known", [True, False])
def test_an_output_of_a_fixed_number_of_trials_is_one_line(
    copied: Path, reseal: Edit, edit_parity: Edit, known: bool
) -> None:
    """Edited and sealed again: of a graph whose shapes its name fixes, and of one of another name."""

    def edit(content: dict[str, Any]) -> None:
        graph = content["graphs"]["decode_context"]
        for spec in graph["outputs"].values():
            spec["shape"][0] = 2
        if not known:
            for spec in graph["inputs"].values():
                spec["shape"][0] = 2
            content["graphs"]["dream"] = content["graphs"].pop("decode_context")
        graph["variants"][0]["batch_sizes"] = [1]

    if not known:
        edit_parity(copied, lambda a: a.update({n.replace("decode_context", "dream"): v for n, v in a.items()}))
    reseal(copied, edit)
    (line,) = [line for line in check_bundle(copied, threads=1) if line.graph != "decode_structure"]
    assert line.verdict == (BAD if known else OK)  # two trials, always, is what the other one says of itself
    assert ("expected float32 (batch, " in line.detail) == known


def test_lines_come_as_they_are_found(copied: Path) -> None:
    seen: list[Line] = []
    lines = check_bundle(copied, threads=1, on_line=seen.append)
    assert seen == lines
    assert [str(line).split()[0] for line in lines] == ["decode_context", "decode_structure"]


def test_no_bundle_is_one_sentence(tmp_path: Path, command: Command) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "checkpoint.json").write_text("{}")
    expect_refusal(command("check", tmp_path / "nowhere"), "is not a folder")
    expect_refusal(command("check", tmp_path / "data"), "is not a bundle")
    expect_refusal(command("check", tmp_path / "checkpoint"), "it is a checkpoint, make a bundle of it")
    with pytest.raises(FileError):
        check_bundle(tmp_path / "data")


def test_a_newer_bundle_is_one_sentence(copied: Path, command: Command) -> None:
    path = copied / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "version": VERSION + 1}))
    for name in ("check", "inspect"):
        expect_refusal(
            command(name, copied),
            f"newer release (bundle version {VERSION + 1}, this one reads version {VERSION}): upgrade",
        )
