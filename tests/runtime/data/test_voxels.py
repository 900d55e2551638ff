"""Where voxels lie: what is taken and refused, from the data folder to the checkpoint's comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.destination import check_target
from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.data.layout import ResponseLayout
from minddiffuser.runtime.data.voxels import VOXELS, Voxels
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.files import write_tensors
from tests.small_data import write_small_data

IJK = np.array([[10, 20, 30], [10, 20, 31], [11, 20, 30], [0, 0, 0]])
AFFINE = np.array([[-1.8, 0, 0, 80], [0, 1.8, 0, -60], [0, 0, 1.8, -40], [0, 0, 0, 1]])
ROWS = np.random.default_rng(0).standard_normal((5, 4), dtype=np.float32)


def layout(voxels: Voxels | None) -> ResponseLayout:
    return ResponseLayout(modality="fmri", shape=(4,), rois={"V1": (0, 2)}, voxels=voxels)


@pytest.mark.parametrize("affine", [AFFINE, AFFINE.tolist(), None])
def test_a_data_folder_keeps_them(tmp_path: Path, affine: Any) -> None:
    given = Voxels(IJK.astype(np.uint16), affine)
    data = write_small_data(tmp_path / "data", ROWS, layout=layout(given))
    found = open_data(tmp_path / "data").layout.voxels
    assert found == given
    assert found is not None
    assert found.ijk.dtype == np.int32
    np.testing.assert_array_equal(found.ijk, IJK)
    if affine is not None:
        np.testing.assert_array_equal(found.affine, AFFINE)
    check_target(tmp_path / "data", replace=True)  # the file belongs to the folder
    moved = write_small_data(tmp_path / "moved", ROWS, layout=layout(Voxels(IJK[::-1], affine)))
    assert moved.data_hash != data.data_hash
    assert write_small_data(tmp_path / "none", ROWS, layout=layout(None)).layout.voxels is None


def test_equal() -> None:
    assert Voxels(IJK) == Voxels(IJK.copy())
    for other in (Voxels(IJK[::-1]), Voxels(IJK, AFFINE), IJK.tolist()):
        assert Voxels(IJK) != other
    assert Voxels(IJK, AFFINE) != Voxels(IJK, 2 * AFFINE - np.diag([0, 0, 0, 1]))


@pytest.mark.parametrize(
    ("ijk", "affine", "message"),
    [
        (IJK.astype(float), None, r"ijk is float64 \(4, 3\): give whole numbers"),
        (IJK[0], None, r"ijk is int64 \(3,\)"),
        (IJK[:, :2], None, r"ijk is int64 \(4, 2\)"),
        ([[1, 2, 3], [1, 2]], None, "ijk is"),
        (IJK - 1, None, "ijk holds -1: give indices into the volume, from 0"),
        (IJK * 10**9, None, "ijk holds 10000000000"),
        (IJK[[0, 1, 0]], None, r"ijk has \(10, 20, 30\) more than once"),
        (IJK, AFFINE[:3], r"affine is float64 \(3, 4\)"),
        (IJK, AFFINE * np.nan, "finite"),
        (IJK, AFFINE.T, "is it transposed"),
    ],
)
def test_what_cannot_be_is_refused(ijk: Any, affine: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Voxels(ijk, affine)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"affine": AFFINE}, "holds affine: give ijk"),
        ({"ijk": IJK, "size": IJK}, "holds ijk, size"),
        ({"ijk": IJK[:3]}, "the places of 3 voxels, and there are 4"),
        ({"ijk": IJK * 0}, "more than once"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    write_small_data(tmp_path / "data", ROWS)
    write_tensors(tmp_path / "data" / VOXELS, arrays)
    with pytest.raises(FileError, match=message):
        open_data(tmp_path / "data")


def test_voxels_elsewhere_are_refused_by_name_and_affines_are_not_compared() -> None:
    fitted = layout(Voxels(IJK, AFFINE))
    for same in (layout(None), layout(Voxels(IJK)), layout(Voxels(IJK, np.eye(4)))):
        fitted.require_same(same, "it")
    other = layout(Voxels(IJK[[0, 2, 1, 3]]))
    message = r"voxel 1 lies at ijk \(10, 20, 31\) there and \(11, 20, 30\) here \(and 1 more differ\)"
    with pytest.raises(InputError, match=message):
        fitted.require_same(other, "it")
    fewer = replace(fitted, shape=(3,), voxels=Voxels(IJK[:3]))
    with pytest.raises(InputError, match="fitted on 4 voxels, these have 3"):
        fitted.require_same(fewer, "it")
