"""Which rows of a source the decoder needs, and what turns its numbers into V and T."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import Channel
from ...runtime.errors import InputError, shown
from ...runtime.signal.fields import listed
from ...runtime.signal.units import given_unit, unit_size
from ..records import SignalInfo

_SAME_RATE = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Picked:
    """The rows (n_channels,) of a source in the decoder's order, and the size of each one's unit in V or T."""

    rows: NDArray[np.intp]
    sizes: NDArray[np.float64]
    n_rows: int

    def __call__(self, data: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n_rows, n) as they came -> (n_channels, n) in V or T."""
        return data[self.rows] * self.sizes[:, None]


def pick(info: SignalInfo, wanted: Sequence[Channel], sfreq: float, unit: str | None) -> Picked:
    """Find the channels by name; others are left out.

    Parameters
    ----------
    info
        The source's description.
    wanted
        The channels that the chain starts with.
    sfreq
        The rate that it was opened for.
    unit
        Of every channel, instead of the declared ones.

    Raises
    ------
    InputError
        A channel is missing or there twice, its unit is not known, or the rate is another one.
    """
    names = [channel.name for channel in info.channels]
    missing = [channel.name for channel in wanted if channel.name not in names]
    if missing:
        close = {name.lower(): name for name in names}
        near = [close[name.lower()] for name in missing if name.lower() in close]
        hint = f"; it has {listed(near)}, in other letters" if near else ""
        raise InputError(
            f"the source {shown(info.name)} lacks {listed(missing)} of the decoder's {len(wanted)} channels (it has "
            f"{listed(names)}){hint}: give the channels the names that they had in training"
        )
    twice = [channel.name for channel in wanted if names.count(channel.name) > 1]
    if twice:
        raise InputError(f"the source {shown(info.name)} has two channels {shown(twice[0])}: name them apart")
    if abs(info.sfreq / sfreq - 1) > _SAME_RATE:
        raise InputError(
            f"the source {shown(info.name)} has {info.sfreq:g} samples a second, and the chain was opened for "
            f"{sfreq:g}: set the amplifier to {sfreq:g} Hz"
        )
    rows = [names.index(channel.name) for channel in wanted]
    given = None if unit is None else given_unit(unit)
    sizes = [_size(info, row, channel, given) for row, channel in zip(rows, wanted, strict=True)]
    return Picked(rows=np.array(rows, np.intp), sizes=np.array(sizes), n_rows=len(names))


def _size(info: SignalInfo, row: int, channel: Channel, given: float | None) -> float:
    if given is not None:
        return given
    declared = info.units[row] if row < len(info.units) else ""
    size = unit_size(declared) if declared else None
    if size is None and channel.type == "misc":
        return 1.0
    if size is None:
        what = f"the unit {shown(declared)}, which is unknown" if declared else "no unit"
        raise InputError(
            f"channel {channel.name} of the source {shown(info.name)} declares {what}: say it with --unit, such as "
            "--unit uV"
        )
    return size
