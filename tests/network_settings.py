"""For every architecture: shapes that it takes, and settings with which it is small enough for a test."""

from __future__ import annotations

from typing import Any

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
TAKES = {name: (VOXELS, SENSORS) if name in ("mlp", "transformer") else (SENSORS,) for name in SMALL}
