"""Regions of the voxel axis: what is read, and which difference is named."""

import pytest

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.rois import compare_rois, stored_rois

FITTED = {"V1": (0, 10), "V2": (10, 18), "LO": (18, 24)}


def test_the_same_regions_pass_however_they_are_listed() -> None:
    assert compare_rois(FITTED, dict(reversed(FITTED.items())), "it") is None
    assert compare_rois(FITTED, None, "it") is None
    told = compare_rois(None, FITTED, "the checkpoint c")
    assert told is not None
    assert told.startswith("the checkpoint c keeps no rois")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"LO": (0, 6), "V2": (6, 14), "V1": (14, 24)},
            "voxels 0 to 10 are 'V1' there, and 0 to 6 are 'LO' in the data",
        ),
        ({"V2": (0, 10), "V1": (10, 18), "LO": (18, 24)}, "0 to 10 are 'V1' there, and 0 to 10 are 'V2'"),
        ({"V1": (0, 12), "V2": (12, 18), "LO": (18, 24)}, "0 to 10 are 'V1' there, and 0 to 12 are 'V1'"),
        ({"V1": (0, 10), "V2": (10, 18), "MT": (18, 24)}, "18 to 24 are 'LO' there, and 18 to 24 are 'MT'"),
        ({"V1": (0, 10), "V2": (10, 18)}, "fitted on 3 rois .*'V1, V2, LO'.* has 2 .*'V1, V2'"),
    ],
)
def test_the_first_difference_is_named(given: dict[str, tuple[int, int]], told: str) -> None:
    with pytest.raises(InputError, match=told):
        compare_rois(FITTED, given, "it")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        "V1",
        {"V1": 3},
        {"V1": [0, 4, 8]},
        {"V1": ["0", 24]},
        {"V1": [0, True]},
        {"V1": [0, 23]},
        {"V1": [1, 24]},
        {"": [0, 24]},
        {"V1": [0, 12], "V2": [11, 24]},
        {"V1": [0, 12], "V2": [13, 24]},
        {"V1": [12, 0], "V2": [12, 24]},
        {"V1": [-1, 24]},
        {"V1": [0, 24.0]},
        {"V1": [0, None]},
    ],
)
def test_regions_that_do_not_tile_the_voxels_are_one_sentence(content: object) -> None:
    with pytest.raises(FileError, match=r"here: field 'rois' is .*, expected an object of names"):
        stored_rois(content, 24, "here")


def test_regions_are_read_in_the_order_of_their_voxels() -> None:
    read = stored_rois({"V2": [10, 24], "V1": [0, 10]}, 24, "here")
    assert list((read or {}).items()) == [("V1", (0, 10)), ("V2", (10, 24))]
    assert stored_rois(None, 24, "here") is None
