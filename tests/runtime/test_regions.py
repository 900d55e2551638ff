"""The sentence on the voxels that decoders use."""

from minddiffuser.runtime.regions import regions_note


def test_it_says_which_voxels_are_used_and_nothing_where_all_are() -> None:
    assert regions_note({}) == ()
    assert regions_note({"regions": "damaged"}) == ()
    (line,) = regions_note({"regions": {"rois": ["V1", "V2"], "without": ["fovea"], "n_voxels": 12}})
    assert line == "The decoders were fitted to 12 voxels, of V1, V2 without fovea: they use no others."
