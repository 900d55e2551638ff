"""A simulated recording as epochs: the chain, the noise ceiling, and the data folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.folder import DataFolder, SplitData, write_claimed
from ...runtime.data.trial_ids import default_trial_ids
from ...runtime.errors import InputError
from ...runtime.signal.chain import Chain, open_chain
from ...runtime.signal.filters import design_filter
from .base import OnProgress, SensorSubject
from .recording import LEAD_S, SPLITS, TAIL_S, Answers, Sensed

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class EpochSettings:
    """How epochs are made of the recording.

    Parameters
    ----------
    sfreq : samples per second of the epochs.
    tmin : first sample's time, seconds after the picture.
    length_s : of an epoch.
    with_end : whether the sample at the very end is one of it: 201 samples of a second at 200 Hz, not 200.
    baseline : from when to when its mean is subtracted; may begin before `tmin`.
    band : Hz that are kept.
    causal : whether filters look back alone, so that they can run live.
    single_trials : whether the showings of a test picture stay trials of their own.
    """

    sfreq: float
    tmin: float
    length_s: float
    baseline: tuple[float, float]
    with_end: bool = False
    band: tuple[float, float] = (0.1, 40.0)
    causal: bool = True
    single_trials: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.sfreq) and _LEAST_HZ <= self.sfreq <= _MOST_HZ):
            raise InputError(f"sfreq is {self.sfreq}: give {_LEAST_HZ:g} to {_MOST_HZ:g} Hz")

    @property
    def tmax(self) -> float:
        """The last sample's time, seconds after the picture."""
        return self.tmin + self.length_s - (0 if self.with_end else 1 / self.sfreq)


_LEAST_HZ, _MOST_HZ = 50.0, 500.0
# A low-pass of this share of the epochs' rate leaves little that would fold into what it passes.
_PASSED = 1 / 3
# The recording of epochs has at least so many Hz, which is enough for every filter of a chain.
_RECORDED_HZ = 400.0


def recorded_hz(sfreq: float) -> float:
    """The rate of a recording that epochs of this rate are taken from: a multiple, from 400 Hz up."""
    return sfreq * float(np.ceil(_RECORDED_HZ / sfreq))


def chain_of(subject: SensorSubject, settings: EpochSettings) -> Chain:
    """The chain: filter, every n-th sample, epochs, baseline.

    Raises
    ------
    InputError
        The recording's rate is no multiple of the epochs'.
    """
    factor = subject.sfreq / settings.sfreq
    if abs(factor - round(factor)) > 1e-9:
        raise InputError(f"a recording of {subject.sfreq:g} Hz cannot be taken down to {settings.sfreq:g} Hz")
    low, high = settings.band[0], min(settings.band[1], _PASSED * settings.sfreq)
    start = min(settings.tmin, settings.baseline[0])
    steps: list[dict[str, Any]] = [
        *design_filter(subject.sfreq, low, high, causal=settings.causal),
        {"name": "decimate", "factor": round(factor)},
        {"name": "epoch", "tmin": start, "tmax": settings.tmax},
        {"name": "baseline", "tmin": settings.baseline[0], "tmax": settings.baseline[1]},
    ]
    if start < settings.tmin:
        steps.append({"name": "crop", "tmin": settings.tmin, "tmax": settings.tmax})
    return open_chain({"steps": steps}, subject.channels, subject.sfreq)


@dataclass(frozen=True)
class Made:
    """The epochs of a split: `responses` (n_trials, n_channels, n_times) float32, `stimulus` (n_trials,).

    `noise_ceiling` (n_channels, n_times) float32, the share of a trial's variance that the picture explains; `averages`
    says whether each trial is the mean of several showings.
    """

    responses: F32
    stimulus: NDArray[np.int64]
    noise_ceiling: F32
    averages: bool


def write_epochs(out: Path | str, sensed: Sensed, settings: EpochSettings, *, progress: OnProgress) -> DataFolder:
    """Record a subject, make epochs of it run by run, and write them as a data folder.

    Parameters
    ----------
    out : the folder, which the caller holds by :func:`~minddiffuser.runtime.data.destination.claimed`.
    sensed : the subject.
    settings : of the epochs.
    progress : called with (phase, done, total).
    """
    subject = sensed.subject
    chain = chain_of(subject, settings)
    made = epochs_of(sensed, chain, single_trials=settings.single_trials, progress=progress)
    return write_claimed(
        out,
        {
            split: SplitData(
                responses=part.responses,
                stimulus=part.stimulus,
                images=subject.pictures[split].images,
                captions=subject.pictures[split].captions,
                concepts=subject.pictures[split].concepts or None,
                noise_ceiling=part.noise_ceiling,
                trial_ids=default_trial_ids(split, part.stimulus, averages=part.averages),
            )
            for split, part in made.items()
        },
        subject=subject.name,
        layout=chain.layout,
        provenance={**subject.provenance, "epochs": asdict(settings)},
    )


def epochs_of(sensed: Sensed, chain: Chain, *, single_trials: bool, progress: OnProgress) -> dict[str, Made]:
    """Epochs of both splits: training trials one by one, test trials averaged over the showings of a picture.

    The ceiling is known, not estimated: the signal is the chain's answer to a picture that is shown alone, its variance
    that over the training pictures; the noise is all that single trials have beside it, the answers to the pictures
    before and after included, and its variance is divided by the number of averaged showings.
    """
    subject = sensed.subject
    averaged = subject.n_repetitions["test"] > 1 and not single_trials
    shown = {split: len(subject.pictures[split].images) for split in SPLITS}
    signals = {split: alone(sensed.answers, split, shown[split], chain, subject) for split in SPLITS}
    collected = {
        "train": _Collected(signals["train"], subject.n_repetitions["train"], averaged=False),
        "test": _Collected(signals["test"], subject.n_repetitions["test"], averaged=averaged),
    }
    progress("runs", 0, subject.n_runs)
    for done, run in enumerate(subject.runs(), 1):
        events = [event for event in run.events if event.split == run.split]
        epochs = chain.epochs(run.data, np.array([event.sample for event in events], np.int64))
        for epoch, index in zip(epochs.data, epochs.kept, strict=True):
            collected[run.split].add(epoch, events[index].stimulus, events[index].repetition)
        progress("runs", done, subject.n_runs)
    variance = signals["train"].astype(np.float64).var(axis=0)
    return {split: part.made(variance) for split, part in collected.items()}


def alone(answers: Answers, split: str, n_pictures: int, chain: Chain, subject: SensorSubject) -> F32:
    """What the chain makes of every picture's answer without anything else, (n_pictures, n_channels, n_times)."""
    # The chain is linear and treats all channels alike: it is run once per time course, not once per picture.
    single = open_chain(chain.signal, subject.channels[:1], subject.sfreq)
    onset = round(LEAD_S * subject.sfreq)
    after = onset + round(TAIL_S * subject.sfreq)
    made = []
    for course in answers.courses:
        samples = np.zeros((1, max(after, onset + len(course))))
        samples[0, onset : onset + len(course)] = course
        made.append(single.epochs(samples, [onset]).data[0, 0])
    signal: F32 = np.einsum("npc,pt->nct", answers.patterns[split][:n_pictures], np.stack(made), optimize=True)
    return signal


class _Collected:
    """The epochs of one split as they come: kept one by one or summed by picture, and the variance of their noise."""

    def __init__(self, signal: F32, n_repetitions: int, *, averaged: bool) -> None:
        self._signal, self._n_repetitions, self._averaged = signal, n_repetitions, averaged
        n_trials = len(signal) * (1 if averaged else n_repetitions)
        self._trials = np.zeros((n_trials, *signal.shape[1:]), np.float64 if averaged else np.float32)
        self._n, self._sum, self._squares = 0, np.zeros(signal.shape[1:]), np.zeros(signal.shape[1:])

    def add(self, epoch: F32, picture: int, repetition: int) -> None:
        """An epoch (n_channels, n_times) of one showing."""
        self._trials[picture if self._averaged else repetition * len(self._signal) + picture] += epoch
        noise = epoch.astype(np.float64) - self._signal[picture]
        self._n, self._sum, self._squares = self._n + 1, self._sum + noise, self._squares + noise**2

    def made(self, variance: F64) -> Made:
        """The trials, and their ceiling for a signal of this variance (n_channels, n_times)."""
        n_pictures = len(self._signal)
        each = self._n_repetitions if self._averaged else 1
        noise = np.maximum(self._squares / self._n - (self._sum / self._n) ** 2, 0) / each
        return Made(
            responses=(self._trials / each).astype(np.float32),
            stimulus=np.tile(np.arange(n_pictures, dtype=np.int64), self._n_repetitions // each),
            noise_ceiling=(variance / np.maximum(variance + noise, np.finfo(np.float64).tiny)).astype(np.float32),
            averages=each > 1,
        )
