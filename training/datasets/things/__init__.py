"""THINGS-EEG2 and THINGS-MEG: their files, whether raw or prepared by others."""
