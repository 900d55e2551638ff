"""A value per channel as a map of the head, drawn by MNE."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import ResponseLayout
from ...runtime.errors import InputError
from ...runtime.files import replacing

_OF_BRAIN = ("eeg", "mag", "grad")
_FEWEST = 4


def has_places(layout: ResponseLayout) -> bool:
    """Whether heads can be drawn: the positions of all channels of the brain are known, four or more."""
    places = [channel.position for channel in layout.channels or () if channel.type in _OF_BRAIN]
    return len(set(places)) >= _FEWEST and None not in places


def channel_info(layout: ResponseLayout) -> tuple[Any, list[list[int]]]:
    """MNE's description of the places where sensors are, and the channels of each.

    Three sensors of MEG may be in one place (two gradiometers and a magnetometer); they share a point of the map.

    Returns
    -------
    An Info, with a channel per place in the head's coordinates, and of each the numbers of its channels.

    Raises
    ------
    InputError
        A position is not known, or the responses have no channels.
    """
    import mne

    if layout.channels is None:
        raise InputError(f"responses of {layout.modality} have no channels: give EEG or MEG")
    places: dict[tuple[float, float, float], list[int]] = {}
    unknown = []
    for number, channel in enumerate(layout.channels):
        if channel.type not in _OF_BRAIN:
            continue
        if channel.position is None:
            unknown.append(channel.name)
        else:
            places.setdefault(channel.position, []).append(number)
    if unknown or len(places) < _FEWEST:
        what = f"the position of channel {unknown[0]} is" if unknown else "the positions of four sensors or more are"
        raise InputError(f"{what} not known, and a map of the head needs them: prepare the data with --montage")
    names = [layout.channels[numbers[0]].name for numbers in places.values()]
    kind = "eeg" if layout.modality == "eeg" else "mag"
    info = mne.create_info(names, layout.sfreq or 1.0, kind, verbose="error")
    if kind == "eeg":
        points = dict(zip(names, map(np.array, places), strict=True))
        info.set_montage(mne.channels.make_dig_montage(points, coord_frame="head"), verbose="error")
    else:
        for channel, place in zip(info["chs"], places, strict=True):
            channel["loc"][:3] = place
    return info, list(places.values())


def draw_maps(
    maps: Mapping[str, Sequence[tuple[str, NDArray[Any]]]], layout: ResponseLayout, path: Path, *, unit: str
) -> None:
    """Draw rows of maps of the head and write the picture.

    Parameters
    ----------
    maps
        Row -> its maps, each a title and (n_channels,) multiples of an even spread; a row shares one scale, white at 1.
    unit
        What the scale's numbers are.
    path
        What to write; the ending says in which format.

    Raises
    ------
    InputError
        See :func:`channel_info`.
    """
    import mne
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    info, members = channel_info(layout)
    n_columns = max(len(row) for row in maps.values())
    with rc_context({"font.size": 8, "svg.fonttype": "path", "svg.hashsalt": "minddiffuser"}):
        figure = Figure(figsize=(1.6 * n_columns + 1.0, 1.75 * len(maps)), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(maps), n_columns, squeeze=False)
        for axes, (name, row) in zip(grid, maps.items(), strict=True):
            apart = max(float(np.abs(np.asarray(values) - 1).max()) for _, values in row) or 1.0
            drawn: Any = None
            for ax, (title, values) in zip(axes, row, strict=False):
                drawn, _ = mne.viz.plot_topomap(
                    np.array([np.asarray(values, np.float64)[numbers].mean() for numbers in members]),
                    info,
                    axes=ax,
                    show=False,
                    cmap="RdBu_r",
                    vlim=(1 - apart, 1 + apart),
                    contours=0,
                    extrapolate="local",
                )
                ax.set_title(title, fontsize=8)
            for ax in axes[len(row) :]:
                ax.set_axis_off()
            axes[0].text(-0.12, 0.5, name, rotation=90, ha="right", va="center", transform=axes[0].transAxes)
            figure.colorbar(drawn, ax=list(axes), shrink=0.8, label=unit)
        metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        with replacing(path) as draft:
            figure.savefig(os.fspath(draft), format=path.suffix[1:], dpi=150, metadata=metadata)
