"""A bundle for live EEG: three channels at 200 Hz, a causal chain, decoders with random weights, toy networks.

What it decodes means nothing; every check, every refusal and every step of a session is real.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from kind_checkpoint import KindCheckpoint, write_kind_checkpoint
from safetensors.numpy import load_file, save_file
from toy_bundle import write_toy_bundle

from minddiffuser.runtime.signal.filters import design_filter

CHANNELS, SFREQ, SIZE = ("O1", "Oz", "O2"), 200.0, 1e-5
TMIN, TMAX, FACTOR = -0.1, 0.3, 2
SHAPE = (len(CHANNELS), 41)


def live_chain() -> dict[str, Any]:
    """From 200 Hz to epochs of 41 samples at 100 Hz; warm-up some 2 s."""
    return {
        "steps": [
            {"name": "pick", "channels": list(CHANNELS)},
            *design_filter(SFREQ, 1.0, 30.0, causal=True),
            {"name": "decimate", "factor": FACTOR},
            {"name": "epoch", "tmin": TMIN, "tmax": TMAX},
            {"name": "reject", "peak_to_peak": {"eeg": 40 * SIZE}},
            {"name": "baseline", "tmin": TMIN, "tmax": 0.0},
        ]
    }


def write_live_checkpoint(folder: Path, *, route: str = "concepts") -> KindCheckpoint:
    """A checkpoint whose responses are in V, and what it must decode; the second value did not vary in training."""
    made = write_kind_checkpoint(folder, "linear", SHAPE, route=route)
    there = load_file(folder / "normaliser.safetensors")
    std = np.full(SHAPE, SIZE, np.float32)
    std[0, 1] = 0
    save_file({"mean": np.zeros(SHAPE, np.float32), "std": std}, folder / "normaliser.safetensors")
    _edit(folder, lambda content: content.update(layout=live_layout()))

    def expected(responses: np.ndarray) -> dict[str, np.ndarray]:
        scores = responses.astype(np.float64) / np.float64(np.float32(SIZE))
        return made.expected(there["mean"] + there["std"] * scores)

    return KindCheckpoint(folder, expected)


def write_live_bundle(folder: Path, *, route: str = "concepts") -> Path:
    """Write checkpoint and bundle below `folder`; the bundle's folder."""
    return write_toy_bundle(folder / "bundle", write_live_checkpoint(folder / "checkpoint", route=route).folder)


def live_layout() -> dict[str, Any]:
    """The layout's JSON."""
    channels = [{"name": name, "type": "eeg"} for name in CHANNELS]
    times = {"sfreq": SFREQ / FACTOR, "tmin": TMIN, "unit": "V"}
    return {
        "modality": "eeg",
        "response_shape": list(SHAPE),
        "channels": channels,
        **times,
        "signal": live_chain(),
    }


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "checkpoint.json"
    content = json.loads(path.read_text())
    change(content)
    files = sorted(folder.glob("*.safetensors"))
    content["files"] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    path.write_text(json.dumps(content))
