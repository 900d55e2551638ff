"""For every architecture: shapes that it takes, and settings with which it is small enough for a test."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from kind_checkpoint import write_kind_checkpoint
from safetensors.numpy import load_file, save_file

# Of fMRI, and of EEG or MEG.
VOXELS, SENSORS = (300,), (6, 80)
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": 24},
    "transformer": {"width": 16, "heads": 2, "feed_forward": 24, "n_tokens": 8},
    "nice": {"filters": 6, "kernel": 9, "pool": 11, "embedding": 12},
    "eegnet": {"filters": 4, "spatial": 2, "pointwise": 8},
    "atm": {"filters": 6, "kernel": 9, "pool": 11, "embedding": 12, "feed_forward": 24},
    "brain_module": {
        "virtual_channels": 8,
        "frequencies": 3,
        "hidden": 12,
        "backbone": 16,
        "positions": [[0.1 * (number % 3), 0.1 * (number // 3), 0.02 * number] for number in range(SENSORS[0])],
    },
}
# As a graph: tracing takes its time for each layer, and two are one behind another as any number is.
TRACED: dict[str, dict[str, Any]] = {**SMALL}
TRACED |= {name: {**SMALL[name], "depth": 2} for name in ("transformer", "brain_module")}
TAKES = {name: (VOXELS, SENSORS) if name in ("mlp", "transformer") else (SENSORS,) for name in SMALL}


def write_network_checkpoint(folder: Path, name: str, shape: tuple[int, ...]) -> Path:
    """A checkpoint of two networks of one architecture, two features each, whose weights and statistics are drawn."""
    import torch

    from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
    from minddiffuser.runtime.decoders.network import build_network, make_config

    write_kind_checkpoint(folder, "network", shape)
    content = json.loads((folder / "checkpoint.json").read_text())
    for entry in content["decoders"]:
        file = f"{'-'.join(entry['features'])}.safetensors"
        kept = {key: array for key, array in load_file(folder / file).items() if not key.startswith("network.")}
        n_outputs = {feature: len(kept[f"{feature}.position"]) for feature in entry["features"]}
        torch.manual_seed(5)
        module = build_network(name, make_config(name, TRACED[name]), shape, n_outputs)
        draw_statistics(module)
        weights = {f"network.{key}": tensor.numpy() for key, tensor in module.state_dict().items()}
        save_file({**kept, **weights}, folder / file)
        entry["network"] = {"architecture": name, "config": TRACED[name]}
        content["files"][file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps(content))
    open_checkpoint(folder)
    return folder


def draw_statistics(module: Any) -> None:
    """Running means and variances as training leaves them, not those of a fresh network, which change nothing."""
    import torch

    for part in module.modules():
        if hasattr(part, "running_mean"):
            part.running_mean.copy_(0.3 * torch.randn_like(part.running_mean))
            part.running_var.copy_(torch.rand_like(part.running_var) + 0.5)
