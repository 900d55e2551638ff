"""Epochs by MNE's rules: compared with mne.Epochs itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mne
import numpy as np
import pytest
from numpy.typing import NDArray

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.runtime.signal.epoching import finished

Recording = NDArray[np.float64]


def epochs_of(
    steps: Sequence[Mapping[str, Any]], channels: Sequence[Channel], sfreq: float, data: Recording, events: Any
) -> Any:
    return open_chain({"steps": list(steps)}, channels, sfreq).epochs(data, events)


def by_mne(raw: Any, events: Sequence[int], **settings: Any) -> Any:
    """mne.Epochs of one event code, every channel."""
    rows = np.column_stack([events, np.zeros(len(events), int), np.ones(len(events), int)])
    settings = {"baseline": None, "picks": "all", "preload": True, "event_repeated": "error", **settings}
    return mne.Epochs(raw, rows, 1, verbose="error", **settings)


def assert_same(ours: NDArray[Any], theirs: NDArray[Any], recording: Recording) -> None:
    """To float32, in which epochs are kept, and to what float64 loses of the offset."""
    loss = np.finfo(np.float32).eps * np.abs(theirs).max(axis=2, keepdims=True)
    loss = loss + 64 * np.finfo(np.float64).eps * np.abs(recording).max(axis=1)[None, :, None]
    assert ours.shape == theirs.shape
    assert np.all(np.abs(ours - theirs) <= loss)


@pytest.mark.parametrize(
    ("sfreq", "tmin", "tmax"),
    [
        (100.0, 0.0, 0.7),
        (256.0, -0.2, 0.5),
        (250.0, -0.2, 0.8),
        (1200.0, -0.1, 0.3333),
        (512.03, -0.1001, 0.1),
        (7, 1, 2),
    ],
)
def test_the_samples_are_those_of_mne(
    sfreq: float, tmin: float, tmax: float, channels: Any, recording: Recording, as_mne: Any
) -> None:
    events = [900, 3000, 2999, 3001, 4000]
    chain = open_chain({"steps": [{"name": "epoch", "tmin": tmin, "tmax": tmax}]}, channels, sfreq)
    given = chain.epochs(recording, events)
    theirs = by_mne(as_mne(recording, sfreq), sorted(events), tmin=tmin, tmax=tmax)
    np.testing.assert_array_equal(given.data[np.argsort(events)], theirs.get_data(verbose="error").astype(np.float32))
    np.testing.assert_array_equal(chain.output.times, theirs.times)
    assert chain.output.tmin == theirs.times[0]
    assert given.kept.tolist() == [0, 1, 2, 3, 4]


def test_tmax_is_part_of_the_epoch(channels: Any) -> None:
    chain = open_chain({"steps": [{"name": "epoch", "tmin": 0, "tmax": 0.7}]}, channels, 100.0)
    assert chain.output.n_times == 71


@pytest.mark.parametrize("order", [0, 1])
def test_detrending_comes_before_the_baseline(order: int, channels: Any, recording: Recording, as_mne: Any) -> None:
    events = [500, 700, 3000]
    steps = [
        {"name": "epoch", "tmin": -0.2, "tmax": 0.6},
        {"name": "detrend", "order": order},
        {"name": "baseline", "tmin": None, "tmax": 0.0},
    ]
    given = epochs_of(steps, channels, 250.0, recording, events)
    theirs = by_mne(as_mne(recording, 250.0), events, tmin=-0.2, tmax=0.6, detrend=order, baseline=(None, 0))
    assert_same(given.data, theirs.get_data(verbose="error"), recording)


@pytest.mark.parametrize("baseline", [(-0.2, 0.0), (None, 0.0), (-0.1, None), (-0.1503, -0.0497), (None, None)])
@pytest.mark.parametrize("sfreq", [250.0, 512.0])
def test_both_ends_of_the_baseline_count(
    baseline: tuple[float | None, float | None], sfreq: float, channels: Any, recording: Recording, as_mne: Any
) -> None:
    events = [500, 700, 3000]
    steps = [{"name": "epoch", "tmin": -0.2, "tmax": 0.6}]
    steps += [{"name": "baseline", "tmin": baseline[0], "tmax": baseline[1]}]  # type: ignore[dict-item]
    given = epochs_of(steps, channels, sfreq, recording, events)
    theirs = by_mne(as_mne(recording, sfreq), events, tmin=-0.2, tmax=0.6, baseline=baseline)
    assert_same(given.data, theirs.get_data(verbose="error"), recording)


def test_zscores_are_those_of_mne(channels: Any, recording: Recording) -> None:
    steps: list[dict[str, Any]] = [{"name": "epoch", "tmin": -0.2, "tmax": 0.6}]
    plain = epochs_of(steps, channels, 250.0, recording - recording.mean(1, keepdims=True), [500, 3000])
    scored = epochs_of([*steps, {"name": "zscore", "tmin": -0.2, "tmax": 0}], channels, 250.0, recording, [500, 3000])
    times = np.arange(-50, 151) / 250
    theirs = mne.baseline.rescale(plain.data.astype(float), times, (-0.2, 0), "zscore", verbose="error")
    np.testing.assert_allclose(scored.data[:, :7], theirs[:, :7], rtol=1e-4, atol=1e-4)  # `plain` is float32
    np.testing.assert_allclose(scored.data[:, 7], recording[7][[range(450, 651), range(2950, 3151)]], rtol=1e-6)


def test_a_channel_that_does_not_vary_has_no_zscore(channels: Any, recording: Recording) -> None:
    recording[2, 450:501] = 3e-5
    steps = [{"name": "epoch", "tmin": -0.2, "tmax": 0.6}, {"name": "zscore", "tmin": None, "tmax": 0}]
    given = epochs_of(steps, channels, 250.0, recording, [500, 3000])
    assert given.kept.tolist() == [1]
    assert given.refused == {0: "a channel does not vary in the baseline and has no z-score: eeg2"}


@pytest.mark.parametrize(("tmin", "tmax"), [(0.0, 0.4), (-0.0999, 0.2501), (None, 0.1), (0.3, None), (-3.0, 3.0)])
def test_crop_takes_the_nearest_samples(
    tmin: float | None, tmax: float | None, channels: Any, recording: Recording, as_mne: Any
) -> None:
    steps = [{"name": "epoch", "tmin": -0.2, "tmax": 0.6}, {"name": "crop", "tmin": tmin, "tmax": tmax}]
    chain = open_chain({"steps": steps}, channels, 250.0)
    given = chain.epochs(recording, [500, 3000])
    theirs = by_mne(as_mne(recording, 250.0), [500, 3000], tmin=-0.2, tmax=0.6)
    theirs.crop(None if tmin is None else max(tmin, -0.2), None if tmax is None else min(tmax, 0.6), verbose="error")
    np.testing.assert_array_equal(given.data, theirs.get_data(verbose="error").astype(np.float32))
    np.testing.assert_array_equal(chain.output.times, theirs.times)


def test_overlapping_epochs_and_the_same_event_twice(channels: Any, recording: Recording) -> None:
    steps = [{"name": "epoch", "tmin": -0.2, "tmax": 0.6}, {"name": "baseline", "tmin": None, "tmax": 0}]
    given = epochs_of(steps, channels, 250.0, recording, [1000, 1001, 1000])
    alone = epochs_of(steps, channels, 250.0, recording, [1001])
    np.testing.assert_array_equal(given.data[0], given.data[2])
    np.testing.assert_array_equal(given.data[1], alone.data[0])


def test_epochs_that_the_recording_does_not_hold(channels: Any, recording: Recording) -> None:
    steps = [{"name": "epoch", "tmin": -0.2, "tmax": 0.6}]
    given = epochs_of(steps, channels, 250.0, recording, [49, 50, 5849, 5850, -3, 10**9])
    assert given.kept.tolist() == [1, 2]
    assert {given.refused[index] for index in (0, 4)} == {"the epoch starts before the recording"}
    assert {given.refused[index] for index in (3, 5)} == {"the recording ended before the epoch did"}


def test_no_event_is_no_epoch(channels: Any, recording: Recording) -> None:
    given = epochs_of([{"name": "epoch", "tmin": 0, "tmax": 0.1}], channels, 250.0, recording, np.array([], int))
    assert given.data.shape == (0, 8, 26)
    assert given.refused == {}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"name": "epoch", "tmin": 0.5, "tmax": 0.1}], "tmin comes first"),
        ([{"name": "epoch", "tmin": 0.5}], "tmax of the step 'epoch' is None"),
        ([{"name": "epoch", "tmin": 0, "tmax": 1, "tstep": 2}], "has the parameter 'tstep': it knows tmax, tmin"),
        ([{"name": "baseline", "tmin": None, "tmax": 0}], "needs exactly one"),
        ([{"name": "baseline"}, {"name": "epoch", "tmin": 0, "tmax": 1}], "put it behind"),
        ([{"name": "epoch", "tmin": 0, "tmax": 1}, {"name": "resample"}], "put it before"),
        ([{"name": "epoch", "tmin": 0, "tmax": 1}, {"name": "ica"}], "may have pick, reference"),
        (
            [{"name": "epoch", "tmin": 0, "tmax": 1}, {"name": "baseline"}, {"name": "detrend", "order": 1}],
            "which it would undo",
        ),
        ([{"name": "epoch", "tmin": 0, "tmax": 1}, {"name": "detrend", "order": 2}], "order of the step 'detrend'"),
        ([{"name": "epoch", "tmin": 0, "tmax": 1}, {"name": "baseline", "tmin": -0.2, "tmax": 0}], "0 s to 1 s"),
        ([{"name": "epoch", "tmin": 0, "tmax": 1}, {"name": "crop", "tmin": 2, "tmax": 3}], "keeps no sample"),
    ],
)
def test_a_wrong_step_is_named(steps: list[dict[str, Any]], message: str, channels: Any) -> None:
    with pytest.raises(InputError, match=message):
        open_chain({"steps": steps}, channels, 250.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_epoch_without_steps_is_a_copy(dtype: Any, rng: np.random.Generator) -> None:
    """The samples are a view of a ring, which is overwritten."""
    samples = rng.standard_normal((3, 20))[:, 2:14]
    epoch, reason = finished(samples, (), dtype)
    assert epoch is not None
    assert reason is None
    expected = samples.astype(dtype)
    assert epoch.dtype == dtype
    assert epoch.flags.c_contiguous
    np.testing.assert_array_equal(epoch, expected)
    samples[:] = 0
    np.testing.assert_array_equal(epoch, expected)
