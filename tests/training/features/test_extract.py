from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models
from minddiffuser.training.features import extract
from minddiffuser.training.features.extract import extract_features


class Pictures:
    """A stand-in for a data folder: random pictures, which remembers what was asked for."""

    def __init__(self, n: int = 7, size: int = 32, captions: list[list[str]] | None = None) -> None:
        self.pixels = np.random.default_rng(5).integers(0, 256, (n, size, size, 3), np.uint8)
        words = [["a red cat in the sea"], ["a blue boat in the sky", "a pink tree in the snow"]]
        self.texts = [words[index % 2] for index in range(n)] if captions is None else captions
        self.asked: list[tuple[int, int | None]] = []

    def n_stimuli(self, split: str) -> int:
        return len(self.pixels)

    def images(self, split: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        self.asked.append((start, stop))
        return self.pixels[start:stop]

    def captions(self, split: str) -> list[list[str]]:
        return self.texts

    def hash(self, split: str) -> str:
        return hashlib.sha256(self.pixels.tobytes() + json.dumps(self.texts).encode()).hexdigest()


def shown(folder: Path) -> list[Path]:
    """What a folder holds besides locks, which stay."""
    return sorted(path for path in folder.iterdir() if path.suffix != ".lock")


@pytest.fixture(scope="module")
def models(small_world: Path) -> Models:
    return load_models(small_world)


def test_features_are_those_of_each_stimulus(models: Models, tmp_path: Path) -> None:
    data = Pictures()
    found = extract_features(data, "train", models, cache_dir=tmp_path, batch_size=3)
    assert found.context is not None
    shapes = {"context": (7, 15, 16), "latent": (7, 4, 4, 4), "structure": (7, 6, 17, 32), "semantic": (7, 32)}
    for name, shape in shapes.items():
        array = getattr(found, name)
        assert isinstance(array, np.memmap)
        assert (array.shape, array.dtype) == (shape, np.float32)
        assert not array.flags.writeable
    for index in (0, 5, 6):
        image = torch.from_numpy(data.pixels[index].astype(np.float32) / 255).permute(2, 0, 1)[None]
        structure, semantic = models.structure(image, semantic=True)
        assert semantic is not None
        texts = [models.encode_text([text])[0] for text in data.texts[index]]
        close = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(found.structure[index], structure[0], **close)
        np.testing.assert_allclose(found.semantic[index], semantic[0], **close)
        np.testing.assert_allclose(found.latent[index], models.encode_latent(image)[0], **close)
        np.testing.assert_allclose(found.context[index], sum(texts) / len(texts), **close)


def test_a_second_run_reads_and_computes_nothing(models: Models, tmp_path: Path) -> None:
    first = extract_features(Pictures(), "train", models, cache_dir=tmp_path)
    data, seen = Pictures(), []
    second = extract_features(
        data, "train", models, cache_dir=tmp_path, batch_size=2, progress=lambda d, n: seen.append((d, n))
    )
    assert data.asked == []
    assert seen == [(7, 7)]
    assert second.folder == first.folder
    np.testing.assert_array_equal(second.structure, first.structure)


def test_the_key_follows_everything_that_decides_the_numbers(small_world: Path, tmp_path: Path) -> None:
    from small_world import write_small_world

    other = write_small_world(tmp_path / "other", seed=1)
    cropped = shutil.copytree(small_world, tmp_path / "cropped")
    config = cropped / "clip/open_clip_config.json"
    config.write_text(config.read_text().replace("bicubic", "bilinear"))
    variants: list[Callable[[], tuple[Models, Pictures, str]]] = [
        lambda: (load_models(small_world), Pictures(), "train"),
        lambda: (load_models(other), Pictures(), "train"),
        lambda: (load_models(cropped), Pictures(), "train"),
        lambda: (load_models(small_world, preset="paper"), Pictures(), "train"),
        lambda: (load_models(small_world, dtype="bfloat16"), Pictures(), "train"),
        lambda: (load_models(small_world), Pictures(captions=[["a red cat"]] * 7), "train"),
        lambda: (load_models(small_world), Pictures(n=8), "train"),
        lambda: (load_models(small_world), Pictures(), "test"),
    ]
    keys = set()
    for variant in variants:
        models, data, split = variant()
        found = extract_features(data, split, models, cache_dir=tmp_path / "cache")
        keys.add(found.key)
        assert json.loads((found.folder / "features.json").read_text())["ingredients"]["models"] == models.hash
    assert len(keys) == len(variants)


def test_a_killed_run_goes_on_where_it_was(models: Models, tmp_path: Path) -> None:
    whole = extract_features(Pictures(), "train", models, cache_dir=tmp_path / "whole", batch_size=2)

    def kill(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(Pictures(), "train", models, cache_dir=tmp_path / "killed", batch_size=2, progress=kill)
    assert [path.suffix for path in shown(tmp_path / "killed")] == [".partial"]
    data = Pictures()
    resumed = extract_features(data, "train", models, cache_dir=tmp_path / "killed", batch_size=2)
    assert data.asked == [(4, 6), (6, 7)]
    for name in ("context", "latent", "structure", "semantic"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    assert shown(tmp_path / "killed") == [resumed.folder]


def test_only_a_batch_is_read_at_a_time(models: Models, tmp_path: Path) -> None:
    data, seen = Pictures(n=9), []
    extract_features(data, "train", models, cache_dir=tmp_path, batch_size=4, progress=lambda d, n: seen.append(d))
    assert data.asked == [(0, 4), (4, 8), (8, 9)]
    assert seen == [0, 4, 8, 9]


@pytest.mark.parametrize("damage", ["truncate", "description", "delete"])
def test_damaged_features_are_made_again(damage: str, models: Models, tmp_path: Path) -> None:
    first = extract_features(Pictures(), "train", models, cache_dir=tmp_path)
    expected = np.array(first.structure)
    path = first.folder / "structure.npy"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "delete":
        path.unlink()
    else:
        (first.folder / "features.json").write_text("{")
    again = extract_features(Pictures(), "train", models, cache_dir=tmp_path)
    np.testing.assert_array_equal(again.structure, expected)


def test_pictures_of_another_size_are_fitted(models: Models, tmp_path: Path) -> None:
    found = extract_features(Pictures(n=2, size=50), "train", models, cache_dir=tmp_path)
    assert found.latent.shape == (2, 4, 4, 4)


def test_a_split_without_captions_has_no_context(models: Models, tmp_path: Path) -> None:
    found = extract_features(Pictures(captions=[]), "test", models, cache_dir=tmp_path)
    assert found.context is None
    assert len(found.latent) == 7


@pytest.mark.parametrize("captions", [[["a cat"]] * 6, [["a cat"]] * 6 + [[]]])
def test_a_gap_in_the_captions_is_refused(captions: list[list[str]], models: Models, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="captions are incomplete"):
        extract_features(Pictures(captions=captions), "train", models, cache_dir=tmp_path)


def test_a_full_disk_is_one_sentence(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(extract.os, "fsync", full)
    with pytest.raises(FileError, match="the disk is full"):
        extract_features(Pictures(), "train", models, cache_dir=tmp_path)


def test_unknown_splits_and_batch_sizes_are_refused(models: Models, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose one of test, train"):
        extract_features(Pictures(), "validation", models, cache_dir=tmp_path)
    with pytest.raises(InputError, match="expected at least 1"):
        extract_features(Pictures(), "train", models, cache_dir=tmp_path, batch_size=0)
