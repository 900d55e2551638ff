"""A recording: what is shown when, runs that repeat, and answers that come when they should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("mne")

from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.progress import unheard
from minddiffuser.training.simulate import eeg, meg
from minddiffuser.training.simulate.base import TARGET, Run
from minddiffuser.training.simulate.brains.base import Looked
from minddiffuser.training.simulate.epochs import EpochSettings, chain_of, epochs_of, recorded_hz, write_epochs
from minddiffuser.training.simulate.fmri import Drives, FmriSettings
from minddiffuser.training.simulate.recording import TAIL_S, RecordingSettings, Sensed, plan_of, sensor_subject
from minddiffuser.training.simulate.sensors import meg_sensors
from minddiffuser.training.simulate.subject import Showing

QUICK = replace(eeg.EEG, recorded_hz=400.0, train_repetitions=3, test_repetitions=4, run_s=8.0, sessions=2)


class ChosenBrain:
    """All structural drives of a split are its `structure`, all semantic ones its `meaning`, (n_pictures,) each.

    With means of 0 and values of -1 and 1 the simulation's scaling leaves them as they are.
    """

    name: ClassVar[str] = "chosen"
    made_of: ClassVar[str] = "what a test chooses"
    image_size = 16
    provenance: ClassVar[dict[str, Any]] = {}

    def __init__(self, structure: Mapping[str, np.ndarray], meaning: Mapping[str, np.ndarray]) -> None:
        self.structure, self.meaning = structure, meaning

    @classmethod
    def reads(cls, *, own_pictures: bool) -> tuple[str, ...]:
        return ()

    @classmethod
    def open(cls, sources: Any, *, own_pictures: bool) -> ChosenBrain:
        raise NotImplementedError

    def look(self, train: Any, test: Any, settings: FmriSettings, rng: np.random.Generator, report: Any) -> Looked:
        early = np.array([area.structural == (1.0, 1.0) for area in settings.areas.values()])
        share = np.repeat(early, [area.n_voxels for area in settings.areas.values()]).astype(np.float32)
        drives = {
            split: Drives(
                structural=np.tile(self.structure[split][:, None], (1, len(share))).astype(np.float32),
                semantic=np.tile(self.meaning[split][:, None], (1, len(share))).astype(np.float32),
            )
            for split in ("train", "test")
        }
        return Looked(share=share, train=drives["train"], test=drives["test"])


def signs(n: int, period: int) -> np.ndarray:
    """-1 and 1 in turn, `period` of each: of mean 0 where n is a multiple of twice the period."""
    return np.where(np.arange(n) // period % 2, 1.0, -1.0)


def recorded(
    settings: RecordingSettings = QUICK,
    *,
    n_train: int = 8,
    n_test: int = 4,
    seed: int = 1,
    under: Any = None,
    **given: Any,
) -> Sensed:
    """A subject whose structure changes with every picture and whose meaning with every second."""
    n = {"train": n_train, "test": n_test}
    brain = ChosenBrain(
        {split: signs(many, 1) for split, many in n.items()}, {split: signs(many, 2) for split, many in n.items()}
    )
    showing = Showing(n_train=n_train, n_test=n_test)
    return sensor_subject(
        eeg.sensors(17) if under is None else under, brain, settings, showing, seed=seed, progress=unheard, **given
    )


def runs(sensed: Any, split: str) -> list[Run]:
    return [run for run in sensed.subject.runs() if run.split == split]


def seeds_of_splits() -> dict[str, np.random.SeedSequence]:
    return dict(zip(("train", "test"), np.random.SeedSequence(3).spawn(2), strict=True))


def test_every_picture_is_shown_as_often_as_asked_in_runs_of_bounded_length() -> None:
    plan = plan_of(replace(QUICK, target_share=0.2), {"train": 70, "test": 30}, seeds_of_splits())
    for split, n_pictures, n_repetitions in (("train", 70, 3), ("test", 30, 4)):
        shown = [event for run in plan if run.split == split for event in run.events if event.split != TARGET]
        assert {event.split for event in shown} == {split}
        assert Counter((event.stimulus, event.repetition) for event in shown) == dict.fromkeys(
            ((picture, repetition) for picture in range(n_pictures) for repetition in range(n_repetitions)), 1
        )
        orders = [[e.stimulus for e in shown if e.repetition == repetition] for repetition in (0, 1)]
        assert orders[0] != orders[1]
    targets = [event for run in plan for event in run.events if event.split == TARGET]
    assert 30 < len(targets) < 110  # a fifth of 330, at random
    assert {event.stimulus for event in targets} == {-1}
    assert [run.session for run in plan] == sorted(run.session for run in plan)
    assert {run.session for run in plan} == {0, 1}
    for run in plan:
        # A run ends with its sequence: 20 pictures of 0.2 s, and room for the last epoch.
        assert run.n_samples / QUICK.recorded_hz <= QUICK.run_s + 21 * 0.2 + QUICK.pause_s + TAIL_S + 1
        apart = np.diff([event.sample for event in run.events]) / QUICK.recorded_hz
        assert set(apart.round(6)) <= {0.2, 1.2}
        assert run.events[-1].sample + QUICK.recorded_hz < run.n_samples


def test_meg_follows_its_own_rhythm() -> None:
    plan = plan_of(meg.MEG, {"train": 60, "test": 4}, seeds_of_splits())
    apart = np.concatenate([np.diff([event.sample for event in run.events]) for run in plan]) / meg.MEG.recorded_hz
    assert apart.min() >= 1.3 - 1e-3
    assert apart.max() <= 1.7 + 1e-3
    assert apart.std() > 0.05
    assert {run.session for run in plan} == set(range(12))


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    one, again, other = (recorded(QUICK, seed=seed) for seed in (1, 1, 2))
    for a, b in zip(one.subject.runs(), again.subject.runs(), strict=True):
        assert a.data.tobytes() == b.data.tobytes()
        assert a.events == b.events
    first, second = (next(iter(one.subject.runs())).data for _ in range(2))  # asked for twice
    assert first.tobytes() == second.tobytes()
    assert first.shape[0] == 17
    different = next(iter(other.subject.runs())).data[:, :1000]
    assert np.abs(np.corrcoef(first[:, :1000].ravel(), different.ravel())[0, 1]) < 0.5


def test_another_test_seed_is_another_session_of_the_same_subject() -> None:
    """The training stays what it was; the test split has other pictures, another order and other noise."""
    first, same, second = (recorded(QUICK, n_test=30, test_seed=seed) for seed in (None, None, 1))
    for one, other in zip(runs(first, "train"), runs(second, "train"), strict=True):
        assert one.data.tobytes() == other.data.tobytes()
        assert one.events == other.events
    assert captions(first, "train") == captions(second, "train")
    assert captions(first, "test") == captions(same, "test") != captions(second, "test")
    (one, *_), (other, *_) = runs(first, "test"), runs(second, "test")
    assert [event.stimulus for event in one.events] != [event.stimulus for event in other.events]
    before = slice(0, one.events[0].sample)  # noise alone
    assert np.abs(np.corrcoef(one.data[:, before].ravel(), other.data[:, before].ravel())[0, 1]) < 0.5
    assert second.subject.provenance == {**first.subject.provenance, "test_seed": 1}


def captions(sensed: Sensed, split: str) -> list[Any]:
    return list(sensed.subject.pictures[split].captions)


def test_a_longer_training_changes_no_test_run() -> None:
    """The drives' scale is fitted on training pictures; of mean 0 and variance 1, it is the same for 8 and for 16."""
    short, long = (runs(recorded(QUICK, n_train=n), "test") for n in (8, 16))
    assert len(short) == len(long)
    for a, b in zip(short, long, strict=True):
        # The scale is a sum of as many float32 terms.
        np.testing.assert_allclose(a.data, b.data, atol=1e-6 * np.abs(a.data).max())
        assert (a.events, a.session) == (b.events, b.session)


def test_answers_add_up_in_the_recording() -> None:
    """A run of a brain that answers is that of one that hardly does, and the answers at their events."""
    strong, weak = (recorded(replace(QUICK, strength=strength)) for strength in (1.0, 1e-6))
    run, silent = runs(strong, "train")[0], runs(weak, "train")[0]
    expected = silent.data.copy()
    for event in run.events:
        if event.split == TARGET:
            picture = strong.answers.patterns[TARGET][0]
        else:
            picture = strong.answers.patterns["train"][event.stimulus]
        answer = picture.T @ strong.answers.courses
        n = min(answer.shape[1], run.data.shape[1] - event.sample)
        expected[:, event.sample : event.sample + n] += answer[:, :n]
    np.testing.assert_allclose(run.data, expected, atol=1e-5 * np.abs(run.data - silent.data).max() + 1e-12)
    assert np.abs(run.data - silent.data).max() > 1e-6


def test_eeg_and_meg_see_the_same_brain() -> None:
    """What tells two pictures apart has the same time course in every part, and other patterns."""
    under_eeg, under_meg = (
        recorded(replace(settings, recorded_hz=400.0), under=made)
        for settings, made in ((eeg.EEG, None), (meg.MEG, meg_sensors()))
    )
    np.testing.assert_array_equal(under_eeg.answers.courses, under_meg.answers.courses)
    assert under_eeg.subject.pictures["test"].captions == under_meg.subject.pictures["test"].captions
    a, b = (np.abs(sensed.answers.patterns["train"]).max() for sensed in (under_eeg, under_meg))
    assert 1e-7 < a < 1e-4
    assert 1e-15 < b < 1e-11
    assert (under_eeg.subject.modality, under_meg.subject.modality) == ("eeg", "meg")


def test_structure_is_answered_before_meaning() -> None:
    """Regression of the epochs on what changes between pictures: two peaks, each within its range."""
    settings = replace(QUICK, strength=30.0, train_repetitions=4)
    sensed = recorded(settings, n_train=16)
    chain = chain_of(sensed.subject, eeg.EPOCHS)
    trials = epochs_of(sensed, chain, single_trials=False, progress=unheard)["train"]
    design = np.stack([np.ones(16), signs(16, 1), signs(16, 2)], axis=1)[trials.stimulus]
    weights = np.linalg.lstsq(design, trials.responses.reshape(len(design), -1), rcond=None)[0]
    power = (weights.reshape(3, *trials.responses.shape[1:]) ** 2).sum(axis=1)
    structure, meaning = (float(chain.output.times[power[k].argmax()]) for k in (1, 2))
    assert 0.09 <= structure <= 0.2
    assert 0.2 <= meaning <= 0.5
    before = chain.output.times < 0.03
    assert power[1:, before].max() < 0.2 * power[1:].max()


def icc(trials: np.ndarray) -> np.ndarray:
    """Share of variance between pictures, (n_channels, n_times), of (n_pictures, n_repetitions, …): one-way ANOVA."""
    n_repetitions = trials.shape[1]
    between = n_repetitions * trials.mean(axis=1).var(axis=0, ddof=1)
    within = trials.var(axis=1, ddof=1).mean(axis=0)
    return (between - within) / (between + (n_repetitions - 1) * within)


def test_the_stated_ceiling_is_what_repetitions_show(rng: np.random.Generator) -> None:
    """Measured without knowing the signal, on every picture's repetitions."""
    n = 24
    drives = {split: rng.permutation(signs(n, 1)) for split in ("train", "test")}
    brain = ChosenBrain(drives, {split: rng.permutation(signs(n, 1)) for split in drives})
    settings = replace(QUICK, strength=4.0, train_repetitions=20, test_repetitions=20, sessions=1, run_s=60.0)
    sensed = sensor_subject(eeg.sensors(17), brain, settings, Showing(n_train=n, n_test=n), seed=3, progress=unheard)
    chain = chain_of(sensed.subject, eeg.EPOCHS)
    single, averaged = (epochs_of(sensed, chain, single_trials=flag, progress=unheard) for flag in (True, False))
    for split in ("train", "test"):
        trials = single[split].responses.reshape(20, n, *single[split].responses.shape[1:]).swapaxes(0, 1)
        measured, stated = icc(trials), single[split].noise_ceiling
        strong = stated > 0.1
        assert strong.sum() > 100
        # 24 pictures, in two groups: a variance of theirs is off by some tenth.
        assert abs(np.median(measured[strong] / stated[strong]) - 1) < 0.15
        assert np.corrcoef(measured.ravel(), stated.ravel())[0, 1] > 0.95
        assert np.abs(measured[stated < 0.005]).max() < 0.15
    # Of averages: the same signal, a twentieth of the noise's variance.
    of_one, of_mean = (made["test"].noise_ceiling.astype(float) for made in (single, averaged))
    np.testing.assert_allclose(of_mean, of_one / (of_one + (1 - of_one) / 20), rtol=1e-4)
    mean = single["test"].responses.reshape(20, n, 17, -1).mean(axis=0)
    np.testing.assert_allclose(averaged["test"].responses, mean, atol=1e-10)
    assert (averaged["test"].averages, single["test"].averages) == (True, False)


@pytest.mark.parametrize("causal", [True, False])
def test_the_chain_is_written_and_gives_the_epochs_again(causal: bool, tmp_path: Path) -> None:
    sensed = recorded(QUICK)
    settings = replace(eeg.EPOCHS, causal=causal, single_trials=True)
    data = write_epochs(tmp_path / "data", sensed, settings, progress=unheard)
    assert (data.layout.modality, data.layout.shape, data.layout.unit) == ("eeg", (17, 100), "V")
    assert (data.layout.sfreq, data.layout.tmin) == (100.0, -0.2)
    steps = {step["name"]: step for step in data.layout.signal["steps"]}
    assert steps["filter"]["causal"] is causal
    assert len(data.responses("test")) == 16
    assert data.trial_ids("test")[-1] == "test/3/3"
    assert len(data.concepts("train")) == 8
    assert data.captions("train")[0][0].split()[2] == data.concepts("train")[0]
    assert data.provenance["peaks_s"]["V1"]["structural"] == 0.095
    # An epoch of the folder is what the folder's chain makes of the run.
    run = runs(sensed, "test")[1]
    chain = chain_of(sensed.subject, settings)
    assert chain.causal is causal
    made = chain.epochs(run.data, [event.sample for event in run.events if event.split == "test"])
    event = next(event for event in run.events if event.split == "test")
    np.testing.assert_array_equal(data.responses("test")[4 * event.repetition + event.stimulus], made.data[0])
    open_data(tmp_path / "data")


def test_windows_are_those_that_decoders_of_the_data_sets_have() -> None:
    wide = recorded(replace(QUICK, recorded_hz=recorded_hz(250)), under=eeg.sensors(63))
    assert chain_of(wide.subject, replace(eeg.EPOCHS, sfreq=250.0)).layout.shape == (63, 250)
    field = recorded(replace(meg.MEG, recorded_hz=recorded_hz(200)), under=meg_sensors())
    layout = chain_of(field.subject, meg.EPOCHS).layout
    assert (layout.shape, layout.tmin, layout.unit, layout.modality) == ((271, 201), 0.0, "T", "meg")
    assert {recorded_hz(sfreq) for sfreq in (50, 100, 200)} == {400}
    # Both data sets' own rates can be taken down to these.
    for rate, sfreq in ((1000.0, 100.0), (1000.0, 250.0), (1200.0, 200.0)):
        assert (rate / sfreq).is_integer()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_repetitions": 0}, "test_repetitions is 0: a picture is shown 1 to 200 times"),
        ({"soa_s": 0.0}, "the time from picture to picture is 0.0 s: give 0.05 to 20.0 s"),
        ({"jitter_s": 0.2}, "is 0.2 s, and varies by 0.2 s: give more than 0.2 s"),
        ({"strength": float("nan")}, "strength is nan: give a number above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(QUICK, **change)
    with pytest.raises(InputError, match="sfreq is 20: give 50 to 500 Hz"):
        EpochSettings(sfreq=20, tmin=0, length_s=1, baseline=(-0.1, 0))
