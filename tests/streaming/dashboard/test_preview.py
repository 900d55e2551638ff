"""Columns are the lowest and highest values of their samples, however the samples come; gaps are left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.streaming.dashboard.messages import Message, Quality, Signal
from minddiffuser.streaming.dashboard.preview import Preview

CHANNELS = tuple(
    Channel(name=name, type=kind) for name, kind in (("Cz", "eeg"), ("M1", "mag"), ("G1", "grad"), ("S", "misc"))
)
SCALES = np.array([[1e6], [1e15], [1e13], [1.0]])  # µV, fT, fT/cm, as it is
SFREQ = 500.0
PER_COLUMN = 5


def signals(messages: list[Message]) -> list[Signal]:
    return [message for message in messages if isinstance(message, Signal)]


def shown(messages: list[Message]) -> tuple[np.ndarray, np.ndarray]:
    """Lows and highs of all columns, (n_channels, n), NaN where a column was left out."""
    parts = signals(messages)
    n = max(part.first + part.lows.shape[1] for part in parts)
    lows, highs = np.full((2, len(CHANNELS), n), np.nan, np.float32)
    for part in parts:
        where = slice(part.first, part.first + part.lows.shape[1])
        assert np.isnan(lows[:, where]).all(), "no column is shown twice"
        lows[:, where], highs[:, where] = part.lows, part.highs
    return lows, highs


def test_units_are_those_of_people() -> None:
    montage = Preview(CHANNELS, SFREQ).montage()
    assert montage.units == ("µV", "fT", "fT/cm", "")
    assert montage.names == ("Cz", "M1", "G1", "S")
    assert montage.places == (None,) * 4


def test_columns_are_lowest_and_highest(rng: np.random.Generator) -> None:
    data = rng.standard_normal((4, 200)) / SCALES
    lows, highs = shown(Preview(CHANNELS, SFREQ).add(np.arange(200) / SFREQ, data))
    blocks = (data * SCALES).reshape(4, 40, PER_COLUMN)
    # One rounding each to a factor of units and to float32.
    np.testing.assert_allclose(lows, blocks.min(axis=2), rtol=1e-6)
    np.testing.assert_allclose(highs, blocks.max(axis=2), rtol=1e-6)


@given(cuts=st.lists(st.integers(0, 700), max_size=25).map(sorted), gap=st.sampled_from([None, 333]))
def test_how_samples_come_changes_nothing_that_is_shown(cuts: list[int], gap: int | None) -> None:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((4, 700))
    times = np.arange(700) / SFREQ
    if gap is not None:
        times[gap:] += 0.2
    whole = Preview(CHANNELS, SFREQ)
    expected = shown(whole.add(times, data))
    preview = Preview(CHANNELS, SFREQ)
    edges = [0, *cuts, 700]
    messages: list[Message] = []
    for start, stop in zip(edges, edges[1:], strict=False):
        messages += preview.add(times[start:stop], data[:, start:stop])
    messages += preview._signal(everything=True)
    whole_columns = expected[0].shape[1]
    for got, wanted in zip(shown(messages), expected, strict=True):
        np.testing.assert_array_equal(got[:, :whole_columns], wanted)


def test_a_gap_is_as_wide_as_the_time_that_is_missing(rng: np.random.Generator) -> None:
    preview = Preview(CHANNELS, SFREQ)
    messages = preview.add(np.arange(250) / SFREQ, rng.standard_normal((4, 250)))
    messages += preview.add(0.5 + 0.3 + np.arange(250) / SFREQ, rng.standard_normal((4, 250)))
    lows, _ = shown(messages)
    missing = np.isnan(lows[0])
    assert missing.sum() == pytest.approx(0.3 * SFREQ / PER_COLUMN, abs=1)
    assert not missing[:50].any()
    assert not missing[50 + 31 :].any()
    after = signals(messages)[-1]
    assert after.at == pytest.approx(0.8)
    assert after.column == PER_COLUMN / SFREQ


def test_a_clock_that_jumps_back_begins_anew_and_nothing_is_shown_twice(rng: np.random.Generator) -> None:
    preview = Preview(CHANNELS, SFREQ)
    messages = preview.add(5 + np.arange(100) / SFREQ, rng.standard_normal((4, 100)))
    messages += preview.add(1 + np.arange(100) / SFREQ, rng.standard_normal((4, 100)))
    assert shown(messages)[0].shape[1] in (40, 41)
    assert signals(messages)[-1].at == 1.0


def test_jitter_is_no_gap(rng: np.random.Generator) -> None:
    times = np.arange(500) / SFREQ + 0.004 * rng.random(500)
    lows, _ = shown(Preview(CHANNELS, SFREQ).add(times, rng.standard_normal((4, 500))))
    assert not np.isnan(lows).any()


def test_slow_signals_have_two_samples_a_column() -> None:
    preview = Preview(CHANNELS, 100.0)
    (message,) = signals(preview.add(np.arange(20) / 100, np.zeros((4, 20))))
    assert (message.column, message.lows.shape) == (0.02, (4, 10))


def test_quality_is_said_each_second_in_the_shown_units(rng: np.random.Generator) -> None:
    preview = Preview(
        CHANNELS, SFREQ, factors=[1e-6, 1e-15, 1e-13, 1.0]
    )  # microvolts and so on, as a source gives them
    data = rng.standard_normal((4, 2000)) * np.array([[20.0], [300.0], [300.0], [1.0]])
    data[0] = 0
    messages: list[Message] = []
    for start in range(0, 2000, 50):
        messages += preview.add((start + np.arange(50)) / SFREQ, data[:, start : start + 50])
    said = [message for message in messages if isinstance(message, Quality)]
    assert [message.window for message in said] == [1.0, 2.0, 2.0, 2.0]
    assert said[-1].faults[0] == ("flat",)
    assert said[-1].faults[1:] == ((), (), ())
    # Standard deviation of 1000 normal numbers: 2.2 % to one sigma.
    assert said[-1].deviations[1:3] == pytest.approx([300, 300], rel=0.12)


def test_a_gap_is_no_part_of_the_quality(rng: np.random.Generator) -> None:
    preview = Preview(CHANNELS, SFREQ)
    preview.add(np.arange(400) / SFREQ, np.full((4, 400), np.nan))
    messages = preview.add(3 + np.arange(500) / SFREQ, rng.standard_normal((4, 500)) / SCALES * 20)
    (said,) = [message for message in messages if isinstance(message, Quality)]
    assert said.window == 1.0
    assert not any("missing" in names for names in said.faults)


def test_nothing_in_nothing_out() -> None:
    assert Preview(CHANNELS, SFREQ).add(np.zeros(0), np.zeros((4, 0))) == []
