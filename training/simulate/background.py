"""What EEG and MEG record beside the answers to pictures: other activity of the brain, blinks, mains, sensor noise.

Whatever comes from the head goes through the same forward model as the answers, with one setting for EEG and MEG. The
brain's other activity is that of a thousand dipoles all over the cortex, independent, with a power that falls as 1 / f,
and of sixteen in and above early visual cortex around 10 Hz, the alpha rhythm; both are Gaussian, so they are drawn as
the covariance that they have in the sensors. Blinks are dipoles at the eyes. Mains and sensor noise are the sensors'
own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .sensors import Sensors, gains
from .sources import Dipoles, draw_occipital, draw_scattered, eyes

F64 = NDArray[np.float64]

_N_SCATTERED, _N_OF_ALPHA = 1000, 16
# Below this, in Hz, the brain's power does not rise any more.
_FLAT_BELOW = 0.1
_BAND = (1.0, 40.0)
_BLINK_S = 0.3


@dataclass(frozen=True, kw_only=True)
class BackgroundSettings:
    """How strong everything is.

    Parameters
    ----------
    brain_nam : of each scattered dipole, root mean square from 1 to 40 Hz, nA m.
    alpha_nam : of each dipole of the alpha rhythm, root mean square, nA m.
    alpha_hz, alpha_width_hz : the rhythm's frequency, and the standard deviation of its peak.
    blink_nam : of each eye at a blink's height, nA m.
    blinks_per_minute : on average.
    line_hz : frequency of the mains.
    line : amplitude of its hum, the median sensor's, V or T.
    sensor : the sensors' own white noise, V or T per root Hz.
    """

    brain_nam: float = 4.0
    alpha_nam: float = 12.0
    alpha_hz: float = 10.0
    alpha_width_hz: float = 0.8
    blink_nam: float = 350.0
    blinks_per_minute: float = 6.0
    line_hz: float
    line: float
    sensor: float


@dataclass(frozen=True)
class Background:
    """All that, as it reaches one set of sensors: matrices with a row per channel.

    Parameters
    ----------
    settings : of the time courses.
    brain : (n_channels, n_channels), the root of the covariance of the scattered dipoles in the sensors, 1 to 40 Hz.
    alpha : (n_channels, n_of_alpha), of the alpha rhythm.
    blink : (n_channels,), a blink at its height.
    line : (n_channels,), complex, amplitude and phase of the mains.
    """

    settings: BackgroundSettings
    brain: F64
    alpha: F64
    blink: F64
    line: NDArray[np.complex128]


def draw_background(
    sensors: Sensors, settings: BackgroundSettings, brain_rng: np.random.Generator, sensor_rng: np.random.Generator
) -> Background:
    """Draw a subject's sources from `brain_rng`, whatever looks at them, and the sensors' own from `sensor_rng`."""
    scattered, of_alpha = draw_scattered(_N_SCATTERED, brain_rng), draw_occipital(_N_OF_ALPHA, brain_rng)
    of_brain = settings.brain_nam * 1e-9 * _gains(sensors, scattered)
    of_eyes = settings.blink_nam * 1e-9 * _gains(sensors, eyes())
    n = len(sensors.channels)
    amplitude = settings.line * np.exp(0.5 * sensor_rng.standard_normal(n))
    return Background(
        settings,
        brain=_root(of_brain @ of_brain.T),
        alpha=settings.alpha_nam * 1e-9 * _gains(sensors, of_alpha),
        blink=of_eyes.sum(axis=1),
        line=amplitude * np.exp(2j * np.pi * sensor_rng.random(n)),
    )


def background(made: Background, n_samples: int, sfreq: float, rng: np.random.Generator) -> F64:
    """One run of it, (n_channels, n_samples) float64 in V or T."""
    settings = made.settings
    frequencies: F64 = np.fft.rfftfreq(n_samples, 1 / sfreq).astype(np.float64)
    brain = power_law(frequencies)
    alpha = peak(frequencies, settings.alpha_hz, settings.alpha_width_hz)
    spectrum = _mixed(made.brain, brain, rng)
    spectrum += _mixed(made.alpha, alpha, rng)
    # Of a spectrum with a variance of 2 at every frequency, times the density: half of the rate, and irfft's 1 / n.
    data: F64 = np.fft.irfft(spectrum, n_samples, axis=1).astype(np.float64)
    data *= np.sqrt(n_samples * sfreq) / 2
    # White noise up to half of the sampling rate.
    white = rng.standard_normal((len(made.brain), n_samples), dtype=np.float32)
    data += np.float32(settings.sensor * np.sqrt(sfreq / 2)) * white
    phase = 2 * np.pi * (settings.line_hz * np.arange(n_samples) / sfreq + rng.random())
    data += made.line.view(np.float64).reshape(-1, 2) @ np.stack([np.cos(phase), -np.sin(phase)])
    n_blinks = rng.poisson(settings.blinks_per_minute / 60 * n_samples / sfreq)
    bump = np.hanning(round(_BLINK_S * sfreq))
    for start in rng.integers(max(1, n_samples - len(bump)), size=n_blinks):
        stop = min(n_samples, start + len(bump))
        data[:, start:stop] += made.blink[:, None] * bump[: stop - start]
    return data


def power_law(frequencies: F64) -> F64:
    """1 / f as a density per Hz, with a variance of 1 between 1 and 40 Hz; flat below 0.1 Hz, and no constant."""
    density: F64 = 1 / np.maximum(frequencies, _FLAT_BELOW) / np.log(_BAND[1] / _BAND[0])
    return density * (frequencies > 0)


def peak(frequencies: F64, middle: float, width: float) -> F64:
    """A Gaussian density per Hz with a variance of 1."""
    density: F64 = np.exp(-0.5 * ((frequencies - middle) / width) ** 2) / (np.sqrt(2 * np.pi) * width)
    return density


def _mixed(pattern: F64, density: F64, rng: np.random.Generator) -> NDArray[np.complex64]:
    """Spectra (n_channels, n_frequencies) of independent noise of this density behind a matrix (n_channels, n)."""
    drawn = rng.standard_normal((pattern.shape[1], len(density), 2), dtype=np.float32)
    drawn *= np.sqrt(density, dtype=np.float64).astype(np.float32)[:, None]
    mixed = pattern.astype(np.float32) @ drawn.reshape(len(drawn), -1)
    return mixed.view(np.complex64)


def _gains(sensors: Sensors, dipoles: Dipoles) -> F64:
    return gains(sensors, dipoles.positions, dipoles.directions)


def _root(covariance: F64) -> F64:
    values, vectors = np.linalg.eigh(covariance)
    root: F64 = vectors * np.sqrt(np.maximum(values, 0))
    return root
