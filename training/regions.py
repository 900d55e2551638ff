"""A fit to the voxels of some regions: what lies outside does not vary, and so has no part in anything.

The checkpoint keeps the layout of the whole responses, so that it takes the same data folder, and its decoders' indices
are voxels of the whole brain; a run needs to know nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.data.layout import ResponseLayout, Roi, Rois, voxels_of
from ..runtime.errors import InputError
from .datasets.base import Data


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The voxels that decoders may use.

    Attributes
    ----------
    rois
        Regions or groups of them by name, all of whose voxels are taken; none: every voxel.
    without
        Regions or groups whose voxels are left out again.
    """

    rois: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rois and not self.without:
            raise InputError("no region is named: give names of rois to fit to, or to leave out")

    def voxels(self, layout: ResponseLayout) -> NDArray[np.intp]:
        """The voxels of a layout, (n,) in ascending order.

        Raises
        ------
        InputError
            The responses have no regions, or none of a name, or no voxel is left.
        """
        if layout.rois is None:
            what = f"are {layout.modality}" if layout.modality != "fmri" else "have no rois"
            raise InputError(
                f"--rois and --without-rois choose voxels by region, and these responses {what}: leave the options out"
            )
        unknown = [name for name in (*self.rois, *self.without) if name not in layout.rois]
        if unknown:
            raise InputError(f"there is no roi {', '.join(unknown)}: the data have {', '.join(layout.rois)}")
        kept = np.full(layout.n_features, not self.rois)
        for names, value in ((self.rois, True), (self.without, False)):
            for name in names:
                kept[voxels_of(layout.rois[name])] = value
        if not kept.any():
            raise InputError(f"no voxel is left of {', '.join(self.rois) or 'all'} without {', '.join(self.without)}")
        return np.flatnonzero(kept)

    def describe(self, layout: ResponseLayout) -> dict[str, Any]:
        """What was chosen, as JSON."""
        return {"rois": list(self.rois), "without": list(self.without), "n_voxels": len(self.voxels(layout))}

    def rois_left(self, layout: ResponseLayout) -> Rois:
        """The regions of a layout that have voxels left, each with those alone."""
        kept = set(self.voxels(layout).tolist())
        left = {name: kept.intersection(voxels_of(roi).tolist()) for name, roi in (layout.rois or {}).items()}
        return {name: _roi(voxels) for name, voxels in left.items() if voxels}


class OfRegions:
    """A data set whose training responses are 0 outside of some regions; other splits are as they are.

    Parameters
    ----------
    data : Data
    regions : Regions
    """

    def __init__(self, data: Data, regions: Regions) -> None:
        self._data = data
        voxels, given = regions.voxels(data.layout), data.responses("train")
        self._responses = np.zeros(given.shape, np.float32)
        self._responses[:, voxels] = given[:, voxels]
        data.responses("train")  # which looks whether the data were changed meanwhile, where the data set does so

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def responses(self, split: str) -> NDArray[np.float32]:
        return self._responses if split == "train" else self._data.responses(split)


def _roi(voxels: set[int]) -> Roi:
    start, stop = min(voxels), max(voxels) + 1
    return (start, stop) if len(voxels) == stop - start else frozenset(voxels)
