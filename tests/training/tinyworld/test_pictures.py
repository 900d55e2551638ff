"""The drawn set and the latents: whole or absent, drafts of each process its own, a full disk an error."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from minddiffuser.runtime.errors import FileError
from minddiffuser.training.tinyworld import autoencoder, pictures
from minddiffuser.training.tinyworld.draw import draw_all
from minddiffuser.training.tinyworld.scenes import scenes


def test_pictures_are_drawn_once_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_CHUNK", 3)
    reported: list[tuple[int, int]] = []
    drawn = pictures.open_pictures(tmp_path, n_pictures=5, seed=9, progress=lambda *step: reported.append(step))
    assert reported == [(3, 5), (5, 5)]
    many = [*scenes(9, 3, combinations="seen"), *scenes(9 + 7919, 2, combinations="seen")]
    assert isinstance(drawn.images, np.memmap)
    np.testing.assert_array_equal(drawn.images, draw_all(many))
    np.testing.assert_array_equal(drawn.labels, [scene.labels for scene in many])
    assert drawn.labels.dtype == np.int64
    monkeypatch.setattr(pictures, "_chunk", None)  # a second call draws nothing
    again = pictures.open_pictures(tmp_path, n_pictures=5, seed=9)
    np.testing.assert_array_equal(again.images, drawn.images)
    assert sorted(path.name for path in next(tmp_path.iterdir()).iterdir()) == ["images.npy", "labels.npy"]


@pytest.mark.parametrize("name", ["labels.npy", "latents.npy", "images.npy"])
def test_a_draft_carries_its_process(name: str, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def parts():
        seen.append([path.name for path in tmp_path.iterdir()])
        yield np.arange(6).reshape(3, 2)

    pictures.write_array(tmp_path / name, (3, 2), np.dtype(np.int64), parts())
    assert all(str(os.getpid()) in draft for draft in seen[0])
    assert len(seen[0]) == 1
    np.testing.assert_array_equal(np.load(tmp_path / name), np.arange(6).reshape(3, 2))


class _Vae(torch.nn.Module):
    """A VAE whose latent is the mean of the picture."""

    class config:  # noqa: N801
        scaling_factor = 2.0

    def encode(self, image: torch.Tensor) -> object:
        mean = image.mean(dim=(1, 2, 3))[:, None, None, None].expand(-1, 4, 8, 8)
        return type("Output", (), {"latent_dist": type("Posterior", (), {"mean": mean})})


class _Set:
    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)


def test_latents_do_not_meet_the_draft_of_another_process(tmp_path: Path) -> None:
    images = np.full((3, 64, 64, 3), 255, np.uint8)
    path = tmp_path / "latents.npy"
    for name in ("latents.draft.npy", ".latents.npy.draft"):
        (tmp_path / name).mkdir()  # what another process is at; writing to the same name would fail
    latents = autoencoder.encode_all(_Vae(), _Set(images), path)
    assert torch.equal(latents, torch.full((3, 4, 8, 8), 2.0))
    assert torch.equal(autoencoder.encode_all(_Vae(), _Set(images[:0]), path), latents)


def test_labels_do_not_meet_the_draft_of_another_process(tmp_path: Path) -> None:
    (tmp_path / "pictures-seen-9-2" / "labels.draft.npy").mkdir(parents=True)
    assert len(pictures.open_pictures(tmp_path, n_pictures=2, seed=9)) == 2


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, mode: str = "r", **options: object) -> np.memmap:
        assert mode == "r", "writing through a memory map on a full disk kills the process without a word"
        return open_memmap(path, mode, **options)

    open_memmap = np.lib.format.open_memmap
    monkeypatch.setattr(np.lib.format, "open_memmap", refused)
    assert len(pictures.open_pictures(tmp_path / "a", n_pictures=2, seed=9)) == 2

    def parts():
        yield np.zeros((1, 2))
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FileError, match="the disk is full"):
        pictures.write_array(tmp_path / "b" / "images.npy", (3, 2), np.dtype(np.float64), parts())
    assert not list((tmp_path / "b").iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_the_last_bytes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain writes report a full disk, at the latest when the file is closed."""
    from contextlib import nullcontext

    monkeypatch.setattr(pictures, "replacing", lambda path: nullcontext(Path("/dev/full")))
    with pytest.raises(OSError, match="No space left"):
        pictures.write_array(Path("images.npy"), (3, 2), np.dtype(np.float64), [np.zeros((3, 2))])
