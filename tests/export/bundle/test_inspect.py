"""What md-export says about a bundle: what is inside, and what it will run on here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from minddiffuser.export.bundle.inspect import describe
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.engines.cuda import gpu as cuda_gpu
from minddiffuser.runtime.engines.cuda.gpu import Gpu
from minddiffuser.runtime.engines.here import BACKENDS
from minddiffuser.runtime.engines.tensorrt import identity as trt_identity
from minddiffuser.runtime.engines.trust import Trust

Edit = Callable[..., None]
TRUSTED = Trust(everything=True)
CARD = Gpu(0, "NVIDIA GeForce RTX 4090", "8.9", "13.0")


def tail(folder: Path) -> dict[str, str]:
    """Backend -> what is said of it."""
    lines = list(describe(folder, TRUSTED))
    return dict(line.strip().split(": ", 1) for line in lines[lines.index("runs on") + 1 :])


def set_gpu(monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None) -> None:
    monkeypatch.setattr(cuda_gpu, "find_gpu", lambda: gpu)
    monkeypatch.setattr(trt_identity, "library_version", lambda _target: "1.2.0")


def add_plan(folder: Path, reseal: Edit, **changes: Any) -> None:
    """A plan of TensorRT-RTX for decode_context, by its description."""
    name = "engines/tensorrt-rtx/decode_context.fp32.plan"
    (folder / name).parent.mkdir()
    (folder / name).write_bytes(b"ftrt" + bytes(60))
    builder = {
        "target": "tensorrt-rtx",
        "library": "1.2.0",
        "cuda": "13.0",
        "gpu": None,
        "compute_capability": None,
        "platform": "linux-x86_64",
        "options": {"compute_capabilities": []},
        "profile": {},
    }

    def edit(content: dict[str, Any]) -> None:
        for graph in content["graphs"].values():
            plain = graph["variants"][0]
            plan = {**plain, "target": "tensorrt-rtx", "precision": "fp16", "file": name, "data": []}
            made = {"graph": {"sha256": "ab" * 32, "data": {}}, **changes}
            graph["variants"].append(plan | {"batch_sizes": [1, 4, 16], "builder": builder | made, "parity": {}})
        content["files"][name] = dict(content["files"]["arrays.safetensors"])

    reseal(folder, edit)
    reseal(folder, lambda content: None)


def test_the_bundle_and_where_it_comes_from(decoder_bundle: Path) -> None:
    bundle = Bundle.open(decoder_bundle)
    lines = list(describe(decoder_bundle))
    assert lines[0].startswith(f"bundle {decoder_bundle}, ")
    assert "subject someone (fmri), 24 voxels, 32 px" in lines[1]
    assert bundle.models_hash[:12] in lines[2]
    assert bundle.checkpoint_hash[:12] in lines[2]
    assert "  verified on 2 trials, drawn from the training statistics" in lines
    start = lines.index("  decode_context")
    assert lines[start + 1 : start + 3] == [
        "    in   responses float32 (batch, 24)",
        "    out  context float32 (batch, 15, 16)",
    ]
    size = (decoder_bundle / "engines" / "decode_context.fp32.onnx").stat().st_size
    assert lines[start + 3].startswith(f"    onnx fp32, {size / 1e3:.1f} kB, opset 20, worst error ")
    assert all("\n" not in line for line in lines)


def test_the_whole_bundle(tiny_bundle: Path) -> None:
    lines = list(describe(tiny_bundle))
    for name in Bundle.open(tiny_bundle).graphs:
        assert f"  {name}" in lines
    for what in ("fp32", "fp32, a guided pass"):
        assert any(line.startswith(f"  {what}: PSNR ") and "identification" in line for line in lines)
    size = sum(file.size for file in Bundle.open(tiny_bundle).files.values())
    assert f"{size / 1e6:.1f} MB" in lines[0]


def test_what_it_runs_on_without_a_gpu(decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpu(monkeypatch, None)
    reported = tail(decoder_bundle)
    assert set(reported) == {*BACKENDS, "auto", "md-reconstruct run --stage 1", "md-reconstruct run"}
    assert reported["md-reconstruct run --stage 1"] == "no, it lacks decode_latent, denoise, vae_decode"
    assert reported["ort"] == "yes"
    assert [reported[name] for name in ("tensorrt", "tensorrt-rtx", "ort-tensorrt")] == 3 * ["no, not in the bundle"]
    assert reported["auto"].startswith("ort (the fastest that runs here; ")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert reported["ort-cuda"].startswith(
            "no, onnxruntime is a build without it: where there is an NVIDIA GPU, pip"
        )


def test_a_provider_that_is_there_counts(decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    for gpu, reported in ((None, "no, no NVIDIA GPU was found"), (CARD, "yes")):
        set_gpu(monkeypatch, gpu)
        assert tail(decoder_bundle)["ort-cuda"] == reported


def test_a_plan_and_what_it_is_for(copied: Path, reseal: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    add_plan(copied, reseal, gpu="NVIDIA A100-SXM4-80GB")
    (line,) = {line for line in describe(copied) if "tensorrt-rtx fp16" in line}
    assert "64 bytes" in line
    assert "batch 1 to 16" in line
    assert line.endswith("for NVIDIA A100-SXM4-80GB")
    set_gpu(monkeypatch, None)
    assert tail(copied)["tensorrt-rtx"] == "no, no NVIDIA GPU was found"
    set_gpu(monkeypatch, CARD)
    reported = tail(copied)
    assert reported["tensorrt-rtx"] == "yes"
    assert reported["auto"].startswith("tensorrt-rtx (")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"library": "1.1.0"}, "the plan was built by TensorRT-RTX 1.1.0, this machine has 1.2.0"),
        ({"options": {"compute_capabilities": ["8.6"]}}, "compute capability 8.6"),
        ({"graph": None}, "the plan's description has no usable 'graph'"),
    ],
)
def test_a_stale_plan_is_reported(
    copied: Path, reseal: Edit, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    add_plan(copied, reseal, **changes)
    set_gpu(monkeypatch, CARD)
    reported = tail(copied)
    assert reported["tensorrt-rtx"].startswith("no, ")
    assert words in reported["tensorrt-rtx"]
    assert reported["auto"].startswith("ort (") or reported["auto"].startswith("ort-cuda (")


def test_what_clamped_pixels_may_do_is_reported(copied: Path, reseal: Edit) -> None:
    def edit(content: dict[str, Any]) -> None:
        metrics = {"worst": 0.0085, "mean": 1e-5, "cosine": 1.0, "jump": 0.0132}
        content["graphs"]["decode_context"]["variants"][0]["parity"] = {"inputs": {"decoded": {"context": metrics}}}

    assert not any("clamped pixels" in line for line in describe(copied))
    reseal(copied, edit)
    (line,) = (line for line in describe(copied) if "clamped pixels" in line)
    assert line.endswith("worst error 0.0085, of which clamped pixels may account for 0.013")


@pytest.mark.parametrize(
    ("guided", "line"),
    [
        ({"psnr_db": 61.04, "differences": {"ssim": 0.001}}, "PSNR 61.0 dB, ssim +0.0010"),
        ({"reason": "the bundle lacks denoise_gradient"}, "not compared, the bundle lacks denoise_gradient"),
        ({"reason": "\x1b[2J"}, "not compared, \\x1b[2J"),
        ({"reason": 7}, "not compared"),
        (None, "not compared"),
    ],
)
def test_pictures_of_a_guided_pass_or_why_there_are_none(copied: Path, reseal: Edit, guided: Any, line: str) -> None:
    reseal(copied, lambda content: content.update(end_to_end={"fp32": {"psnr_db": 70.0, "guided": guided}}))
    lines = list(describe(copied))
    start = lines.index("pictures against PyTorch")
    assert lines[start + 1 : start + 3] == ["  fp32: PSNR 70.0 dB", f"  fp32, a guided pass: {line}"]


@pytest.mark.parametrize("metrics", [{}, None, 3, {"psnr_db": "x", "differences": [1]}, {"differences": {"ssim": "?"}}])
def test_metrics_of_a_stranger_are_shown_or_left_out(copied: Path, reseal: Edit, metrics: Any) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["end_to_end"] = {"fp32": metrics}
        content["lineage"] = {"verified_on": metrics}
        for graph in content["graphs"].values():
            graph["variants"][0]["parity"] = {"inputs": metrics, "verified": 5}
            graph["variants"][0]["builder"] = {"gpu": metrics}

    reseal(copied, edit)
    lines = list(describe(copied))
    assert "  fp32: not compared" in lines
    assert not any("{" in line for line in lines if "verified on" not in line)
