"""Which voxels are read, where they lie, and in which regions: NSD's masks and atlases by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.layout import ResponseLayout
from ....runtime.data.voxels import Voxels
from ....runtime.errors import FileError
from ...simulate.fmri import GROUPS
from ..foreign import looks_like
from .files import Subject
from .volumes import read_volume

MASKS = ("nsdgeneral",)
ATLASES = ("Kastner2015", "prf-visualrois", "streams")
# The paper's areas, each of several regions of an atlas. As in the preparation that it used (styvesg/nsd), the areas
# are Kastner2015's, and where a subject's own retinotopy (prf-visualrois) says something, that counts.
AREAS: dict[str, tuple[str, ...]] = {
    "V1": ("V1v", "V1d"),
    "V2": ("V2v", "V2d"),
    "V3": ("V3v", "V3d"),
    "hV4": ("hV4",),
    "VO": ("VO1", "VO2"),
    "PHC": ("PHC1", "PHC2"),
    "MST": ("MST", "TO2"),
    "MT": ("hMT", "MT", "TO1"),
    "LO": ("LO1", "LO2"),
    "V3ab": ("V3a", "V3b"),
    "IPS": ("IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5"),
}
_OVERLAID = ("Kastner2015", "prf-visualrois")
_OUTSIDE = ("Unknown", "unknown", "???", "Medial_wall")


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """The voxels that are read.

    Attributes
    ----------
    shape : (X, Y, Z) of the volumes.
    ijk : (n_voxels, 3), ascending, the last index fastest: the order of ``betas[mask > 0]``.
    affine : (4, 4).
    """

    shape: tuple[int, int, int]
    ijk: NDArray[np.int64]
    affine: NDArray[np.float64]


def read_mask(subject: Subject, names: Sequence[str], files: dict[Path, str]) -> Mask:
    """The voxels in any of some masks, or in any region of an atlas: where a volume is above 0.

    Parameters
    ----------
    files : receives what was read.

    Raises
    ------
    FileError
        A mask is missing or damaged, of another shape than the first one, or empty.
    """
    inside, affine = _volume(subject, names[0], files)
    inside = inside > 0
    for name in names[1:]:
        inside = inside | (_same_space(_volume(subject, name, files)[0], inside, subject, name) > 0)
    ijk = np.argwhere(inside)
    if not len(ijk):
        raise FileError(f"the mask {' and '.join(names)} of {subject.name} has no voxel above 0: give another --mask")
    return Mask(shape=inside.shape, ijk=ijk, affine=affine)


def read_rois(
    subject: Subject, atlases: Sequence[str], mask: Mask, files: dict[Path, str], *, required: bool
) -> dict[str, frozenset[int]]:
    """Regions by name, each the voxels of the mask in it; empty ones are left out.

    The paper's areas and the groups LVC and HVC come from Kastner2015 and prf-visualrois, the regions of other
    atlases are named as these name them, after the atlas where the name is taken.

    Parameters
    ----------
    required : whether an atlas that is missing is refused, or left out.

    Raises
    ------
    FileError
        An atlas, or the names of its regions, is missing, damaged, or of another space.
    """
    rois = _areas(subject, [name for name in _OVERLAID if name in atlases], mask, files, required=required)
    for name in (name for name in atlases if name not in _OVERLAID):
        for region, voxels in _regions(subject, name, mask, files, required=required).items():
            rois[f"{name} {region}" if region in rois else region] = voxels
    return rois


def _areas(
    subject: Subject, atlases: Sequence[str], mask: Mask, files: dict[Path, str], *, required: bool
) -> dict[str, frozenset[int]]:
    """The paper's areas and their groups, from atlases of which a later one counts before an earlier one."""
    area_of = {region: area for area, regions in AREAS.items() for region in regions}
    whose: dict[int, str] = {}
    for name in atlases:
        for region, voxels in _regions(subject, name, mask, files, required=required).items():
            whose |= dict.fromkeys(voxels, area_of.get(region, ""))
    found = {area: frozenset(voxel for voxel, other in whose.items() if other == area) for area in AREAS}
    groups = {group: frozenset().union(*(found[area] for area in areas)) for group, areas in GROUPS.items()}
    return {name: voxels for name, voxels in {**found, **groups}.items() if voxels}


def _regions(
    subject: Subject, name: str, mask: Mask, files: dict[Path, str], *, required: bool
) -> dict[str, frozenset[int]]:
    """The regions of one atlas that have voxels in the mask."""
    if not required and not (subject.roi_folder / f"{name}.nii.gz").is_file():
        return {}
    values = _same_space(_volume(subject, name, files)[0], mask, subject, name)[tuple(mask.ijk.T)]
    labels = _labels(subject.label_file(name), files)
    found = {region: frozenset(np.flatnonzero(values == value).tolist()) for value, region in labels.items()}
    return {region: voxels for region, voxels in found.items() if voxels}


def layout_of(mask: Mask, rois: Mapping[str, frozenset[int]], unit: str) -> ResponseLayout:
    """The layout of responses of these voxels."""
    return ResponseLayout(
        modality="fmri",
        shape=(len(mask.ijk),),
        rois=rois or None,
        voxels=Voxels(mask.ijk.astype(np.int32), mask.affine),
        unit=unit,
    )


def _volume(subject: Subject, name: str, files: dict[Path, str]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    path = subject.roi_folder / f"{name}.nii.gz"
    if not path.is_file():
        there = sorted(p.name.removesuffix(".nii.gz") for p in subject.roi_folder.glob("*.nii.gz"))
        have = f"it holds {', '.join(there[:12])}" if there else "copy the folder roi of NSD's bucket"
        raise FileError(f"{name} is missing from {subject.roi_folder}: {have}")
    files[path] = f"mask or atlas {name}"
    return read_volume(path, f"the mask {name}")


def _same_space(volume: NDArray[Any], like: Mask | NDArray[Any], subject: Subject, name: str) -> NDArray[Any]:
    if volume.shape != like.shape:
        raise FileError(
            f"{name} in {subject.roi_folder} is {volume.shape} and the mask {like.shape}: one of them is of another "
            "space or subject, copy both again"
        )
    return volume


def _labels(path: Path, files: dict[Path, str]) -> dict[int, str]:
    """The regions of an atlas by their value: lines such as "1 V1v 255 0 0 0"."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        labels = {int(words[0]): words[1] for words in (line.split() for line in lines) if len(words) >= 2}
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path} is {looks_like(path)}, expected a table of values and names of regions, such as '1 V1v': copy it "
            "again"
        ) from error
    files[path] = "names of regions"
    return {value: name for value, name in labels.items() if value > 0 and name not in _OUTSIDE}
