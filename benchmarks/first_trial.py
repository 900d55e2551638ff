"""The process time of a first EEG trial: a fresh process opens each decode graph on ONNX Runtime and decodes one.

Graphs have SD 1.4's sizes (the structure at a quarter of its dimensions) and random weights, of one network with four
heads for each architecture. `python benchmarks/first_trial.py` prints a row for each; where a trial is decoded, no
PyTorch is loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from minddiffuser.export.graphs.decode import decode_model
from minddiffuser.export.onnx.weights import WeightStore
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.decoders.network import build_network, make_config

SHAPES: dict[str, tuple[int, ...]] = {
    "context": (15, 768),
    "latent": (4, 64, 64),
    "structure": (6, 50, 768),
    "semantic": (768,),
}
ARCHITECTURES = ("mlp", "transformer", "nice", "eegnet", "atm", "brain_module")
CHILD = """
import json, sys, time
from pathlib import Path
begun = time.process_time()
import numpy as np
import onnxruntime
from minddiffuser.runtime.bundle.graph_specs import decode_specs
from minddiffuser.runtime.engines.ort.engine import OrtSettings, open_ort
imported = time.process_time()
about = json.loads(sys.argv[1])
shape = tuple(about["shape"])
trial = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
engines = []
for name, size in about["features"].items():
    specs = decode_specs(shape, name, tuple(size))
    path = Path(about["folder"], f"decode_{name}.onnx")
    engines.append(open_ort(name, path, dict(specs.inputs), dict(specs.outputs), OrtSettings(threads=1)))
opened = time.process_time()
for engine in engines:
    engine.run({"responses": trial})
first = time.process_time()
for engine in engines:
    engine.run({"responses": trial})
later = time.process_time()
assert "torch" not in sys.modules
print(json.dumps([begun, imported - begun, opened - imported, first - opened, later - first]))
"""


def write_checkpoint(folder: Path, name: str, shape: tuple[int, int]) -> Checkpoint:
    """A checkpoint of one network with fresh weights for every feature."""
    rng, folder = np.random.default_rng(0), folder / "checkpoint"
    folder.mkdir()
    zeros, ones = (make(shape, dtype=np.float32) for make in (np.zeros, np.ones))
    save_file({"mean": zeros, "std": ones}, folder / "normaliser.safetensors")
    context = rng.standard_normal(SHAPES["context"]).astype(np.float32)
    save_file({"context_bos": context[0].copy(), "uncond_context": context}, folder / "constants.safetensors")
    mask = rng.random(SHAPES["structure"]) < 0.25
    scores = {"mask": mask, "score": mask.astype(np.float32)}
    save_file(scores, folder / "mask.safetensors", metadata={"preset": "reference"})
    positions = {feature: np.arange(np.prod(size), dtype=np.int32) for feature, size in SHAPES.items()}
    positions["context"] = positions["context"][SHAPES["context"][1] :]
    positions["structure"] = np.flatnonzero(mask).astype(np.int32)
    places = [[0.02 * (k % 8), 0.02 * (k // 8 % 8), 0.02 * (k // 64)] for k in range(shape[0])]
    settings = {"nice": {"embedding": 1024}, "atm": {"embedding": 1024}, "brain_module": {"positions": places}}
    config: dict[str, Any] = settings.get(name, {})
    n_outputs = {feature: len(position) for feature, position in positions.items()}
    network = build_network(name, make_config(name, config), shape, n_outputs)
    arrays = {f"network.{key}": tensor.numpy() for key, tensor in network.state_dict().items()}
    for feature, size in SHAPES.items():
        arrays[f"{feature}.position"] = positions[feature]
        arrays[f"{feature}.mean"], arrays[f"{feature}.std"] = (
            make(int(np.prod(size)), dtype=np.float32) for make in (np.zeros, np.ones)
        )
    save_file(arrays, folder / f"{'-'.join(SHAPES)}.safetensors")
    entry = {"kind": "network", "features": list(SHAPES), "fit": {}}
    channels = [{"name": f"E{number}", "type": "eeg"} for number in range(shape[0])]
    content = {
        "format": "minddiffuser-checkpoint",
        "version": 2,
        "subject": "nobody",
        "layout": {
            "modality": "eeg",
            "response_shape": list(shape),
            "channels": channels,
            **{"sfreq": 250.0, "tmin": 0.0, "unit": "V"},
        },
        "preset": "reference",
        "models": {"name": "none", "hash": "0" * 64},
        "shapes": {feature: list(size) for feature, size in SHAPES.items()},
        "image_size": 512,
        "decoders": [{**entry, "network": {"architecture": name, "config": config}}],
        "selection": {},
        "provenance": {},
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")},
    }
    (folder / "checkpoint.json").write_text(json.dumps(content))
    return open_checkpoint(folder)


def measure(name: str, shape: tuple[int, int], repeats: int) -> tuple[int, list[float]]:
    """Bytes of the graphs and their weights, and the median process times of CHILD's five parts, in seconds."""
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        folder = Path(temporary)
        checkpoint = write_checkpoint(folder, name, shape)
        with WeightStore(folder) as store:
            for feature in SHAPES:
                store.write(decode_model(checkpoint, feature), f"decode_{feature}")
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        about = json.dumps({"folder": temporary, "shape": shape, "features": SHAPES})
        runs = [
            json.loads(subprocess.run([sys.executable, "-c", CHILD, about], check=True, capture_output=True).stdout)
            for _ in range(repeats + 1)
        ]
        return size, np.median(runs[1:], axis=0).tolist()  # the first finds no file in memory


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=2, default=(63, 250), metavar=("CHANNELS", "TIMES"))
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    print("process time, seconds: start of Python, imports, opening, first trial, a later trial; all but the last")
    for name in args.architectures:
        size, parts = measure(name, tuple(args.shape), args.repeats)
        row = "  ".join(f"{seconds:6.3f}" for seconds in (*parts, sum(parts[:4])))
        print(f"{name:13s} {size / 2**20:7.1f} MB  {row}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
