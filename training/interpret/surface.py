"""A volume's values on the cortical surface, drawn by nilearn from both sides of both hemispheres."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import FileError, InputError, MissingExtra
from ...runtime.files import replacing

TEMPLATE = "fsaverage5"
# Share of the places around a vertex that must be voxels for it to have a value.
_LEAST = 0.1
_VIEWS = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))


def check_surface(surface: str) -> None:
    """Refuse a surface that could not be drawn on, before what is drawn is computed.

    Raises
    ------
    MissingExtra
        There is no nilearn.
    InputError
        It is neither the template nor two files.
    FileError
        One of the two is missing.
    """
    _nilearn()
    if surface != TEMPLATE:
        for path in _two(surface):
            if not path.is_file():
                raise FileError(f"the surface {path} does not exist: give a GIFTI or FreeSurfer file, such as lh.pial")


def draw_surface(image: Any, surface: str, path: Path, *, title: str) -> None:
    """Draw a volume on a surface, and write the picture.

    Parameters
    ----------
    image
        A nibabel image, in the space of the surface.
    surface
        "fsaverage5", for volumes in MNI space; or "LEFT,RIGHT", two files (GIFTI, FreeSurfer) in the volume's own
        space, such as a subject's lh.pial and rh.pial.
    path
        What to write; the ending says in which format.

    Raises
    ------
    As :func:`check_surface`; InputError where nothing of the volume lies near the surface.
    """
    check_surface(surface)
    from nilearn.plotting import plot_surf_stat_map

    meshes = _meshes(surface)
    textures = {side: vertex_values(image, mesh) for side, mesh in meshes.items()}
    there = np.concatenate([values[np.isfinite(values)] for values in textures.values()])
    if not there.size:
        raise InputError(
            f"no voxel lies on the surface {surface}: volume and surface are in different spaces. {TEMPLATE} is for "
            "MNI space; of a subject's own volume give its own surfaces, LEFT,RIGHT"
        )
    top = float(np.quantile(there, 0.98))
    with _figure(path) as figure:
        for number, (side, view) in enumerate(_VIEWS):
            ax = figure.add_subplot(2, 2, number + 1, projection="3d")
            plot_surf_stat_map(
                meshes[side],
                textures[side],
                hemi=side,
                view=view,
                axes=ax,
                figure=figure,
                cmap="inferno",
                vmin=0.0,
                vmax=top or 1.0,
                symmetric_cbar=False,
                colorbar=number == len(_VIEWS) - 1,
                engine="matplotlib",
            )
            ax.set_title(f"{side}, {view}", fontsize=9)
        figure.suptitle(title, fontsize=11)


def vertex_values(image: Any, mesh: Any) -> NDArray[np.float64]:
    """The mean of the voxels around each vertex, (n_vertices,); NaN where fewer than a tenth of the places are voxels.

    Parameters
    ----------
    image
        A nibabel image, NaN where there is no voxel: interpolated as it is, those would spread to their neighbours. So
        values and their weights are interpolated apart, with 0 for both in such places, and divided.
    mesh
        What nilearn takes: a file, or its own mesh.
    """
    from nibabel import Nifti1Image
    from nilearn.surface import vol_to_surf

    data = np.asarray(image.dataobj, np.float64)
    there = np.isfinite(data)
    image_of: Any = Nifti1Image
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)  # vertices outside of the volume
        total, weight = (
            np.asarray(vol_to_surf(image_of(part, image.affine), mesh), np.float64)
            for part in (np.where(there, data, 0.0), there.astype(np.float64))
        )
    enough = np.nan_to_num(weight) >= _LEAST
    means: NDArray[np.float64] = np.divide(total, weight, out=np.full(len(total), np.nan), where=enough)
    return means


def _two(surface: str) -> tuple[Path, Path]:
    left, comma, right = surface.partition(",")
    if not comma or not left or not right or "," in right:
        raise InputError(
            f"the surface is {surface!r}: give {TEMPLATE}, or LEFT,RIGHT, two files such as lh.pial,rh.pial"
        )
    return Path(left), Path(right)


def _meshes(surface: str) -> dict[str, Any]:
    if surface == TEMPLATE:
        from nilearn.datasets import load_fsaverage

        mesh = load_fsaverage(TEMPLATE)["pial"]
        return {side: mesh.parts[side] for side in ("left", "right")}
    return {side: str(path) for side, path in zip(("left", "right"), _two(surface), strict=True)}


def _nilearn() -> None:
    try:
        import nilearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("maps on the cortical surface need nilearn: pip install 'minddiffuser[figures]'") from error


@contextmanager
def _figure(path: Path) -> Iterator[Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6.4))
    FigureCanvasAgg(figure)
    yield figure
    with replacing(path) as draft:
        figure.savefig(os.fspath(draft), format=path.suffix[1:], dpi=130)
