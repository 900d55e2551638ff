"""A simulated subject before it is written: what the writers of every format are given.

A subject with voxels has its responses in memory; one with sensors gives its recording run by run, so that hours of it
never lie in memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import Channel
from .fmri import Responses
from .shown import Shown

OnProgress = Callable[[str, int, int], None]
Span = tuple[int, int] | frozenset[int]

TARGET = "target"
"""The `split` of a showing that the subject was to answer with a key: a picture of neither split."""


@dataclass(frozen=True, kw_only=True)
class VoxelSubject:
    """A simulated fMRI subject.

    Parameters
    ----------
    name : of the subject.
    seed : that it was made from; a writer that needs randomness takes a child of its own.
    pictures : "train" and "test": images, captions and concepts in the order that `responses` count.
    rois : name to (start, stop) in the voxel axis, or to a set of voxels.
    responses : "train" and "test", (n_trials, n_voxels) float32 each, with the picture of every trial.
    provenance : how to make the subject again, as JSON.
    """

    name: str
    seed: int
    pictures: Mapping[str, Shown]
    rois: Mapping[str, Span]
    responses: Mapping[str, Responses]
    provenance: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One showing of a picture.

    Parameters
    ----------
    sample : of the run, at which the picture appears, counted from 0.
    split : "train" or "test", or `TARGET`.
    stimulus : number of the picture in its split; -1 of a target.
    repetition : how often the picture was shown before, over the whole recording.
    """

    sample: int
    split: str
    stimulus: int
    repetition: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """A stretch of recording without a gap.

    Parameters
    ----------
    session : number of the session, from 0.
    split : of its events; targets aside, a run shows pictures of one split.
    data : (n_channels, n_samples) float64, V of EEG, T of MEG.
    channels, sfreq : the rows of `data`, and samples per second.
    events : in the order of their samples.
    """

    session: int
    split: str
    data: NDArray[np.float64]
    channels: tuple[Channel, ...]
    sfreq: float
    events: tuple[Event, ...]


@dataclass(frozen=True, kw_only=True)
class SensorSubject:
    """A simulated EEG or MEG subject.

    Parameters
    ----------
    name : of the subject.
    modality : "eeg" or "meg".
    seed : that it was made from; a writer that needs randomness takes a child of its own.
    pictures : "train" and "test": images, captions and concepts in the order that events count.
    channels : with positions in metres, in MNE's head coordinates; EEG is referenced as recorded.
    sfreq : of the recording.
    line_hz : of the mains.
    n_runs : how many runs `runs` gives.
    runs : makes the recording anew, always the same, session by session; each run is made when it is asked for.
    n_repetitions : "train" and "test", showings of each picture.
    provenance : how to make the subject again, as JSON.
    """

    name: str
    modality: str
    seed: int
    pictures: Mapping[str, Shown]
    channels: tuple[Channel, ...]
    sfreq: float
    line_hz: float
    n_runs: int
    runs: Callable[[], Iterator[Run]]
    n_repetitions: Mapping[str, int]
    provenance: Mapping[str, Any]


SimulatedSubject = VoxelSubject | SensorSubject
