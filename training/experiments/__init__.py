"""The paper's experiments, and one runner for all of them.

A new experiment is one file with an :class:`~.base.Experiment` and one line here; ``md-train experiment`` offers it,
and the contract tests in tests/training/experiments run over `EXPERIMENTS`.
"""

from __future__ import annotations

# name -> (module, attribute): opened when it is asked for, since they need what fits and runs need.
EXPERIMENTS: dict[str, tuple[str, str]] = {
    "rois": (".rois", "ROIS"),
    "features": (".features", "FEATURES"),
    "retention": (".retention", "RETENTION"),
    "fitting": (".fitting", "FITTING"),
    "semantic": (".semantic", "SEMANTIC"),
    "iterations": (".iterations", "ITERATIONS"),
    "modality": (".modality", "MODALITY"),
    "interpretation": (".interpretation", "INTERPRETATION"),
}
