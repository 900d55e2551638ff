"""A bundle folder written by hand from the documented schema: two real ONNX graphs that share their weights in a file.

decode_context is ``responses @ weight``, denoise is ``latent * scale``; the TensorRT-RTX plan is no real one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from minddiffuser.runtime.sampling import Sampling

N_VOXELS, SUBJECT = 12, "someone"
SHAPES = {"context": (15, 4), "latent": (4, 2, 2), "structure": (6, 3, 5), "semantic": (5,)}
WEIGHT = np.random.default_rng(3).standard_normal((N_VOXELS, 60)).astype(np.float32)
SCALE = np.float32([0.5])
DATA = "weights.fp32.bin"
PLAN = "engines/tensorrt-rtx/denoise.fp16.plan"


def small_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    uncond = rng.standard_normal(SHAPES["context"]).astype(np.float32)
    score = rng.random(SHAPES["structure"]).astype(np.float32)
    return {
        "uncond_context": uncond,
        "context_bos": np.ascontiguousarray(uncond[0]),
        "mask": score > 0.75,
        "score": score,
        "alphas_cumprod": np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
        "mean": rng.standard_normal(N_VOXELS).astype(np.float32),
        "std": np.r_[0, rng.random(N_VOXELS - 1)].astype(np.float32),
    }


def external_tensor(name: str, array: np.ndarray, *, offset: int = 0, location: str = DATA) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": array.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def write_small_bundle(folder: Path, *, edit: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """Write it; `edit` may change the manifest before it is written, `files` of it already filled."""
    engines = folder / "engines"
    (folder / PLAN).parent.mkdir(parents=True)
    (engines / DATA).write_bytes(WEIGHT.tobytes() + SCALE.tobytes())
    _save(_decode_context(), engines / "decode_context.fp32.onnx")
    _save(_denoise(), engines / "denoise.fp32.onnx")
    (folder / PLAN).write_bytes(b"ftrt" + bytes(60))
    save_file(small_arrays(), folder / "arrays.safetensors")
    save_file({"denoise.input.latent": np.ones((2, 4, 2, 2), np.float32)}, folder / "parity.safetensors")
    content = small_manifest()
    content["files"] = {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if edit is not None:
        edit(content)
    (folder / "manifest.json").write_text(json.dumps(content, indent=1))
    return folder


def small_manifest() -> dict[str, Any]:
    """Everything but `files`."""
    onnx_variant = {"target": "onnx", "precision": "fp32", "data": [f"engines/{DATA}"], "opset": 20}
    figures = {"parity": {"worst": 1e-6, "tolerance": 1e-4}, "precision_map": [], "builder": {}}
    latent = {"dtype": "float32", "shape": ["batch", *SHAPES["latent"]]}
    plan = {"target": "tensorrt-rtx", "precision": "fp16", "file": PLAN, "data": [], "opset": 20, "batch_sizes": [1, 4]}
    exception = {"layer": "scale", "tensor": "out", "rule": "range", "measured": 7e4}
    return {
        "format": "minddiffuser-bundle",
        "version": 2,
        "versions": {"minddiffuser": "0.1.0", "onnx": onnx.__version__},
        "models": {"name": "small", "hash": "ab" * 32},
        "checkpoint": {
            "hash": "cd" * 32,
            "subject": SUBJECT,
            "decoders": [{"kind": "linear", "features": [name], "fit": {}} for name in SHAPES],
            "selection": {"percent": 25},
            "provenance": {},
        },
        "lineage": {"command": "md-export bundle", "note": "a note"},
        "preset": "reference",
        "image_size": 16,
        "layout": {"modality": "fmri", "response_shape": [N_VOXELS]},
        "shapes": {name: list(shape) for name, shape in SHAPES.items()},
        "preprocessing": {},
        "sampling": {**asdict(Sampling()), "steps_offset": 1, "set_alpha_to_one": False},
        "files": {},
        "graphs": {
            "decode_context": {
                "inputs": {"responses": {"dtype": "float32", "shape": ["batch", N_VOXELS]}},
                "outputs": {"context": {"dtype": "float32", "shape": ["batch", *SHAPES["context"]]}},
                "variants": [
                    {**onnx_variant, **figures, "file": "engines/decode_context.fp32.onnx", "batch_sizes": None}
                ],
            },
            "denoise": {
                "inputs": {"latent": latent},
                "outputs": {"next_latent": latent},
                "variants": [
                    {**onnx_variant, **figures, "file": "engines/denoise.fp32.onnx", "batch_sizes": None},
                    {**plan, **figures, "precision_map": [exception], "builder": {"compute_capability": "8.9"}},
                ],
            },
        },
        "end_to_end": {"psnr": 61.5},
    }


def _decode_context() -> onnx.GraphProto:
    shape = np.int64([-1, *SHAPES["context"]])
    return helper.make_graph(
        [
            helper.make_node("MatMul", ["responses", "weight"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["context"]),
        ],
        "decode_context",
        [helper.make_tensor_value_info("responses", TensorProto.FLOAT, ["batch", N_VOXELS])],
        [helper.make_tensor_value_info("context", TensorProto.FLOAT, ["batch", *SHAPES["context"]])],
        [external_tensor("weight", WEIGHT), onnx.numpy_helper.from_array(shape, "shape")],
    )


def _denoise() -> onnx.GraphProto:
    shape = ["batch", *SHAPES["latent"]]
    return helper.make_graph(
        [helper.make_node("Mul", ["latent", "scale"], ["next_latent"])],
        "denoise",
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("next_latent", TensorProto.FLOAT, shape)],
        [external_tensor("scale", SCALE, offset=WEIGHT.nbytes)],
    )


def _save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString(deterministic=True))
