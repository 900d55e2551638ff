"""`pick` and `reference`: which channels, and against what they are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from .fields import check_names, rows_of, wrong
from .stage import Array, Continuous, Stage


def open_pick(step: Mapping[str, Any], before: Continuous) -> Stage:
    """``{"name": "pick", "channels": [names]}``: these channels, in this order."""
    check_names(step, {"channels"})
    rows = rows_of(step, before.channels)
    after = replace(before, channels=tuple(before.channels[row] for row in rows))
    return Stage(after=after, start=lambda: lambda chunk: chunk[rows])


def open_reference(step: Mapping[str, Any], before: Continuous) -> Stage:
    """``{"name": "reference", "kind": "average"}``, or ``"kind": "channels", "channels": [names]``.

    The mean over all EEG channels, or over those named, is subtracted from every EEG channel, as by MNE's
    set_eeg_reference; other types stay as they are.
    """
    eeg = [row for row, channel in enumerate(before.channels) if channel.type == "eeg"]
    if not eeg:
        raise InputError("the step 'reference' needs EEG channels, and the signal has none: leave the step out")
    if step.get("kind") == "average":
        check_names(step, {"kind"})
        sources = eeg
    elif step.get("kind") == "channels":
        check_names(step, {"kind", "channels"})
        sources = rows_of(step, before.channels)
    else:
        raise wrong(step, "kind", "give 'average', or 'channels' with their names")

    def push(chunk: Array) -> Array:
        # Row by row: numpy sums an axis in an order that depends on the array's size, and so on the chunk's.
        mean = np.zeros(chunk.shape[1])
        for row in sources:
            mean += chunk[row]
        mean /= len(sources)
        referenced = chunk.copy()
        referenced[eeg] -= mean
        return referenced

    return Stage(after=before, start=lambda: push)
