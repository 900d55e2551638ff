"""A simulated EEG or MEG recording: pictures in sequences, their answers added up, run by run.

Runs show pictures of one split, in an order drawn anew for each repetition. Every run draws from a child of the seed of
its own, so that a run is the same whatever is recorded before it, and a longer training changes no test run's noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError
from .background import Background, BackgroundSettings, background, draw_background
from .base import TARGET, Event, OnProgress, Run, SensorSubject
from .brains.base import SimulatedBrain
from .fmri import F32, FmriSettings
from .sensors import Sensors, gains
from .sources import PLACES, Part, draw_cortex, parts_of, time_course
from .subject import GENERATOR_VERSION, Seeds, Showing, shown_pictures, sources_of

F64 = NDArray[np.float64]

SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class RecordingSettings:
    """What is shown when, and what is recorded of it.

    Parameters
    ----------
    recorded_hz : samples per second of the recording.
    train_repetitions, test_repetitions : how often each picture is shown.
    soa_s : from one picture to the next, seconds.
    jitter_s : by which that is longer or shorter at random, at most.
    sequence : pictures in a row.
    pause_s : after them.
    target_share : of the showings, on average, that the subject is to answer with a key and that are of no split.
    sessions : into which each split's showings are divided.
    run_s : of a run; it ends with the first sequence that goes beyond.
    background : everything else.
    strength : of the brain's answers, times that of `CURRENT_NAM`.
    """

    recorded_hz: float
    train_repetitions: int
    test_repetitions: int
    soa_s: float
    jitter_s: float
    sequence: int
    pause_s: float
    target_share: float
    sessions: int
    run_s: float
    background: BackgroundSettings
    strength: float = 1.0

    def __post_init__(self) -> None:
        for name in ("train_repetitions", "test_repetitions"):
            if not 1 <= getattr(self, name) <= _MOST_REPETITIONS:
                raise InputError(f"{name} is {getattr(self, name)}: a picture is shown 1 to {_MOST_REPETITIONS} times")
        if not (np.isfinite(self.soa_s) and _SHORTEST_SOA_S <= self.soa_s <= _LONGEST_SOA_S):
            raise InputError(
                f"the time from picture to picture is {self.soa_s} s: give {_SHORTEST_SOA_S} to {_LONGEST_SOA_S} s"
            )
        if self.jitter_s >= self.soa_s:
            raise InputError(
                f"the time from picture to picture is {self.soa_s} s, and varies by {self.jitter_s} s: give more than "
                f"{self.jitter_s} s"
            )
        if not (np.isfinite(self.strength) and self.strength > 0):
            raise InputError(f"strength is {self.strength}: give a number above 0, 1 is a realistic one")


# Of a voxel's current, a standard deviation over pictures. With it the average picture's potential is some 7 uV at Oz
# and its field some 100 fT over the occiput, and pictures differ by a share of that.
CURRENT_NAM = 0.3
_MOST_REPETITIONS = 200
_SHORTEST_SOA_S, _LONGEST_SOA_S = 0.05, 20.0
# Before the first picture of a run, and after the last one, for its epoch.
LEAD_S, TAIL_S = 4.0, 2.0


@dataclass(frozen=True)
class Answers:
    """What the sensors record of each picture: time courses, and how strong they are in every channel.

    Parameters
    ----------
    courses : (n_parts, n_times) float64, from the picture's appearance, sampled as the recording.
    patterns : "train", "test" and `TARGET`, (n_pictures, n_parts, n_channels) float32, V or T.
    """

    courses: F64
    patterns: Mapping[str, F32]

    def of(self, split: str, picture: int) -> F64:
        """Of one picture, (n_channels, n_times)."""
        answer: F64 = self.patterns[split][picture].T @ self.courses
        return answer


@dataclass(frozen=True, kw_only=True)
class Sensed:
    """A subject that can be recorded; `answers` are what a decoder would like to know, and are written nowhere."""

    subject: SensorSubject
    answers: Answers


def sensor_subject(
    sensors: Sensors,
    brain: SimulatedBrain,
    settings: RecordingSettings,
    showing: Showing,
    *,
    seed: int,
    test_seed: int | None = None,
    progress: OnProgress,
) -> Sensed:
    """Simulate a subject that looks at pictures under these sensors.

    The pictures, the brain and what drives its voxels are those of the fMRI subject of the same seed; where the voxels
    and the other sources lie comes from the seed alone, so that EEG and MEG record the same head.

    Parameters
    ----------
    sensors : which.
    brain, showing, seed : as of :func:`~.subject.simulate_subject`.
    settings : of the recording.
    test_seed : of other pictures of the test split, in another order and with other noise, shown to the same subject
        after the same training; None for those of `seed`.
    progress : called with (phase, done, total).
    """
    seeds = Seeds.of(seed)
    areas = FmriSettings()
    cortex_seed, other_seed, sensor_seed, run_seed = seeds.noise.spawn(4)
    run_seeds = dict(zip(SPLITS, run_seed.spawn(len(SPLITS)), strict=True))
    if test_seed is not None:
        test_pictures_seed, run_seeds["test"] = np.random.SeedSequence([seed, test_seed]).spawn(2)
        seeds = replace(seeds, test=test_pictures_seed)
    pictures = shown_pictures(showing, brain.image_size, seeds)
    looked = brain.look(pictures["train"], pictures["test"], areas, np.random.default_rng(seeds.brain), progress)
    cortex = draw_cortex(areas, np.random.default_rng(cortex_seed))
    drives = {"train": looked.train, "test": looked.test}
    gain = settings.strength * CURRENT_NAM * 1e-9 * gains(sensors, cortex.dipoles.positions, cortex.dipoles.directions)
    answers = answers_of(parts_of(cortex, looked.share, drives, areas.compression), gain, settings.recorded_hz)
    noise = draw_background(
        sensors, settings.background, np.random.default_rng(other_seed), np.random.default_rng(sensor_seed)
    )
    n_pictures = {split: len(pictures[split].images) for split in SPLITS}
    plan = plan_of(settings, n_pictures, run_seeds)
    modality = "eeg" if sensors.referenced else "meg"

    def runs() -> Iterator[Run]:
        return (record(run, sensors, settings, answers, noise) for run in plan)

    subject = SensorSubject(
        name=f"simulated-{seed}",
        modality=modality,
        seed=seed,
        pictures=pictures,
        channels=sensors.channels,
        sfreq=settings.recorded_hz,
        line_hz=settings.background.line_hz,
        n_runs=len(plan),
        runs=runs,
        n_repetitions={"train": settings.train_repetitions, "test": settings.test_repetitions},
        provenance={
            **_provenance(modality, brain, settings, seed, sources_of(showing, pictures)),
            **({} if test_seed is None else {"test_seed": test_seed}),
        },
    )
    return Sensed(subject=subject, answers=answers)


def answers_of(parts: list[Part], gain: F64, sfreq: float) -> Answers:
    """What channels with these gains, (n_channels, n_voxels) V or T per standard deviation, record of every picture."""
    courses = np.stack([time_course(part.kind, part.peak_s, sfreq) for part in parts])
    patterns = {
        split: np.stack([part.amplitudes[split] @ gain[:, part.voxels].T.astype(np.float32) for part in parts], axis=1)
        for split in (*SPLITS, TARGET)
    }
    return Answers(courses, patterns)


@dataclass(frozen=True)
class PlannedRun:
    """A run before it is recorded."""

    session: int
    split: str
    events: tuple[Event, ...]
    n_samples: int
    seed: np.random.SeedSequence


def plan_of(
    settings: RecordingSettings, n_pictures: Mapping[str, int], seeds: Mapping[str, np.random.SeedSequence]
) -> list[PlannedRun]:
    """All runs, session by session, training runs before test runs; each split has a seed of its own."""
    repetitions = {"train": settings.train_repetitions, "test": settings.test_repetitions}
    planned: list[PlannedRun] = []
    for split in SPLITS:
        order_seed, timing_seed, noise_seed = seeds[split].spawn(3)
        showings = [
            (int(picture), repetition)
            for repetition, own in enumerate(order_seed.spawn(repetitions[split]))
            for picture in np.random.default_rng(own).permutation(n_pictures[split])
        ]
        timing = np.random.default_rng(timing_seed)
        timed = [
            (session, events)
            for session, some in enumerate(_cut(showings, settings.sessions))
            for events in _timed(some, split, settings, timing)
        ]
        planned += [
            PlannedRun(session, split, events, _n_samples(events, settings.recorded_hz), own)
            for (session, events), own in zip(timed, noise_seed.spawn(len(timed)), strict=True)
        ]
    return sorted(planned, key=lambda run: run.session)


def _timed(
    showings: list[tuple[int, int]], split: str, settings: RecordingSettings, rng: np.random.Generator
) -> Iterator[tuple[Event, ...]]:
    """The showings of a session as the events of one run after the other."""
    events: list[Event] = []
    now, in_sequence = LEAD_S, 0
    for picture, repetition in showings:
        shown = [(split, picture, repetition)]
        if rng.random() < settings.target_share:
            shown.insert(0, (TARGET, -1, 0))
        for what in shown:
            events.append(
                Event(sample=round(now * settings.recorded_hz), split=what[0], stimulus=what[1], repetition=what[2])
            )
            now += settings.soa_s + settings.jitter_s * rng.uniform(-1, 1)
            in_sequence += 1
        if in_sequence >= settings.sequence:
            now, in_sequence = now + settings.pause_s, 0
            if now > settings.run_s:
                yield tuple(events)
                events, now = [], LEAD_S
    if events:
        yield tuple(events)


def _n_samples(events: tuple[Event, ...], sfreq: float) -> int:
    """Whole seconds: a length that a Fourier transform is quick with."""
    return int(np.ceil(events[-1].sample / sfreq + TAIL_S) * sfreq)


def _cut(showings: list[tuple[int, int]], n_parts: int) -> list[list[tuple[int, int]]]:
    """Into parts of about one length, none of them empty."""
    edges = np.linspace(0, len(showings), min(n_parts, len(showings)) + 1).round().astype(int)
    return [showings[start:stop] for start, stop in zip(edges[:-1], edges[1:], strict=True)]


def record(run: PlannedRun, sensors: Sensors, settings: RecordingSettings, answers: Answers, noise: Background) -> Run:
    """Record a run: the background, and each picture's answer from its appearance on."""
    sfreq = settings.recorded_hz
    data = background(noise, run.n_samples, sfreq, np.random.default_rng(run.seed))
    for event in run.events:
        answer = answers.of(event.split, max(event.stimulus, 0))[:, : run.n_samples - event.sample]
        data[:, event.sample : event.sample + answer.shape[1]] += answer
    return Run(
        session=run.session, split=run.split, data=data, channels=sensors.channels, sfreq=sfreq, events=run.events
    )


def _provenance(
    modality: str, brain: SimulatedBrain, settings: RecordingSettings, seed: int, stimuli: dict[str, Any]
) -> dict[str, Any]:
    """How to make the same subject again, without the weights of its brain."""
    return {
        "kind": f"simulated {modality.upper()}",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "brain": brain.name,
        **brain.provenance,
        "stimuli": stimuli,
        "n_repetitions": {"train": settings.train_repetitions, "test": settings.test_repetitions},
        "peaks_s": {
            name: {"structural": place.structural_s, "semantic": place.semantic_s} for name, place in PLACES.items()
        },
        "settings": asdict(settings),
    }
