"""Precision that lives in the graph: measured, decided by rules, and written in as Casts and quantised layers."""

from .emulate import emulate
from .exemption import Exemption
from .int8 import CalibrationSettings, NothingToQuantise, Quantised, calibrated, dynamic, weights_only
from .probe import Range, probe
from .rules import decide
from .to_half import convert

__all__ = [
    "CalibrationSettings",
    "Exemption",
    "NothingToQuantise",
    "Quantised",
    "Range",
    "calibrated",
    "convert",
    "decide",
    "dynamic",
    "emulate",
    "probe",
    "weights_only",
]
