"""What a bundle is to hold, and how it is verified."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..runtime.bundle.manifest import DECODE, PRECISIONS
from ..runtime.environment import usable_cores
from ..runtime.errors import InputError, check_choice
from ..runtime.features import FEATURES
from .graphs import NETWORK_GRAPHS

SMALL_PICTURE_PX = 128


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What a bundle is to hold.

    Attributes
    ----------
    precisions : tuple of str
        Of every graph that takes it; "fp32" is always there, as the reference on any machine.
    graphs : tuple of str, or None
        None: all.
    n_verify, n_calibrate : int or None
        Trials that engines are verified and calibrated on; None: 4 of small pictures, 1 of large ones.
    graphs_from : Path or None
        A bundle whose graphs of networks are taken where it was made for the same models; see :mod:`.bundle.reuse`.
    keep_failed : Path or None
        A new folder for graphs that are out of tolerance, for inspection; never part of the bundle.

    Raises
    ------
    InputError
        An unknown name.
    """

    precisions: tuple[str, ...] = ("fp32",)
    graphs: tuple[str, ...] | None = None
    n_verify: int | None = None
    n_calibrate: int | None = None
    threads: int = field(default_factory=usable_cores)
    graphs_from: Path | None = None
    keep_failed: Path | None = None

    def __post_init__(self) -> None:
        for precision in self.precisions:
            check_choice("precision", precision, PRECISIONS)
        for graph in self.graphs or ():
            check_choice("graph", graph, (*NETWORK_GRAPHS, *(DECODE + feature for feature in FEATURES)))
        for name in ("n_verify", "n_calibrate"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InputError(f"{name} is {count}: give 1 or more trials")

    @property
    def all_precisions(self) -> tuple[str, ...]:
        return tuple(p for p in PRECISIONS if p == "fp32" or p in self.precisions)


def memory_for(image_size: int) -> str:
    """How sessions that run once are opened: layouts of their own pay only for small networks.

    Pictures of 35 steps are made with `fast` at any size: beside `denoise` alone there is room for it.
    """
    return "fast" if image_size <= SMALL_PICTURE_PX else "low"
