"""A bundle for the small world whose decoders are real and whose networks are one formula each: exported in no time.

denoise     next = step[1] * latent + step[2] * guidance * mean(context - uncond_context)
vae_decode  image = sigmoid of the latent's first three channels, each cell a block of pixels
clip_structure  every feature is the picture's mean times a constant
structure_gradient  loss = sum(layer_weights) * mean(latent ** 2) + 0 * (target, mask)
denoise_gradient  latent_gradient = step[1] * next_gradient, context_gradient = 0 * context
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from minddiffuser.export.graphs.decode import decode_model, decode_specs
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.sampling import Sampling

EMBEDDING = 16
ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
Shapes = dict[str, tuple[Any, ...]]


def write_toy_bundle(folder: Path, checkpoint_folder: Path, *, leave_out: tuple[str, ...] = ()) -> Path:
    """Write it for the decoders of a checkpoint of the small world; some graphs may be left out."""
    checkpoint = open_checkpoint(checkpoint_folder)
    (folder / "engines").mkdir(parents=True)
    graphs = {}
    for target in checkpoint.shapes:
        taken, given = decode_specs(checkpoint, target)
        specs = {k: v.shape for k, v in taken.items()}, {k: v.shape for k, v in given.items()}
        graphs[f"decode_{target}"] = (decode_model(checkpoint, target), *specs)
    graphs |= {name: (_model(name, *parts), *parts[-2:]) for name, parts in _networks(checkpoint).items()}
    entries = {}
    for name, (model, inputs, outputs) in graphs.items():
        if name in leave_out:
            continue
        (folder / "engines" / f"{name}.fp32.onnx").write_bytes(model.SerializeToString(deterministic=True))
        entries[name] = _entry(name, inputs, outputs)
    mean, std = checkpoint.statistics
    arrays = {
        "uncond_context": checkpoint.uncond_context,
        "context_bos": checkpoint.context_bos,
        "mask": checkpoint.mask,
        "score": checkpoint.score,
        "alphas_cumprod": ALPHAS,
        "mean": mean,
        "std": std,
    }
    if checkpoint.route is not None:
        arrays["concept_context"] = checkpoint.route.context
    save_file(arrays, folder / "arrays.safetensors")
    table = checkpoint.folder / "training_pictures.safetensors"
    if table.exists():
        (folder / table.name).write_bytes(table.read_bytes())
    save_file({"responses": np.zeros((1, *checkpoint.layout.shape), np.float32)}, folder / "parity.safetensors")
    write_manifest(folder, _manifest(checkpoint, entries))
    return folder


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest with the files as they are."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    content["files"] = {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        for path in paths
    }
    (folder / "manifest.json").write_text(json.dumps(content))


def _manifest(checkpoint: Checkpoint, entries: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": "minddiffuser-bundle",
        "version": 2,
        "versions": {},
        "models": {"name": checkpoint.models_name, "hash": checkpoint.models_hash},
        "checkpoint": {
            "hash": checkpoint.hash,
            "subject": checkpoint.subject,
            "decoders": checkpoint.description["decoders"],
            "selection": {},
            "provenance": {},
            **({"concepts": checkpoint.description["concepts"]} if checkpoint.route is not None else {}),
            **({} if checkpoint.split is None else {"split": checkpoint.split.as_json()}),
        },
        "lineage": {},
        "preset": checkpoint.preset,
        "image_size": checkpoint.image_size,
        "layout": checkpoint.layout.as_json(),
        "shapes": {name: list(shape) for name, shape in checkpoint.shapes.items()},
        "preprocessing": {},
        "sampling": {**asdict(Sampling()), "steps_offset": 1, "set_alpha_to_one": False},
        "graphs": entries,
        "end_to_end": {},
    }


def _entry(name: str, inputs: Shapes, outputs: Shapes) -> dict[str, Any]:
    def specs(shapes: Shapes) -> dict[str, Any]:
        return {key: {"dtype": "float32", "shape": list(shape)} for key, shape in shapes.items()}

    variant = {"target": "onnx", "precision": "fp32", "file": f"engines/{name}.fp32.onnx", "data": [], "opset": 20}
    free = {"batch_sizes": None, "parity": {}, "precision_map": [], "builder": {}}
    return {"inputs": specs(inputs), "outputs": specs(outputs), "variants": [{**variant, **free}]}


def _networks(checkpoint: Checkpoint) -> dict[str, tuple[list[Any], dict[str, np.ndarray], Shapes, Shapes]]:
    """Nodes, constants, inputs and outputs of each network."""
    n_tokens, width = checkpoint.shapes["context"]
    latent, structure = ("batch", *checkpoint.shapes["latent"]), checkpoint.shapes["structure"]
    image = ("batch", 3, checkpoint.image_size, checkpoint.image_size)
    block = checkpoint.image_size // latent[-1]
    step: Shapes = {
        "latent": latent,
        "step": (3,),
        "context": ("batch", n_tokens, width),
        "uncond_context": (n_tokens, width),
        "guidance": (1,),
    }
    target: Shapes = {"target": ("batch", *structure), "mask": structure, "layer_weights": ("batch", structure[0])}
    size = int(np.prod(structure))
    node = helper.make_node
    one, two = {"one": np.array([1]), "two": np.array([2])}, {"two": np.array([2]), "three": np.array([3])}
    paint = [
        node("Slice", ["latent", "zero", "three", "one"], ["rgb"]),
        node("Resize", ["rgb", "", "scales"], ["large"], mode="nearest"),
        node("Sigmoid", ["large"], ["image"]),
    ]
    painting = {"zero": np.array([0]), "three": np.array([3]), "one": np.array([1])}
    painting["scales"] = np.array([1, 1, block, block], np.float32)
    keep = [node("Slice", ["step", "one", "two"], ["keep"]), node("Slice", ["step", "two", "three"], ["add"])]
    guided = [
        node("Sub", ["context", "uncond_context"], ["away"]),
        node("ReduceMean", ["away", "axes"], ["push"], keepdims=0),
        node("Mul", ["push", "guidance"], ["pushed"]),
        node("Mul", ["pushed", "add"], ["flat"]),
        node("Reshape", ["flat", "per_trial"], ["noise"]),
        node("Mul", ["latent", "keep"], ["kept"]),
        node("Add", ["kept", "noise"], ["next_latent"]),
    ]
    per_trial = {"axes": np.array([1, 2]), "per_trial": np.array([-1, 1, 1, 1])}
    look = [node("ReduceMean", ["image", "axes"], ["mean"], keepdims=1), node("Reshape", ["mean", "column"], ["grey"])]
    looking: dict[str, np.ndarray] = {"axes": np.array([1, 2, 3]), "column": np.array([-1, 1])}
    features: Shapes = {
        "structure": ("batch", *structure),
        "semantic": ("batch", structure[-1]),
        "embedding": ("batch", EMBEDDING),
    }
    rng = np.random.default_rng(7)
    for name, shape in features.items():
        looking[f"{name}_row"] = rng.standard_normal((1, int(np.prod(shape[1:])))).astype(np.float32)
        looking[f"{name}_shape"] = np.array([-1, *shape[1:]])
        look += [
            node("MatMul", ["grey", f"{name}_row"], [f"{name}_flat"]),
            node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]),
        ]
    gradient = [
        node("ReduceSum", ["layer_weights", "one"], ["weight"], keepdims=0),
        node("Mul", ["latent", "latent"], ["squared"]),
        node("ReduceMean", ["squared", "axes"], ["mean"], keepdims=0),
        node("Mul", ["mean", "weight"], ["plain"]),
        node("Mul", ["target", "mask"], ["kept"]),
        node("ReduceSum", ["kept", "others"], ["sum"], keepdims=0),
        node("Mul", ["sum", "nothing"], ["none"]),
        node("Add", ["plain", "none"], ["loss"]),
        node("Reshape", ["weight", "per_trial"], ["weights"]),
        node("Mul", ["latent", "weights"], ["weighed"]),
        node("Mul", ["weighed", "factor"], ["latent_gradient"]),
    ]
    sloping = {"axes": np.array([1, 2, 3]), "others": np.array([1, 2, 3]), "per_trial": np.array([-1, 1, 1, 1])}
    sloping["nothing"] = np.zeros(1, np.float32)
    sloping["factor"] = np.array([2 / np.prod(latent[1:])], np.float32)
    back = [
        *keep,
        node("Mul", ["next_gradient", "keep"], ["latent_gradient"]),
        node("Mul", ["context", "nothing"], ["context_gradient"]),
    ]
    assert size == looking["structure_row"].size
    return {
        "denoise": ([*keep, *guided], {**one, **two, **per_trial}, step, {"next_latent": latent}),
        "vae_decode": (paint, painting, {"latent": latent}, {"image": image}),
        "clip_structure": (look, looking, {"image": image}, features),
        "structure_gradient": (
            [*gradient, *paint],
            {**sloping, **painting},
            {"latent": latent, **target},
            {"loss": ("batch",), "latent_gradient": latent, "image": image},
        ),
        "denoise_gradient": (
            back,
            {**one, **two, "nothing": np.zeros(1, np.float32)},
            {**step, "next_gradient": latent},
            {"latent_gradient": latent, "context_gradient": step["context"]},
        ),
    }


def _model(
    name: str, nodes: list[Any], constants: dict[str, np.ndarray], inputs: Shapes, outputs: Shapes
) -> onnx.ModelProto:
    def values(shapes: Shapes) -> list[Any]:
        return [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in shapes.items()]

    tensors = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    graph = helper.make_graph(nodes, name, values(inputs), values(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
