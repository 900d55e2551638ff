"""The trials of a session as the decoder was given them, summed as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime.decoders.scale import TrainingStatistics
from ...runtime.decoders.screen import screen_trial
from ...runtime.errors import InputError
from ..intake.chain import live_chain
from ..intake.events import SKIPPED, Event, Refused, Said
from ..intake.intake import Intake
from ..intake.settings import IntakeSettings
from ..recording.items import read_end, read_info, read_steps
from .known import Check, Known
from .statistics import Moments


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """Sums over the trials, of how many events they are, and how many markers gave none, by the reason."""

    moments: Moments
    n_events: int
    refused: Mapping[str, int]


def trials_of(
    signal: Path,
    training: TrainingStatistics,
    folder: Path,
    settings: IntakeSettings,
    *,
    known: Known | None = None,
    accept_filter_mismatch: bool = False,
    most: int | None = None,
) -> Trials:
    """Run a recording through the live path. Memory does not grow with it.

    Parameters
    ----------
    signal
        A session's XDF file.
    training, folder
        Of the decoder, and where it lies.
    settings
        Which markers are events, and how certain their times must be.
    known
        Which markers are of training pictures; None: it is not looked at.
    accept_filter_mismatch
        See :func:`~..intake.chain.live_chain`.
    most
        Take the first so many; None for all.

    Raises
    ------
    MindDiffuserError
        The recording does not fit the decoder, or is damaged, or a marker is of no training picture.
    """
    if training.layout is None:
        raise InputError(f"{folder} does not say what it decodes: fit it again")
    info = read_info(signal)
    live = live_chain(training.layout, info, folder=folder, accept_filter_mismatch=accept_filter_mismatch)
    intake = Intake(live.chain, settings, training=training)
    intake.start(info)
    moments, check, texts = Moments(training), Check(known), set[str]()
    refused: Counter[str] = Counter()
    for event in _events(signal, intake):
        if isinstance(event, Said) or (isinstance(event, Refused) and event.state == SKIPPED):
            continue
        if most is not None and moments.n >= most:
            break
        check.add(event.text)
        if isinstance(event, Refused):
            refused[event.reason.partition(":")[0]] += 1
            continue
        try:
            row, _ = screen_trial(np.asarray(event.data, np.float32), training)
        except InputError as error:
            refused[str(error).partition(":")[0]] += 1
            continue
        moments.add(row)
        texts.add(event.text)
    check.require_none()
    return Trials(moments=moments, n_events=len(texts), refused=dict(refused))


def _events(signal: Path, intake: Intake) -> Iterator[Event]:
    """What the intake gives, step by step."""
    now = 0.0
    for step in read_steps(signal):
        now = step.now
        yield from intake.step(step.items, now)
    end = read_end(signal)
    yield from intake.finish(now if end is None else end)
