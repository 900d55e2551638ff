"""A fit to the voxels of some regions: the same as a fit to data that hold no others."""

from types import SimpleNamespace

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import ResponseLayout
from minddiffuser.runtime.errors import InputError
from minddiffuser.training.normalise import fit_normaliser
from minddiffuser.training.regions import OfRegions, Regions

LAYOUT = ResponseLayout(
    modality="fmri",
    shape=(10,),
    rois={"V1": (0, 4), "LO": (4, 8), "low": frozenset((0, 1, 2, 9)), "high": (3, 8)},
)


@pytest.mark.parametrize(
    ("chosen", "voxels"),
    [
        (Regions(rois=("V1",)), [0, 1, 2, 3]),
        (Regions(rois=("V1", "low")), [0, 1, 2, 3, 9]),
        (Regions(without=("V1",)), [4, 5, 6, 7, 8, 9]),
        (Regions(rois=("V1",), without=("low",)), [3]),
    ],
)
def test_which_voxels_are_used(chosen: Regions, voxels: list[int]) -> None:
    assert chosen.voxels(LAYOUT).tolist() == voxels
    assert chosen.describe(LAYOUT)["n_voxels"] == len(voxels)


def test_regions_keep_the_voxels_that_are_left() -> None:
    assert Regions(without=("low",)).rois_left(LAYOUT) == {"V1": (3, 4), "LO": (4, 8), "high": (3, 8)}
    assert Regions(without=("high",)).rois_left(LAYOUT) == {
        "V1": (0, 3),
        "low": frozenset((0, 1, 2, 9)),
    }


def test_other_voxels_do_not_vary_in_training_and_stay_as_they_are_elsewhere(rng: np.random.Generator) -> None:
    responses = rng.standard_normal((6, 10)).astype(np.float32)
    responses[2, 5] = np.nan  # outside: it has no part in the fit
    data = SimpleNamespace(layout=LAYOUT, responses=lambda _split: responses, subject="S1")
    chosen = OfRegions(data, Regions(rois=("V1",)))  # type: ignore[arg-type]
    normaliser = fit_normaliser(chosen.responses("train"))
    assert normaliser.constant.tolist() == [4, 5, 6, 7, 8, 9]
    np.testing.assert_allclose(normaliser.mean[:4], responses[:, :4].mean(axis=0), rtol=1e-5)
    assert chosen.responses("test") is responses
    assert chosen.subject == "S1"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (Regions(rois=("V9",)), "no roi V9: the data have V1, LO, low, high"),
        (Regions(rois=("V1",), without=("V1",)), "no voxel is left"),
    ],
)
def test_choices_that_leave_nothing(chosen: Regions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen.voxels(LAYOUT)


def test_responses_without_regions() -> None:
    with pytest.raises(InputError, match="no rois"):
        Regions(rois=("V1",)).voxels(ResponseLayout(modality="fmri", shape=(4,)))
    with pytest.raises(InputError, match="no region is named"):
        Regions()
