"""The chain from a continuous recording to epochs: opened once, run over a recording, or by `stream` as it arrives.

Its steps stand in docs/signal.md; the general form of the JSON in :mod:`minddiffuser.runtime.data.chain`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..data.chain import checked_chain
from ..data.layout import Channel, ResponseLayout
from ..errors import InputError, shown
from .baseline import open_baseline, open_detrend, open_zscore
from .channels import open_pick, open_reference
from .decimation import open_decimate, open_decimate_epochs
from .epoching import TOO_EARLY, TOO_LATE, Epochs, finished
from .filters import open_filter
from .rejection import open_reject
from .resampling import open_resample
from .screen import checked_samples
from .stage import Continuous, EpochStep, Plan, Stage, Window
from .stream import Stream
from .whitening import open_whiten
from .windows import open_crop, open_epoch

# What stands before the step `epoch`, and what behind it: a new step is one file and one line.
CONTINUOUS: Mapping[str, Callable[[Mapping[str, Any], Continuous], Stage]] = {
    "pick": open_pick,
    "reference": open_reference,
    "filter": open_filter,
    "decimate": open_decimate,
    "resample": open_resample,
}
OF_EPOCHS: Mapping[str, Callable[[Mapping[str, Any], Window, Path | None], EpochStep]] = {
    "detrend": open_detrend,
    "reject": open_reject,
    "baseline": open_baseline,
    "decimate": open_decimate_epochs,
    "whiten": open_whiten,
    "zscore": open_zscore,
    "crop": open_crop,
}
# Seconds for which a stream holds samples of epochs that nobody has marked yet.
_KEEP = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Chain:
    """An opened chain; :func:`open_chain` makes one.

    Attributes
    ----------
    signal
        Its JSON, as a data folder keeps it.
    plan
        Its pieces.
    """

    signal: Mapping[str, Any]
    plan: Plan

    @property
    def output(self) -> Window:
        """The epochs: channels, sfreq, first sample, n_times, times, tmin, unit."""
        return self.plan.steps[-1].after if self.plan.steps else self.plan.window

    @property
    def layout(self) -> ResponseLayout:
        """The epochs as a data folder describes them."""
        output = self.output
        return ResponseLayout(
            modality=output.modality,
            shape=(len(output.channels), output.n_times),
            channels=output.channels,
            sfreq=output.sfreq,
            tmin=output.tmin,
            unit=output.unit,
            signal=self.signal,
        )

    @property
    def causal(self) -> bool:
        """Whether it can run on a signal that is still being recorded."""
        return self.plan.causal

    @property
    def warm_up(self) -> float:
        """Seconds at a recording's start in which the filters have not settled (at its end too, if not causal)."""
        return sum(stage.settles for stage in self.plan.stages)

    @property
    def delay(self) -> float:
        """Seconds by which the causal filters delay the signal at the middle of their pass bands, as they state."""
        return sum(stage.delay for stage in self.plan.stages)

    @property
    def latency(self) -> float:
        """Seconds of signal after an epoch's end that its resampling waits for."""
        return sum(stage.latency for stage in self.plan.stages)

    def epochs(self, data: ArrayLike, events: ArrayLike) -> Epochs:
        """The epochs of a whole recording.

        Parameters
        ----------
        data
            (n_channels, n_samples) in V or T, the channels that the chain was opened for; held in float64, twice.
        events
            (n_events,) whole numbers, the sample of each event, from 0; in any order, epochs may overlap.

        Raises
        ------
        ShapeError, InputError
            The arrays are of another form, or a sample is NaN.
        """
        plan = self.plan
        samples = checked_samples(data, plan.input)
        places = _events(events)
        for stage in plan.stages:
            samples = (stage.whole or stage.start())(samples)
        n_samples = samples.shape[1]
        shape = (len(places), len(self.output.channels), self.output.n_times)
        made, in_warm_up = np.empty(shape, np.float32), np.zeros(len(places), bool)
        settled = n_samples - (0 if plan.causal else plan.warm_up)
        kept: list[int] = []
        refused: dict[int, str] = {}
        for index, event in enumerate(places):
            start, stop = plan.span(event)
            if start < 0 or stop > n_samples:
                refused[index] = TOO_EARLY if start < 0 else TOO_LATE
                continue
            epoch, reason = finished(samples[:, start:stop], plan.steps)
            if epoch is None:
                refused[index] = str(reason)
                continue
            in_warm_up[len(kept)] = start < plan.warm_up or stop > settled
            made[len(kept)] = epoch
            kept.append(index)
        n_kept = len(kept)
        return Epochs(
            data=made[:n_kept], kept=np.array(kept, np.int64), refused=refused, in_warm_up=in_warm_up[:n_kept]
        )

    def stream(self, *, keep: float = _KEEP, dtype: type[Any] = np.float32) -> Stream:
        """The chain for one signal that arrives in chunks.

        Parameters
        ----------
        keep
            Seconds for which samples are held beyond an epoch's length: events may be marked that late.
        dtype
            Of the epochs: np.float32, or np.float64 as the steps compute them.

        Raises
        ------
        InputError
            A step needs later samples than an epoch has.
        """
        for step, stage in zip(self.signal["steps"], self.plan.stages, strict=False):
            if stage.whole is not None:
                raise InputError(
                    f"the step {step['name']!r} is not causal: it needs the whole recording and cannot run on a signal "
                    'that is still being recorded; fit on data that were made with "causal": true'
                )
        return Stream(self.plan, keep=keep, dtype=dtype)


def open_chain(
    signal: Mapping[str, Any], channels: Sequence[Channel], sfreq: float, folder: Path | str | None = None
) -> Chain:
    """Check a chain and make it ready for one kind of recording.

    Parameters
    ----------
    signal
        ``{"steps": […]}``; the steps stand in docs/signal.md.
    channels
        Of the recording, in the order of its rows.
    sfreq
        Its samples per second.
    folder
        Where the files lie that the chain names.

    Raises
    ------
    InputError
        A step is unknown, misplaced or wrong, or does not fit the recording; the message names it.
    FileError
        A file that it names is missing, damaged or another one.
    """
    content = checked_chain(signal)
    steps = content["steps"]
    names = [step["name"] for step in steps]
    known = [*CONTINUOUS, "epoch", *(name for name in OF_EPOCHS if name not in CONTINUOUS)]
    strange = next((name for name in names if name not in known), None)
    if strange is not None:
        raise InputError(f"the signal chain has the step {shown(strange)}: it may have {', '.join(known)}")
    if names.count("epoch") != 1:
        raise InputError(f"the signal chain has {names.count('epoch')} steps 'epoch': it needs exactly one")
    place = names.index("epoch")
    _check_places(names, place)
    before = first = Continuous(channels=tuple(channels), sfreq=float(sfreq))
    stages = []
    for step in steps[:place]:
        stages.append(CONTINUOUS[step["name"]](step, before))
        before = stages[-1].after
    window = after = open_epoch(steps[place], before)
    of_epochs = []
    for step in steps[place + 1 :]:
        of_epochs.append(OF_EPOCHS[step["name"]](step, after, None if folder is None else Path(folder)))
        after = of_epochs[-1].after
    rate = Fraction(before.sfreq / first.sfreq).limit_denominator(1_000_000)
    plan = Plan(input=first, stages=tuple(stages), window=window, steps=tuple(of_epochs), rate=rate)
    return Chain(signal=content, plan=plan)


def _check_places(names: Sequence[str], place: int) -> None:
    """Steps on the right side of `epoch`, and detrending before a baseline, which it would undo."""
    for index, name in enumerate(names):
        if index < place and name not in CONTINUOUS:
            raise InputError(f"the step {name!r} stands before 'epoch': it works on epochs, put it behind")
        if index > place and name not in OF_EPOCHS:
            raise InputError(f"the step {name!r} stands behind 'epoch': it works on the whole signal, put it before")
    if "detrend" in names and any(name in names[: names.index("detrend")] for name in ("baseline", "zscore")):
        raise InputError("the step 'detrend' stands behind the baseline, which it would undo: put it before")


def _events(events: ArrayLike) -> list[int]:
    given = np.asarray(events)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise InputError(f"the events are {given.dtype} {given.shape}: give their samples, whole numbers (n_events,)")
    return [int(event) for event in given]
