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


def channel_info(layout: ResponseLayout) -> Any:
    """MNE's description of the channels, with their positions.

    Raises
    ------
    InputError
        A position is not known, or the responses have no channels.
    """
    import mne

    if layout.channels is None:
        raise InputError(f"responses of {layout.modality} have no channels: give EEG or MEG")
    unknown = [channel.name for channel in layout.channels if channel.position is None]
    if unknown:
        raise InputError(
            f"the position of channel {unknown[0]} is not known ({len(unknown)} of {len(layout.channels)}), and a map "
            "needs all: prepare the data with --montage"
        )
    kinds = [channel.type for channel in layout.channels]
    info = mne.create_info([channel.name for channel in layout.channels], layout.sfreq or 1.0, kinds, verbose="error")
    if "eeg" in kinds:
        places = {c.name: np.array(c.position) for c in layout.channels if c.type == "eeg"}
        info.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))
    for channel, one in zip(info["chs"], layout.channels, strict=True):
        if one.type != "eeg":
            channel["loc"][:3] = one.position
    return info


def draw_maps(
    maps: Mapping[str, Sequence[tuple[str, NDArray[Any]]]], layout: ResponseLayout, path: Path, *, unit: str
) -> None:
    """Draw rows of maps of the head and write the picture.

    Parameters
    ----------
    maps
        Row -> its maps, each a title and (n_channels,) values from 0 on; a row shares one scale.
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

    info = channel_info(layout)
    n_columns = max(len(row) for row in maps.values())
    with rc_context({"font.size": 8, "svg.fonttype": "path", "svg.hashsalt": "minddiffuser"}):
        figure = Figure(figsize=(1.6 * n_columns + 1.0, 1.75 * len(maps)), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(maps), n_columns, squeeze=False)
        for axes, (name, row) in zip(grid, maps.items(), strict=True):
            top = max(float(values.max()) for _, values in row) or 1.0
            drawn = None
            for ax, (title, values) in zip(axes, row, strict=False):
                drawn, _ = mne.viz.plot_topomap(
                    np.asarray(values, np.float64),
                    info,
                    axes=ax,
                    show=False,
                    cmap="inferno",
                    vlim=(0.0, top),
                    contours=0,
                )
                ax.set_title(title, fontsize=8)
            for ax in axes[len(row) :]:
                ax.set_axis_off()
            axes[0].set_ylabel(name)
            axes[0].text(-0.12, 0.5, name, rotation=90, ha="right", va="center", transform=axes[0].transAxes)
            figure.colorbar(drawn, ax=list(axes), shrink=0.8, label=unit)
        metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        with replacing(path) as draft:
            figure.savefig(os.fspath(draft), format=path.suffix[1:], dpi=150, metadata=metadata)
