"""A simulated subject as a folder: what is in it, what is not, own pictures, and nobody else writes meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_viewer import FakeViewer
from PIL import Image
from safetensors.numpy import load_file

from minddiffuser.runtime.data.destination import check_target
from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.images import png_bytes
from minddiffuser.runtime.locks import beside as lock_of
from minddiffuser.runtime.locks import locked
from minddiffuser.training.cli import main
from minddiffuser.training.simulate.brains import clip
from minddiffuser.training.simulate.brains.clip import ClipBrain
from minddiffuser.training.simulate.fmri import Area, FmriSettings
from minddiffuser.training.simulate.subject import Showing, simulate_subject

SETTINGS = FmriSettings(areas={"V1": Area(n_voxels=8, layers=(0, 1), structural=(1.0, 1.0)), "LO": Area(n_voxels=4)})


class Eyes:
    """Models that are one random projection, and note what somebody else would be told meanwhile."""

    name, hash, image_size, device = "eyes", "0" * 64, 16, "cpu"

    def __init__(self, out: Path) -> None:
        self.out, self.printed = out, []
        self.weights = torch.from_numpy(np.random.default_rng(0).standard_normal((768, 6 * 5 * 7)).astype(np.float32))

    def encode_text(self, captions: Sequence[str]) -> Any:
        codes = np.array([[hash(len(text)) % 97 + k for k in range(15 * 3)] for text in captions], np.float32)
        return torch.from_numpy(codes.reshape(-1, 15, 3))

    def structure(self, image: Any, *, semantic: bool = False) -> tuple[Any, Any]:
        for replace in (False, True):
            with pytest.raises(FileError, match="another process is working in") as caught:
                check_target(self.out, replace=replace)
            self.printed.append(str(caught.value))
        seen = (image.reshape(len(image), -1) @ self.weights).reshape(-1, 6, 5, 7)
        return seen, seen[:, 0, 0]


@pytest.mark.parametrize("existing", [False, True])
def test_the_folder_is_held_while_models_look(tmp_path: Path, existing: bool) -> None:
    out = tmp_path / "deep" / "data"
    if existing:
        simulate_subject(out, ClipBrain(Eyes(out)), SETTINGS, Showing(n_train=5, n_test=2), seed=1)
    eyes = Eyes(out)
    data = simulate_subject(out, ClipBrain(eyes), SETTINGS, Showing(n_train=5, n_test=2), seed=2, replace=existing)
    assert eyes.printed
    assert data.subject == open_data(out).subject == "simulated-2"
    check_target(out, replace=True)  # and is free afterwards


def test_a_second_command_says_so_in_one_line_before_models_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    command = ["simulate", "fmri", "--brain", "clip", "--out", str(out), "--models", str(tmp_path / "none"), "--force"]
    with locked(lock_of(out), out):
        assert main(command) == 2
    printed = capsys.readouterr().err
    assert printed == f"md-train: another process is working in {out}: wait for it, or give another folder\n"


SMALL = FmriSettings(areas={"V1": Area(n_voxels=9, layers=(0,), structural=(1, 1)), "LO": Area(n_voxels=5)})


def make(out: Path, seed: int = 3, *, models: Any = None, settings: FmriSettings = SMALL, **showing: Any) -> Any:
    shown = Showing(**{"n_train": 11, "n_test": 3, **showing})
    return simulate_subject(out, ClipBrain(models or FakeViewer(), 4), settings, shown, seed=seed)


def test_subject_folder(tmp_path: Path) -> None:
    models = FakeViewer()
    data = make(tmp_path / "data", models=models)
    assert models.largest_batch <= 4
    assert data.responses("train").shape == (11, 14)
    assert data.layout.rois == {"V1": (0, 9), "LO": (9, 14), "LVC": (0, 9), "HVC": (9, 14)}
    assert data.images("test").shape == (3, 16, 16, 3)
    assert all(len(group) == 1 and group[0].startswith("a ") for group in data.captions("train"))
    assert data.provenance["models"] == {"name": "fake", "hash": "0" * 64}
    assert (data.provenance["seed"], data.provenance["snr"]) == (3, 1.0)
    assert data.subject == "simulated-3"
    # Test trials average three showings, training trials are one each; no id names the subject.
    assert data.trial_ids("test") == ("test/0/mean", "test/1/mean", "test/2/mean")
    assert data.trial_ids("train") == tuple(f"train/{k}/0" for k in range(11))
    assert make(tmp_path / "other", seed=4).trial_ids("test") == data.trial_ids("test")


def test_subject_repeats_and_seeds_differ(tmp_path: Path) -> None:
    one, two, three = (make(tmp_path / name, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert one.data_hash == two.data_hash
    assert one.hash("train") != three.hash("train")
    assert (one.images("train") != three.images("train")).any()
    assert not {path.tobytes() for path in one.images("train")} & {path.tobytes() for path in one.images("test")}


def test_weights_are_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, real = [], clip.draw_weights

    def spy(*args: Any) -> Any:
        drawn.append(real(*args))
        return drawn[-1]

    monkeypatch.setattr(clip, "draw_weights", spy)
    make(tmp_path / "data")
    files = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    names = {path.name for path in files if path.suffix != ".png"}
    assert names == {"data.json", "captions.json", "trial_ids.json", "train.safetensors", "test.safetensors"}
    for name in ("train", "test"):
        arrays = load_file(tmp_path / "data" / f"{name}.safetensors")
        assert set(arrays) == {"responses", "stimulus", "noise_ceiling"}
    (brain,) = drawn
    for weights in (brain.channel, brain.semantic, brain.receptive):
        row = np.ascontiguousarray(weights[0]).tobytes()
        assert not any(row in content for content in files.values())


def test_own_pictures_of_any_size_and_mode(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "drawings"
    folder.mkdir()
    Image.new("L", (300, 20), 90).save(folder / "a.jpg")
    Image.new("RGBA", (5, 9), (200, 0, 0, 100)).save(folder / "b.PNG")
    (folder / "c.png").write_bytes(png_bytes(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    data = make(tmp_path / "data", stimuli=folder)
    assert data.images("test").shape == (3, 16, 16, 3)
    assert data.responses("test").shape == (3, 14)
    assert np.isfinite(data.responses("test")).all()
    assert data.captions("test") == []
    assert data.provenance["stimuli"]["test"] == ["a.jpg", "b.PNG", "c.png"]
    # What becomes of them is said, and their names stay with them.
    assert data.provenance["stimuli"]["note"].startswith("a.jpg (300 x 20 px), b.PNG (5 x 9 px) are not square: ")
    assert [name.split("/")[1] for name in data.trial_ids("test")] == ["a.jpg", "b.PNG", "c.png"]
    # The training half of the subject does not depend on what is tested.
    np.testing.assert_array_equal(data.responses("train"), make(tmp_path / "plain").responses("train"))


def test_undecodable_picture_is_named_before_the_work(tmp_path: Path) -> None:
    folder = tmp_path / "drawings"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no")
    models = FakeViewer()
    with pytest.raises(FileError, match=r"a\.png cannot be decoded"):
        make(tmp_path / "data", models=models, stimuli=folder)
    assert models.largest_batch == 0
    assert not (tmp_path / "data").exists()


def test_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 training"):
        Showing(n_train=1)
    with pytest.raises(InputError, match="seed is -1"):
        make(tmp_path / "data", seed=-1)


def test_small_world_end_to_end(tmp_path: Path, small_world: Path) -> None:
    from minddiffuser.runtime.models.open import load_models

    reports: list[tuple[str, int, int]] = []
    data = simulate_subject(
        tmp_path / "data",
        ClipBrain(load_models(str(small_world))),
        FmriSettings(),
        Showing(n_train=12, n_test=4),
        seed=1,
        progress=lambda phase, done, total: reports.append((phase, done, total)),
    )
    assert data.responses("train").shape == (12, 2000)
    assert data.image_size == 32
    assert np.abs(data.responses("train")).max() < 20
    assert len(data.constant_places) == 0
    assert reports == [
        ("train pictures", 0, 12),
        ("train pictures", 12, 12),
        ("test pictures", 0, 4),
        ("test pictures", 4, 4),
    ]
