"""Maps: volumes read back by nibabel, heads and surfaces drawn by MNE and nilearn."""

from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.data.voxels import Voxels
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.images import read_image
from minddiffuser.training.interpret.surface import check_surface, draw_surface
from minddiffuser.training.interpret.topography import channel_info, draw_maps
from minddiffuser.training.interpret.volumes import volume, write_volume

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


def test_a_volume_has_each_value_at_its_voxel(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    ijk = np.array([[1, 2, 3], [0, 0, 0], [4, 1, 2]])
    write_volume(tmp_path / "map.nii.gz", np.array([1.5, 2.5, 3.5]), Voxels(ijk, AFFINE))
    image = nibabel.load(tmp_path / "map.nii.gz")
    data = image.get_fdata()
    assert data.shape == (5, 3, 4)
    assert [data[tuple(place)] for place in ijk] == [1.5, 2.5, 3.5]
    assert np.isfinite(data).sum() == 3
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert [path.name for path in tmp_path.iterdir()] == ["map.nii.gz"]


@pytest.mark.parametrize("voxels", [None, Voxels(np.zeros((1, 3), int))])
def test_voxels_without_a_place_have_no_map(voxels: Voxels | None) -> None:
    pytest.importorskip("nibabel")
    with pytest.raises(InputError, match="where the voxels lie"):
        volume(np.ones(1), voxels)


def sensors(kind: str) -> ResponseLayout:
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    places = [(0.07 * np.cos(a), 0.07 * np.sin(a), 0.05) for a in angles] + [(0.0, 0.0, 0.09)]
    channels = tuple(
        Channel(name=f"C{n}", type=kind, position=(float(x), float(y), float(z))) for n, (x, y, z) in enumerate(places)
    )
    unit, modality = ("V", "eeg") if kind == "eeg" else ("T", "meg")
    return ResponseLayout(modality=modality, shape=(9, 4), channels=channels, sfreq=100.0, tmin=0.0, unit=unit)


@pytest.mark.parametrize("kind", ["eeg", "mag"])
def test_a_head_is_drawn_with_the_channels_in_their_places(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("mne")
    pytest.importorskip("matplotlib")
    layout = sensors(kind)
    info = channel_info(layout)
    for channel, one in zip(info["chs"], layout.channels or (), strict=True):
        np.testing.assert_allclose(channel["loc"][:3], one.position)
    draw_maps(
        {"a": [("0 ms", np.arange(9.0)), ("9 ms", np.ones(9))], "b": [("0 ms", np.zeros(9))]},
        layout,
        tmp_path / "heads.png",
        unit="times the mean",
    )
    image = read_image(tmp_path / "heads.png")
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100


def test_channels_without_positions_have_no_map() -> None:
    pytest.importorskip("mne")
    layout = ResponseLayout(
        modality="eeg", shape=(1, 2), channels=(Channel(name="Oz", type="eeg"),), sfreq=100.0, tmin=0.0, unit="V"
    )
    with pytest.raises(InputError, match="position of channel Oz is not known"):
        channel_info(layout)


def test_a_surface_is_drawn_from_a_volume_in_its_space(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    rng = np.random.default_rng(0)
    ijk = np.argwhere(rng.random((91, 109, 91)) < 0.2)
    places = ijk @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    image = volume(np.abs(places[:, 1]), Voxels(ijk, AFFINE))
    draw_surface(image, "fsaverage5", tmp_path / "surface.png", title="importance")
    drawn = read_image(tmp_path / "surface.png")
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 1000
    far = volume(
        np.ones(1),
        Voxels(np.array([[0, 0, 0]]), np.diag([1.0, 1, 1, 1]) + np.array([[0, 0, 0, 900.0]] * 3 + [[0] * 4])),
    )
    with pytest.raises(InputError, match="different spaces"):
        draw_surface(far, "fsaverage5", tmp_path / "far.png", title="")


def test_a_surface_that_is_not_there_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    with pytest.raises(InputError, match="LEFT,RIGHT"):
        check_surface("mine")
    with pytest.raises(FileError, match=r"lh\.pial does not exist"):
        check_surface(f"{tmp_path}/lh.pial,{tmp_path}/rh.pial")
