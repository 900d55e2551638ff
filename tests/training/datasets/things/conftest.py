"""Small simulated subjects in the files of THINGS-EEG2 and THINGS-MEG, made once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.progress import unheard
from minddiffuser.training.simulate.base import TARGET, Event, Run, SensorSubject
from minddiffuser.training.simulate.formats import things_eeg2, things_meg
from minddiffuser.training.simulate.sensors import CAP, eeg_sensors, meg_sensors
from minddiffuser.training.simulate.shown import Shown, Squares

CONCEPTS = {"train": [0, 0, 1, 2, 1, 2], "test": [0, 3]}


def pictures(split: str) -> Shown:
    rng = np.random.default_rng(len(split))
    labels = np.array([[concept, 0, 0] for concept in CONCEPTS[split]])
    images = [np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in labels]
    return Shown(Squares(images, 32), [["what it shows"]] * len(images), labels=labels)


def subject_of(
    modality: str,
    channels: tuple[Channel, ...],
    sfreq: float,
    scale: float,
    soa: float,
    sessions: int,
    repetitions: dict[str, int],
) -> SensorSubject:
    """Pictures in sessions of one run a split, each with a decaying answer of its own in noise."""

    def make() -> Iterator[Run]:
        patterns = {
            split: np.random.default_rng(3 + len(split)).standard_normal((len(CONCEPTS[split]), len(channels)))
            for split in CONCEPTS
        }
        shown = {split: [0] * len(CONCEPTS[split]) for split in CONCEPTS}
        for session in range(sessions):
            for split in CONCEPTS:
                rng = np.random.default_rng([session, len(split)])
                per_session = max(1, repetitions[split] // sessions)
                if repetitions[split] < sessions and session >= repetitions[split]:
                    continue
                order = rng.permutation(np.repeat(np.arange(len(CONCEPTS[split])), per_session)).tolist()
                order.insert(2, -1)
                n_samples = round((len(order) * soa + 5) * sfreq)
                data = 0.3 * rng.standard_normal((len(channels), n_samples))
                data += np.cumsum(rng.standard_normal((len(channels), n_samples)), axis=1) * 0.01
                events = []
                for place, stimulus in enumerate(order):
                    sample = round((2 + place * soa) * sfreq) + place % 7  # in every phase of the new rate
                    course = np.exp(-np.arange(round(0.4 * sfreq)) / (0.1 * sfreq))
                    if stimulus >= 0:
                        data[:, sample : sample + len(course)] += patterns[split][stimulus][:, None] * course
                        events.append(
                            Event(sample=sample, split=split, stimulus=stimulus, repetition=shown[split][stimulus])
                        )
                        shown[split][stimulus] += 1
                    else:
                        events.append(Event(sample=sample, split=TARGET, stimulus=-1, repetition=0))
                yield Run(
                    session=session,
                    split=split,
                    data=scale * data,
                    channels=channels,
                    sfreq=sfreq,
                    events=tuple(events),
                )

    return SensorSubject(
        name=f"small-{modality}",
        modality=modality,
        seed=0,
        pictures={split: pictures(split) for split in CONCEPTS},
        channels=channels,
        sfreq=sfreq,
        line_hz=50.0,
        n_runs=len(list(make())),
        runs=make,
        n_repetitions=repetitions,
        provenance={},
    )


@pytest.fixture(scope="session")
def eeg_subject() -> SensorSubject:
    return subject_of("eeg", eeg_sensors(CAP).channels, 1000.0, 1e-5, 0.2, 4, {"train": 4, "test": 8})


@pytest.fixture(scope="session")
def meg_subject() -> SensorSubject:
    channels = meg_sensors().channels[::30]
    return subject_of("meg", channels, 1200.0, 1e-13, 1.5, 2, {"train": 1, "test": 4})


@pytest.fixture(scope="session")
def eeg2(eeg_subject: SensorSubject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of THINGS-EEG2; copy what a test changes."""
    out = tmp_path_factory.mktemp("things") / "eeg2"
    out.mkdir()
    things_eeg2.write(out, eeg_subject, progress=unheard)
    return out


@pytest.fixture(scope="session")
def meg(meg_subject: SensorSubject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of THINGS-MEG; copy what a test changes."""
    out = tmp_path_factory.mktemp("things") / "meg"
    out.mkdir()
    things_meg.write(out, meg_subject, progress=unheard)
    return out
