"""Precision that lives in the graph: measured, decided by rules, and written in as Casts and quantised layers."""

from .emulate import emulate
from .exemption import Exemption
from .int8 import NothingToQuantise, Quantised, calibrated, dynamic, weights_only
from .probe import Range, probe
from .rules import decide
from .to_half import to_half

__all__ = [
    "Exemption",
    "NothingToQuantise",
    "Quantised",
    "Range",
    "calibrated",
    "to_half",
    "decide",
    "dynamic",
    "emulate",
    "probe",
    "weights_only",
]
