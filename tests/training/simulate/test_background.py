"""Noise has the spectra and the places that its settings say."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

pytest.importorskip("mne")

from scipy import signal

from minddiffuser.training.simulate.background import BackgroundSettings, background, draw_background
from minddiffuser.training.simulate.eeg import CAPS, EEG, sensors
from minddiffuser.training.simulate.meg import MEG

SFREQ = 500.0
SILENT = replace(EEG.background, brain_nam=0, alpha_nam=0, blinks_per_minute=0, line=0, sensor=0)


def made(settings: BackgroundSettings, seconds: float = 200, n_channels: int = 17) -> tuple[np.ndarray, object]:
    drawn = draw_background(sensors(n_channels), settings, np.random.default_rng(1), np.random.default_rng(2))
    return background(drawn, int(seconds * SFREQ), SFREQ, np.random.default_rng(3)), drawn


def density(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return signal.welch(data, SFREQ, nperseg=int(4 * SFREQ))


def test_the_head_is_one_for_eeg_and_meg() -> None:
    """All settings of what comes from the head are the same; only what is the sensors' own differs."""
    names = {field.name for field in fields(BackgroundSettings)}
    differing = {name for name in names if getattr(EEG.background, name) != getattr(MEG.background, name)}
    assert differing == {"line_hz", "line", "sensor"}


def test_brain_noise_falls_as_one_over_f_and_is_as_strong_as_stated() -> None:
    data, drawn = made(replace(SILENT, brain_nam=5.0))
    frequencies, power = density(data)
    inside = (frequencies >= 2) & (frequencies <= 40)
    exponent = np.polyfit(np.log(frequencies[inside]), np.log(power[:, inside]).mean(axis=0), 1)[0]
    assert exponent == pytest.approx(-1, abs=0.05)
    band = (frequencies >= 1) & (frequencies <= 40)
    variance = np.trapezoid(power[:, band], frequencies[band], axis=1)
    # 200 s of 1 / f noise: the lowest hertz has some hundred independent values.
    np.testing.assert_allclose(variance, (drawn.brain**2).sum(axis=1), rtol=0.25)


def test_alpha_is_a_peak_behind() -> None:
    data, drawn = made(replace(SILENT, alpha_nam=10.0), n_channels=63)
    frequencies, power = density(data)
    assert frequencies[power.mean(axis=0).argmax()] == pytest.approx(10, abs=0.5)
    np.testing.assert_allclose(data.var(axis=1), (drawn.alpha**2).sum(axis=1), rtol=0.25)
    rms = dict(zip(CAPS[63], data.std(axis=1), strict=True))
    assert min(rms["O1"], rms["O2"]) > 3 * max(rms["Fp1"], rms["F3"])


def test_sensor_noise_is_white_with_its_density() -> None:
    data, _ = made(replace(SILENT, sensor=5e-8))
    frequencies, power = density(data)
    inside = (frequencies > 1) & (frequencies < 240)
    np.testing.assert_allclose(np.sqrt(power[:, inside].mean(axis=1)), 5e-8, rtol=0.02)
    np.testing.assert_allclose(np.sqrt(power[:, inside].mean(axis=0)), 5e-8, rtol=0.15)
    assert np.abs(np.corrcoef(data) - np.eye(len(data))).max() < 0.02


def test_mains_hum_at_their_frequency() -> None:
    data, drawn = made(replace(SILENT, line=2e-6, line_hz=60.0), seconds=10)
    spectrum = np.abs(np.fft.rfft(data, axis=1)) / data.shape[1] * 2
    assert (spectrum.argmax(axis=1) == 600).all()
    np.testing.assert_allclose(spectrum[:, 600], np.abs(drawn.line), rtol=1e-6)
    assert 1e-6 < np.median(np.abs(drawn.line)) < 4e-6


def test_blinks_are_frontal_positive_and_as_frequent_as_stated() -> None:
    data, _ = made(replace(SILENT, blinks_per_minute=30.0, blink_nam=EEG.background.blink_nam), n_channels=63)
    rows = {name: data[CAPS[63].index(name)] for name in ("Fp1", "Fp2", "Oz")}
    assert 20e-6 < rows["Fp1"].max() < 500e-6
    assert abs(rows["Fp1"].min()) < 0.01 * rows["Fp1"].max()
    at_height = dict(zip(CAPS[63], data[:, rows["Fp1"].argmax()], strict=True))
    assert all(name.startswith(("Fp", "AF")) for name in sorted(at_height, key=at_height.__getitem__)[-5:])
    # Far behind, all electrodes see alike what the reference in front sees.
    behind = [at_height[name] for name in ("O1", "Oz", "O2", "PO7", "PO8")]
    assert max(behind) < 0
    assert np.ptp(behind) < 0.1 * rows["Fp1"].max()
    # Around the 100 of a Poisson process; those that overlap count once.
    peaks, _ = signal.find_peaks(rows["Fp1"], height=0.5 * rows["Fp1"].max())
    assert 60 < len(peaks) < 150
