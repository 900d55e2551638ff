"""A simulated EEG subject in the paradigm of THINGS-EEG2 (Gifford et al. 2022)."""

from __future__ import annotations

from ...runtime.errors import InputError
from .background import BackgroundSettings
from .epochs import EpochSettings
from .recording import RecordingSettings
from .sensors import CAP, POSTERIOR, Sensors, eeg_sensors

CAPS: dict[int, tuple[str, ...]] = {17: POSTERIOR, 63: CAP}

# Pictures follow each other every 200 ms, twenty in a row. Mains of Berlin. An active electrode and its amplifier have
# less than 2 uV of noise from peak to peak up to 35 Hz (Brain Products, actiCAP): some 0.05 uV per root Hz.
EEG = RecordingSettings(
    recorded_hz=1000.0,
    train_repetitions=4,
    test_repetitions=80,
    soa_s=0.2,
    jitter_s=0.0,
    sequence=20,
    pause_s=1.0,
    target_share=0.02,
    sessions=4,
    run_s=120.0,
    background=BackgroundSettings(line_hz=50.0, line=2e-6, sensor=5e-8),
)

# One second from 200 ms before the picture, against the mean before it, as its authors have them.
EPOCHS = EpochSettings(sfreq=100.0, tmin=-0.2, length_s=1.0, baseline=(-0.2, 0.0))


def sensors(n_channels: int) -> Sensors:
    """The whole cap, 63 channels, or the 17 posterior ones that its authors decode from."""
    if n_channels not in CAPS:
        raise InputError(f"{n_channels} EEG channels requested: give 17, the posterior ones, or 63")
    return eeg_sensors(CAPS[n_channels])
