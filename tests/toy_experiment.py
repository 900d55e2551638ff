"""An experiment of nothing, whose parts a test replaces."""

from __future__ import annotations

from typing import Any

from minddiffuser.training.experiments.base import Row
from minddiffuser.training.experiments.experiment import Experiment

ROWS = (
    Row(key="a", label="A", cell="a"),
    Row(key="b", label="B", cell="b", against="a"),
    Row(key="g", label="gain of B", cell="b", kind="gain"),
)


def experiment(**changes: Any) -> Experiment:
    given: dict[str, Any] = {
        "name": "test",
        "title": "Test",
        "source": "Table 0",
        "question": "?",
        "modalities": ("fmri", "eeg"),
        "cells": lambda _subject, _plan: (),
        "rows": lambda _modalities, _plan: ROWS,
        "figure": lambda _results, _path: None,
        "put_in": lambda _modality, _brain: (),
    }
    return Experiment(**{**given, **changes})
