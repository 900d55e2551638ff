"""Maps: volumes read back by nibabel, heads and surfaces drawn by MNE and nilearn."""

from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.data.voxels import Voxels
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.images import read_image
from minddiffuser.training.interpret.surface import check_surface, draw_surface, vertex_values
from minddiffuser.training.interpret.topography import channel_info, draw_maps, has_places
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
def test_channels_are_in_their_places(kind: str) -> None:
    pytest.importorskip("mne")
    layout = sensors(kind)
    info, members = channel_info(layout)
    assert members == [[number] for number in range(9)]
    for channel, one in zip(info["chs"], layout.channels or (), strict=True):
        np.testing.assert_allclose(channel["loc"][:3], one.position)
    assert has_places(layout)


def test_heads_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("mne")
    pytest.importorskip("matplotlib")
    draw_maps({"a": [("0 ms", np.arange(9.0))]}, sensors("mag"), tmp_path / "heads.png", unit="times the mean")
    image = read_image(tmp_path / "heads.png")
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100


def test_sensors_in_one_place_share_a_point_and_others_have_none() -> None:
    pytest.importorskip("mne")
    places = [(0.1, 0, 0), (0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.1), (0.05, 0.05, 0.05)]
    kinds = ["grad", "mag", "mag", "mag", "mag"]
    channels = [Channel(name=f"M{n}", type=k, position=p) for n, (k, p) in enumerate(zip(kinds, places, strict=True))]
    channels.insert(2, Channel(name="EOG", type="eog"))
    layout = ResponseLayout(
        modality="meg", shape=(6, 4), channels=tuple(channels), sfreq=100.0, tmin=0.0, unit="1", signal=None
    )
    info, members = channel_info(layout)
    assert members == [[0, 1], [3], [4], [5]]
    assert info["ch_names"] == ["M0", "M2", "M3", "M4"]


def test_channels_without_positions_have_no_map() -> None:
    pytest.importorskip("mne")
    layout = ResponseLayout(
        modality="eeg", shape=(1, 2), channels=(Channel(name="Oz", type="eeg"),), sfreq=100.0, tmin=0.0, unit="V"
    )
    with pytest.raises(InputError, match="position of channel Oz is not known"):
        channel_info(layout)
    assert not has_places(layout)


def slabs() -> tuple[np.ndarray, np.ndarray]:
    """Voxels all over MNI space, a fifth of all places, and what they hold: how far front or back they are."""
    ijk = np.argwhere(np.random.default_rng(0).random((91, 109, 91)) < 0.2)
    places = ijk @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    return ijk, np.abs(places[:, 1])


def write_mesh(path: Path, x: float) -> Path:
    """A ball of 40 mm radius as GIFTI."""
    nibabel = pytest.importorskip("nibabel")
    angles = np.stack(np.meshgrid(np.linspace(0.1, 3.0, 8), np.linspace(0, 6.2, 12), indexing="ij"), axis=-1)
    theta, phi = angles.reshape(-1, 2).T
    points = 40 * np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    corner = np.arange(84).reshape(7, 12)
    beside = np.roll(corner, -1, axis=1)
    faces = np.concatenate(
        [np.stack([corner, beside, corner + 12], -1), np.stack([beside, beside + 12, corner + 12], -1)]
    )
    arrays = [
        nibabel.gifti.GiftiDataArray((points + [x, 0, 0]).astype(np.float32), intent="NIFTI_INTENT_POINTSET"),
        nibabel.gifti.GiftiDataArray(faces.reshape(-1, 3).astype(np.int32), intent="NIFTI_INTENT_TRIANGLE"),
    ]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)
    return path


@pytest.mark.slow
def test_a_subjects_own_surface_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    pytest.importorskip("matplotlib")
    ijk, values = slabs()
    surface = ",".join(str(write_mesh(tmp_path / f"{side}.surf.gii", x)) for side, x in (("lh", -40), ("rh", 40)))
    draw_surface(volume(values, Voxels(ijk, AFFINE)), surface, tmp_path / "surface.png", title="importance")
    assert len(np.unique(read_image(tmp_path / "surface.png").reshape(-1, 3), axis=0)) > 100
    elsewhere = AFFINE + np.array([[0, 0, 0, 900.0], *[[0.0] * 4] * 3])
    with pytest.raises(InputError, match="different spaces"):
        draw_surface(volume(values, Voxels(ijk, elsewhere)), surface, tmp_path / "far.png", title="")


@pytest.mark.slow
def test_the_template_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    pytest.importorskip("matplotlib")
    ijk, values = slabs()
    draw_surface(volume(values, Voxels(ijk, AFFINE)), "fsaverage5", tmp_path / "surface.png", title="importance")
    assert len(np.unique(read_image(tmp_path / "surface.png").reshape(-1, 3), axis=0)) > 1000


def test_places_without_voxels_do_not_spread() -> None:
    """Half of the volume holds 2 and the rest nothing: vertices near voxels have 2, and others nothing."""
    pytest.importorskip("nilearn")
    nibabel = pytest.importorskip("nibabel")
    from nilearn.surface import InMemoryMesh

    data = np.full((20, 20, 20), np.nan, np.float32)
    data[:10] = 2
    points = np.array([[5.0, 5, 5], [5, 9, 5], [9.4, 5, 5], [9.4, 9, 5], [15, 5, 5], [15, 9, 5]])
    faces = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]])
    found = vertex_values(nibabel.Nifti1Image(data, np.eye(4)), InMemoryMesh(points, faces))
    np.testing.assert_allclose(found[:4], 2)
    assert np.isnan(found[4:]).all()


def test_a_surface_that_is_not_there_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    with pytest.raises(InputError, match="LEFT,RIGHT"):
        check_surface("mine")
    with pytest.raises(FileError, match=r"lh\.pial does not exist"):
        check_surface(f"{tmp_path}/lh.pial,{tmp_path}/rh.pial")
