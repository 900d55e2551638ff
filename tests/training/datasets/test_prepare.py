"""What ``md-train prepare`` does with any reader: here one whose trials are a formula."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.files import sha256_of, write_tensors
from minddiffuser.runtime.images import write_png
from minddiffuser.training.datasets.prepare import FLAT, NOT_FINITE, PrepareSettings, prepare, work_folder
from minddiffuser.training.datasets.reader import Block, Finished, Piece, Place, Shown

SINGLE = PrepareSettings(averages=(), image_size=16)
MEANS = PrepareSettings(averages=("train", "test"), image_size=16)
VOXELS, SENSORS = (6,), (3, 4)


class Formula:
    """Three pieces; pictures 0 to 4 are for training, 5 to 7 for the test, 8 is never shown. Trials are drawn."""

    subject, notes = "formula", ("a note",)

    def __init__(self, root: Path, shape: tuple[int, ...] = VOXELS, change: Callable[..., Any] | None = None) -> None:
        self.shape, self.place = shape, "voxel" if len(shape) == 1 else "channel"
        self.settings = {"shape": list(shape)}
        self.change = change or (lambda name, responses: responses)
        self.asked: list[str] = []
        for k in range(9):
            write_png(root / f"{k}.png", np.full((20, 24, 3), 20 * k, np.uint8))
        self.pictures = [
            Shown(
                split="train" if k < 5 else "test",
                source=Place(root=root, path=f"{k}.png"),
                captions=(f"thing {k}",),
                concept=f"thing {k}",
            )
            for k in range(9)
        ]
        self.files = {root / "0.png": "a picture"}
        self.pieces = [Piece(name=name, n_trials=12, files=(root / "0.png",)) for name in ("one", "two", "three")]
        self.order = {name: np.random.default_rng(i).permutation(12) % 8 for i, name in enumerate(self.names)}
        self.values = {
            name: np.random.default_rng(10 + i).standard_normal((12, *shape), dtype=np.float32)
            for i, name in enumerate(self.names)
        }

    @property
    def names(self) -> list[str]:
        return [piece.name for piece in self.pieces]

    def read(self, piece: Piece) -> Block:
        self.asked.append(piece.name)
        responses = self.change(piece.name, self.values[piece.name].copy())
        return Block(responses=responses, picture=self.order[piece.name], dropped={"catch trial": 1})

    def layout(self) -> ResponseLayout:
        if len(self.shape) == 1:
            return ResponseLayout(modality="fmri", shape=self.shape)
        channels = tuple(Channel(name=f"E{k}", type="eeg") for k in range(self.shape[0]))
        return ResponseLayout(modality="eeg", shape=self.shape, channels=channels, sfreq=100.0, tmin=0.0, unit="V")

    def finish(self, trials: Any, folder: Path) -> Finished:
        return Finished(layout=self.layout())


def expected_means(reader: Formula, pictures: range) -> NDArray[np.float64]:
    shown = np.concatenate([reader.order[name] for name in reader.names])
    values = np.concatenate([reader.values[name] for name in reader.names]).astype(np.float64)
    return np.stack([values[shown == k].mean(axis=0) for k in pictures])


@pytest.mark.parametrize("shape", [VOXELS, SENSORS])
@pytest.mark.parametrize("memory", [1, 10**9])
def test_means_over_all_repetitions(tmp_path: Path, shape: tuple[int, ...], memory: int) -> None:
    reader = Formula(tmp_path / "pictures", shape)
    settings = PrepareSettings(averages=("train", "test"), image_size=16, memory=memory)
    data, report = prepare("formula", reader, tmp_path / "data", settings)
    np.testing.assert_allclose(data.responses("train"), expected_means(reader, range(5)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(data.responses("test"), expected_means(reader, range(5, 8)), rtol=1e-6, atol=1e-7)
    assert data.trial_ids("test") == ("test/0/mean", "test/1/mean", "test/2/mean")
    assert data.concepts("test") == ("thing 5", "thing 6", "thing 7")
    assert [int(image[0, 0, 0]) for image in data.images("test")] == [100, 120, 140]
    assert report.splits["train"] == {
        "pictures": 5,
        "recorded_trials": sum(int((order < 5).sum()) for order in reader.order.values()),
        "repetitions": [3, 6],
        "written": "means",
    }
    assert report.dropped == {"catch trial": 3}
    assert data.provenance["found"]["pieces"]["two"] == {"trials": 12, "dropped": {"catch trial": 1}}
    assert not work_folder(tmp_path / "data").exists()


def test_single_trials_in_the_order_of_the_recording(tmp_path: Path) -> None:
    reader = Formula(tmp_path / "pictures")
    data, report = prepare("formula", reader, tmp_path / "data", SINGLE)
    shown = np.concatenate([reader.order[name] for name in reader.names])
    values = np.concatenate([reader.values[name] for name in reader.names])
    np.testing.assert_array_equal(data.responses("train"), values[shown < 5])
    np.testing.assert_array_equal(data.stimulus("train"), shown[shown < 5])
    np.testing.assert_array_equal(data.stimulus("test"), shown[shown >= 5] - 5)
    assert report.text(data).splitlines()[-1] == "a note"


def test_a_killed_preparation_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    class Killed(Exception): ...

    def kill(name: str, responses: Any) -> Any:
        if name == "three":
            raise Killed
        return responses

    straight = Formula(tmp_path / "pictures")
    prepare("formula", straight, tmp_path / "straight", MEANS)
    first, second = Formula(tmp_path / "pictures", change=kill), Formula(tmp_path / "pictures")
    with pytest.raises(Killed):
        prepare("formula", first, tmp_path / "data", MEANS)
    assert not (tmp_path / "data").exists()
    said: list[tuple[str, int, int]] = []
    prepare("formula", second, tmp_path / "data", MEANS, progress=lambda *what: said.append(what))
    assert (first.asked, second.asked) == (["one", "two", "three"], ["three"])
    assert said[:2] == [("looking at pictures", 0, 9), ("looking at pictures", 9, 9)]
    assert said[2] == ("reading trials", 24, 36)
    files = sorted(path.relative_to(tmp_path / "straight") for path in (tmp_path / "straight").rglob("*.*"))
    assert len(files) == 7
    for path in files:
        assert (tmp_path / "data" / path).read_bytes() == (tmp_path / "straight" / path).read_bytes(), path


def test_what_other_options_have_left_is_not_used(tmp_path: Path) -> None:
    def stop(name: str, responses: Any) -> Any:
        if name == "two":
            raise FileError("truncated")
        return responses

    with pytest.raises(FileError, match="truncated"):
        prepare("formula", Formula(tmp_path / "pictures", change=stop), tmp_path / "data", MEANS)
    other = Formula(tmp_path / "pictures")
    other.settings = {"shape": [6], "sessions": 3}
    prepare("formula", other, tmp_path / "data", MEANS)
    assert other.asked == ["one", "two", "three"]


@pytest.mark.parametrize("how", ["elsewhere", "replaced", "of the other split"])
def test_what_was_read_for_other_pictures_is_not_used(tmp_path: Path, how: str) -> None:
    def stop(name: str, responses: Any) -> Any:
        if name == "two":
            raise FileError("truncated")
        return responses

    first, other = Formula(tmp_path / "pictures", change=stop), Formula(tmp_path / "pictures")
    with pytest.raises(FileError, match="truncated"):
        prepare("formula", first, tmp_path / "data", MEANS)
    if how == "elsewhere":
        for k in range(9):
            write_png(tmp_path / "more" / f"{k}.png", np.full((20, 24, 3), 20 * k + 7, np.uint8))
        other.pictures = [
            replace(one, source=Place(root=tmp_path / "more", path=f"{k}.png")) for k, one in enumerate(other.pictures)
        ]
    elif how == "replaced":
        write_png(tmp_path / "pictures/3.png", np.full((30, 30, 3), 250, np.uint8))
    else:
        other.pictures[4] = replace(other.pictures[4], split="test")
    data, _ = prepare("formula", other, tmp_path / "data", MEANS)
    wanted = {"elsewhere": [7, 27, 47, 67, 87], "replaced": [0, 20, 40, 250, 80], "of the other split": [0, 20, 40, 60]}
    assert [int(image[0, 0, 0]) for image in data.images("train")] == wanted[how]
    assert other.asked == ["one", "two", "three"]


def test_trials_without_a_recording_are_left_out_with_the_reason(tmp_path: Path) -> None:
    def spoil(name: str, responses: NDArray[np.float32]) -> NDArray[np.float32]:
        if name == "two":
            responses[3, 2] = np.nan
            responses[7] = 0
        return responses

    reader = Formula(tmp_path / "pictures", change=spoil)
    data, report = prepare("formula", reader, tmp_path / "data", SINGLE)
    assert report.pieces["two"] == (10, {"catch trial": 1, NOT_FINITE: 1, FLAT: 1})
    assert len(data.responses("train")) + len(data.responses("test")) == 34
    assert f"1 ({NOT_FINITE})" in report.text(data)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ((slice(None),), np.nan, r"two is NaN or infinite in all of its 12 trials .*: copy its files again"),
        ((slice(None), 4), np.nan, r"two is NaN or infinite in voxel 4 in every trial"),
        ((slice(0, 7), 4), np.inf, r"two is NaN or infinite in 7 of its 12 trials"),
        ((slice(None),), 0, r"two holds one value in all voxels of each of its 12 trials"),
    ],
)
def test_a_piece_that_is_no_recording_is_refused(tmp_path: Path, where: Any, value: float, message: str) -> None:
    def spoil(name: str, responses: NDArray[np.float32]) -> NDArray[np.float32]:
        if name == "two":
            responses[where] = value
        return responses

    with pytest.raises(FileError, match=message):
        prepare("formula", Formula(tmp_path / "pictures", change=spoil), tmp_path / "data", MEANS)


def test_one_picture_on_both_sides_is_refused(tmp_path: Path) -> None:
    reader = Formula(tmp_path / "pictures")
    write_png(tmp_path / "pictures/6.png", np.full((20, 24, 3), 20 * 3, np.uint8))  # as picture 3, by its pixels
    with pytest.raises(InputError, match=r"training picture 3.png and test picture 6.png have the same pixels"):
        prepare("formula", reader, tmp_path / "data", MEANS)


def test_a_missing_picture_is_found_before_anything_is_read(tmp_path: Path) -> None:
    reader = Formula(tmp_path / "pictures")
    (tmp_path / "pictures/7.png").unlink()
    with pytest.raises(FileError, match=r"7.png is missing: copy the data set's pictures there"):
        prepare("formula", reader, tmp_path / "data", MEANS)
    assert reader.asked == []


def test_pictures_that_cannot_be_named_are_copied(tmp_path: Path) -> None:
    reader = Formula(tmp_path / "pictures")
    reader.pictures = [
        Shown(split=p.split, source=lambda k=k: np.full((20, 24, 3), k, np.uint8), captions=p.captions)  # type: ignore[misc]
        for k, p in enumerate(reader.pictures)
    ]
    data, _report = prepare("formula", reader, tmp_path / "data", MEANS)
    assert (tmp_path / "data/stimuli/test/000002.png").exists()
    assert data.images("test")[2].max() == data.images("test")[2].min() == 7


def test_what_is_fitted_sees_training_trials_alone_and_is_applied_to_single_trials(tmp_path: Path) -> None:
    class Whitened(Formula):
        def finish(self, trials: Any, folder: Path) -> Finished:
            self.fitted = [(name, responses.copy(), picture.copy()) for name, responses, picture in trials.training()]
            return Finished(
                layout=self.layout(),
                transform=lambda rows: np.square(rows),
                noise_ceiling=np.full(6, 0.5, np.float32),
            )

    reader = Whitened(tmp_path / "pictures")
    data, _report = prepare("formula", reader, tmp_path / "data", MEANS)
    for name, responses, picture in reader.fitted:
        assert picture.max() < 5
        np.testing.assert_array_equal(responses, reader.values[name][reader.order[name] < 5])
    reader.values = {name: value**2 for name, value in reader.values.items()}
    np.testing.assert_allclose(data.responses("train"), expected_means(reader, range(5)), rtol=1e-6)
    shown = np.concatenate([reader.order[name] for name in reader.names])
    left = np.mean([1 / (shown == k).sum() for k in range(5, 8)])
    ceiling = data.noise_ceiling("test")
    assert ceiling is not None
    np.testing.assert_allclose(ceiling, 1 / (1 + left), rtol=1e-6)  # signal 1, noise 1 in a single trial


def test_files_of_the_signal_chain_are_copied_and_their_workshop_is_removed(tmp_path: Path) -> None:
    class Filed(Formula):
        def finish(self, trials: Any, folder: Path) -> Finished:
            path = folder / "whitening.safetensors"
            write_tensors(path, {"matrix": np.eye(3)})
            step = {"name": "whiten", "file": path.name, "sha256": sha256_of(path)}
            layout = replace(self.layout(), signal={"steps": [step]}, unit="1")
            return Finished(layout=layout, files={path.name: path})

    data, _report = prepare("formula", Filed(tmp_path / "pictures", SENSORS), tmp_path / "data", MEANS)
    assert (data.signal_folder / "whitening.safetensors").is_file()
    assert not work_folder(tmp_path / "data").exists()


def test_memory_is_bounded(tmp_path: Path) -> None:
    """100 MB of responses with 5 MB at a time; the checks of a written folder take some more."""

    class Long(Formula):
        def __init__(self, root: Path) -> None:
            super().__init__(root, (5000,))
            self.pieces = [Piece(name=f"piece{k:02d}", n_trials=250, files=(root / "0.png",)) for k in range(20)]

        def read(self, piece: Piece) -> Block:
            rng = np.random.default_rng(int(piece.name[-2:]))
            return Block(responses=rng.standard_normal((250, 5000), dtype=np.float32), picture=np.arange(250) % 8)

    reader = Long(tmp_path / "pictures")
    tracemalloc.start()
    data, _report = prepare(
        "formula", reader, tmp_path / "data", PrepareSettings(averages=(), image_size=16, memory=5_000_000)
    )
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.responses("train").nbytes + data.responses("test").nbytes == 100_000_000
    assert peak < 45_000_000


def test_training_pictures_need_captions(tmp_path: Path) -> None:
    reader = Formula(tmp_path / "pictures")
    reader.pictures[2] = Shown(split="train", source=reader.pictures[2].source)
    with pytest.raises(InputError, match="training picture 2 has no caption"):
        prepare("formula", reader, tmp_path / "data", MEANS)


def test_a_work_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    place = work_folder(tmp_path / "data")
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="notes.txt and is not a work folder"):
        prepare("formula", Formula(tmp_path / "pictures"), tmp_path / "data", MEANS)
    assert (place / "notes.txt").read_text() == "mine"
