"""Each fault is found where it was made, and nowhere else."""

import numpy as np
import pytest

from minddiffuser.streaming.dashboard.quality import FAULTS, LIMITS, assess

SFREQ, N = 500.0, 1000
TIMES = np.arange(N) / SFREQ


def clean(rng: np.random.Generator, n_channels: int = 12, scale: float = 12e-6) -> np.ndarray:
    """Slow noise of a brain's strength, with an offset and a drift as a DC amplifier has them."""
    white = np.fft.rfft(rng.standard_normal((n_channels, N)), axis=1)
    data = np.fft.irfft(white / np.maximum(np.fft.rfftfreq(N, 1 / SFREQ), 1), N, axis=1)
    data *= scale / data.std(axis=1, keepdims=True)
    return (
        data
        + 1000 * scale * rng.standard_normal((n_channels, 1))
        + np.outer(rng.standard_normal(n_channels), TIMES) * 5 * scale
    )


def faults(
    data: np.ndarray, kind: str = "eeg", sfreq: float = SFREQ, line: float | None = None
) -> list[tuple[str, ...]]:
    return list(assess(data, [kind] * len(data), sfreq, line).faults)


@pytest.mark.parametrize(("kind", "scale"), [("eeg", 12e-6), ("mag", 4e-13), ("grad", 4e-11)])
def test_a_signal_as_it_should_be_has_none(rng: np.random.Generator, kind: str, scale: float) -> None:
    data = clean(rng, scale=scale)
    assert faults(data, kind) == [()] * len(data)
    found = assess(data, [kind] * len(data), SFREQ)
    trend = np.array([np.polyfit(TIMES, row, 1) for row in data])
    level = data - trend[:, :1] * TIMES - trend[:, 1:]
    # The mean of 1000 numbers 1000 times as large as their deviation loses six digits of sixteen.
    np.testing.assert_allclose(found.deviations, level.std(axis=1), rtol=1e-8)


def test_each_fault_by_name(rng: np.random.Generator) -> None:
    data = clean(rng)
    data[1] = 3e-3
    data[2] = 0.1e-6 * rng.standard_normal(N)
    data[3, 17] = np.nan
    data[4] = np.clip(data[4] * 200 - (data[4] * 200).mean(), -1e-3, 2e-3)
    data[5] += 40e-6 * np.sin(2 * np.pi * 50 * TIMES)
    data[6] += 90e-6 * rng.standard_normal(N)
    data[7] += 150e-6 * np.sin(2 * np.pi * 60 * TIMES + 1)
    found = faults(data)
    assert found[0] == ()
    assert found[1] == found[2] == ("flat",)
    assert found[3] == ("missing",)
    assert found[4][0] == "railed"
    assert found[5] == ("hum",)
    assert found[6] == ("noisy",)
    assert found[7] == ("hum", "noisy")
    assert found[8:] == [()] * 4
    assert all(list(names) == sorted(names, key=FAULTS.index) for names in found)


def test_the_share_of_hum_is_the_share_of_power(rng: np.random.Generator) -> None:
    """White noise of variance s^2 and a sine of amplitude a: a^2 / 2 of a^2 / 2 + s^2, less what lies below 1 Hz."""
    n = 20_000
    times = np.arange(n) / SFREQ
    data = 20e-6 * rng.standard_normal((2, n))
    data[1] += 40e-6 * np.sin(2 * np.pi * 50 * times)
    hum = assess(data, ["eeg"] * 2, SFREQ, 50.0).hum
    white = 4 / (SFREQ / 2)  # 49-51 and 99-101 Hz of 0-250
    expected = np.array([white, (0.5 * 40**2 + white * 20**2) / (0.5 * 40**2 + 20**2)])
    # Power of n / 2 independent frequencies: 1 % for all, 160 of them in the two bands: 8 %.
    np.testing.assert_allclose(hum, expected, rtol=0.25)
    np.testing.assert_allclose(hum[1], expected[1], atol=0.02)


def test_hum_at_a_rate_that_is_too_low_is_not_known(rng: np.random.Generator) -> None:
    data = clean(rng)
    assert np.isnan(assess(data, ["eeg"] * len(data), 100.0).hum).all()
    assert faults(data, sfreq=100.0) == [()] * len(data)


def test_only_the_given_line_is_looked_at(rng: np.random.Generator) -> None:
    data = clean(rng)
    data[0] += 60e-6 * np.sin(2 * np.pi * 60 * TIMES)
    assert faults(data, line=60.0)[0] == ("hum",)
    assert faults(data, line=50.0)[0] == ()


@pytest.mark.parametrize("step", [0.2e-6, 1e-6, 3e-6])
def test_coarse_steps_are_not_rails(rng: np.random.Generator, step: float) -> None:
    """A slow wave in coarse steps stays at its top for long, but as long one step below."""
    slow = 15e-6 * np.sin(2 * np.pi * 1.0 * TIMES)[None] + 0.0 * clean(rng, 1)
    data = np.round(np.vstack([slow, clean(rng, 4)]) / step) * step
    assert all("railed" not in names for names in faults(data))


def test_a_signal_at_either_end_of_the_range_is_railed(rng: np.random.Generator) -> None:
    wave = 300e-6 * np.sin(2 * np.pi * 3 * TIMES) + 2e-6 * rng.standard_normal(N)
    for limited in (np.minimum(wave, 200e-6), np.maximum(wave, -200e-6), np.clip(wave, -200e-6, 200e-6)):
        assert "railed" in faults(limited[None])[0]
    assert "railed" not in faults(wave[None])[0]


def test_noisy_is_measured_against_others_of_its_kind(rng: np.random.Generator) -> None:
    data = clean(rng, 6)
    data[0] = data[0].mean() + 6 * (data[0] - data[0].mean())
    assert assess(data, ["eeg"] * 6, SFREQ).faults[0] == ("noisy",)
    assert assess(data, ["eeg", "eog", "ecg", "misc", "emg", "eeg"], SFREQ).faults[0] == ()


def test_a_channel_without_limits_is_only_constant_or_missing(rng: np.random.Generator) -> None:
    data = np.vstack([1e-9 * rng.standard_normal(N), np.zeros(N), 1e6 * rng.standard_normal(N)])
    assert assess(data, ["misc"] * 3, SFREQ).faults == ((), ("flat",), ())


def test_limits_are_ordered() -> None:
    assert all(0 < limits.flat < limits.noisy for limits in LIMITS.values())
