"""A simulated MEG subject in the paradigm of THINGS-MEG (Hebart et al. 2023)."""

from __future__ import annotations

from .background import BackgroundSettings
from .epochs import EpochSettings
from .recording import RecordingSettings

# A picture every 1.5 s, give or take 0.2 s. Mains of Bethesda; what synthetic gradients leave of their hum. CTF states
# a noise of 5 fT per root Hz.
MEG = RecordingSettings(
    recorded_hz=1200.0,
    train_repetitions=1,
    test_repetitions=12,
    soa_s=1.5,
    jitter_s=0.2,
    sequence=40,
    pause_s=0.0,
    target_share=0.02,
    sessions=12,
    run_s=60.0,
    background=BackgroundSettings(line_hz=60.0, line=2e-14, sensor=5e-15),
)
# The second after the picture, its end included: 201 samples, as decoders of THINGS-MEG have them.
EPOCHS = EpochSettings(sfreq=200.0, tmin=0.0, length_s=1.0, baseline=(-0.1, 0.0), with_end=True)
