"""The trials of a session as the decoder was given them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.decoders.scale import TrainingStatistics
from ...runtime.decoders.screen import screen_trial
from ...runtime.errors import InputError
from ..intake.chain import live_chain
from ..intake.events import Accepted, Refused
from ..intake.intake import Intake
from ..intake.settings import IntakeSettings
from ..recording.items import read_end, read_info, read_steps


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """Responses (n, n_channels, n_times) float32, their markers, and how many events gave none, by the reason."""

    responses: NDArray[np.float32]
    texts: tuple[str, ...]
    refused: Mapping[str, int]


def trials_of(
    signal: Path,
    training: TrainingStatistics,
    folder: Path,
    settings: IntakeSettings,
    *,
    accept_filter_mismatch: bool = False,
    most: int | None = None,
) -> Trials:
    """Run a recording through the live path.

    Parameters
    ----------
    signal
        A session's XDF file.
    training, folder
        Of the decoder, and where it lies.
    settings
        Which markers are events, and how certain their times must be.
    accept_filter_mismatch
        See :func:`~..intake.chain.live_chain`.
    most
        Take the first so many; None for all.

    Raises
    ------
    MindDiffuserError
        The recording does not fit the decoder, or is damaged.
    """
    if training.layout is None:
        raise InputError(f"{folder} does not say what it decodes: fit it again")
    info = read_info(signal)
    live = live_chain(training.layout, info, folder=folder, accept_filter_mismatch=accept_filter_mismatch)
    intake = Intake(live.chain, settings, training=training)
    intake.start(info)
    rows: list[NDArray[np.float32]] = []
    texts: list[str] = []
    refused: Counter[str] = Counter()
    now = 0.0
    events = []
    for step in read_steps(signal):
        now = step.now
        events += intake.step(step.items, now)
    end = read_end(signal)
    events += intake.finish(now if end is None else end)
    for event in events:
        if isinstance(event, Refused) and event.state != "skipped":
            refused[event.reason.partition(":")[0]] += 1
        elif isinstance(event, Accepted) and (most is None or len(rows) < most):
            try:
                row, _ = screen_trial(np.asarray(event.data, np.float32), training)
            except InputError as error:
                refused[str(error).partition(":")[0]] += 1
                continue
            rows.append(row)
            texts.append(event.text)
    shape = training.layout.shape
    return Trials(responses=np.array(rows, np.float32).reshape(-1, *shape), texts=tuple(texts), refused=dict(refused))
