"""Test responses z-scored by their own mean and deviation."""

from __future__ import annotations

import numpy as np

from ...runtime.errors import InputError
from ...runtime.files import hash_of_json
from ..datasets.base import Data
from ..leaky import Leaky
from ..normalise import statistics
from ..settings import FitSettings
from .base import Form, Given

SOURCE = "the published code of MindDiffuser and of Brain-Diffuser"
WHAT = (
    "the checkpoint normalises responses by the mean and deviation of the test trials, all of them at once, in place "
    "of those of training"
)


def check(data: Data, settings: FitSettings) -> None:
    n_trials = len(data.stimulus("test"))
    if n_trials < 2:
        raise InputError(
            f"the leak test-zscore needs 2 test trials to make z-scores of, and these data have {n_trials}: give data "
            "with more"
        )


def forms(given: Given) -> tuple[Form, Form]:
    mean, std = statistics(np.asarray(given.data.responses("test")))
    decided = hash_of_json([mean.tolist(), std.tolist()])
    leak = Leaky(name="test-zscore", decided_by={"statistics": decided}, statistics=(mean, std))
    return Form(data=given.data, leak=leak), Form(data=given.data)
