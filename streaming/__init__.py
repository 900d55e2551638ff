"""Live EEG and MEG: from the amplifier to the picture."""
