from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from json_edits import single_edits
from numpy.typing import NDArray

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models
from minddiffuser.training import libraries
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


def test_the_image_embedding_comes_where_it_is_asked_for(models: Models, tmp_path: Path) -> None:
    data = Pictures()
    plain = extract_features(data, "train", models, cache_dir=tmp_path)
    assert plain.embedding is None
    found = extract_features(data, "train", models, cache_dir=tmp_path, batch_size=2, embedding=True)
    assert found.key != plain.key
    assert isinstance(found.embedding, np.memmap)
    assert found.embedding.shape == (7, 16)
    pixels = torch.from_numpy(data.pixels.astype(np.float32) / 255).permute(0, 3, 1, 2)
    np.testing.assert_allclose(found.embedding, models.embedding(pixels), rtol=1e-4, atol=1e-5)
    for name in ("context", "latent", "structure", "semantic"):
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), rtol=1e-4, atol=1e-5)


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


def test_features_of_other_models_under_the_wanted_name_are_not_taken(
    models: Models, small_world: Path, tmp_path: Path
) -> None:
    wanted = extract_features(Pictures(), "train", models, cache_dir=tmp_path / "right")
    paper = extract_features(
        Pictures(), "train", load_models(small_world, preset="paper"), cache_dir=tmp_path / "other"
    )
    shutil.copytree(paper.folder, tmp_path / "cache" / wanted.folder.name)
    found = extract_features(Pictures(), "train", models, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(found.structure, wanted.structure)
    assert not np.allclose(paper.structure, wanted.structure)


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
    (unfinished,) = shown(tmp_path / "killed")
    data = Pictures()
    resumed = extract_features(data, "train", models, cache_dir=tmp_path / "killed", batch_size=2)
    assert data.asked == [(4, 6), (6, 7)]
    for name in ("context", "latent", "structure", "semantic"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    assert [unfinished] == shown(tmp_path / "killed") == [resumed.folder]


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


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_rows_that_are_not_what_was_written_are_made_again(value: float, models: Models, tmp_path: Path) -> None:
    """A file of the right length with rows of zeros, finished or not, is not handed out as features."""
    whole = extract_features(Pictures(), "train", models, cache_dir=tmp_path / "whole", batch_size=2)
    expected = {name: np.array(getattr(whole, name)) for name in ("context", "latent", "structure", "semantic")}

    def kill(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(Pictures(), "train", models, cache_dir=tmp_path / "half", batch_size=2, progress=kill)
    for place in (whole.folder, tmp_path / "half" / whole.folder.name):
        for name in ("structure", "context"):
            array = np.lib.format.open_memmap(place / f"{name}.npy", mode="r+")
            array[1] = value
            array.flush()
    for cache in ("whole", "half"):
        data = Pictures()
        again = extract_features(data, "train", models, cache_dir=tmp_path / cache, batch_size=2)
        assert data.asked == {"whole": [(0, 2)], "half": [(0, 2), (4, 6), (6, 7)]}[cache]
        for name, array in expected.items():
            np.testing.assert_array_equal(getattr(again, name), array)


def test_a_second_process_waits_and_uses_what_the_first_has_made(models: Models, tmp_path: Path) -> None:
    """The second begins in the middle of the first, which goes on only when the second waits."""
    waits, lines, found = threading.Event(), [], {}
    second = Pictures()

    def said(line: str) -> None:
        lines.append(line)
        waits.set()

    def other() -> None:
        found["second"] = extract_features(second, "train", models, cache_dir=tmp_path, batch_size=2, say=said)

    thread = threading.Thread(target=other, daemon=True)

    def progress(done: int, total: int) -> None:
        if done == 2:
            thread.start()
            assert waits.wait(timeout=600)

    found["first"] = extract_features(Pictures(), "train", models, cache_dir=tmp_path, batch_size=2, progress=progress)
    thread.join(timeout=600)
    assert second.asked == []  # it has computed nothing
    assert len(lines) == 1
    assert "another process is working in" in lines[0]
    assert "waiting" in lines[0]
    np.testing.assert_array_equal(found["second"].structure, found["first"].structure)


def test_a_holder_that_was_killed_holds_nothing(models: Models, tmp_path: Path) -> None:
    folder = extract_features(Pictures(), "train", models, cache_dir=tmp_path / "elsewhere").folder
    code = (
        "import sys; from pathlib import Path; from minddiffuser.runtime.locks import beside, locked\n"
        f"folder = Path({str(tmp_path / 'cache' / folder.name)!r})\n"
        "with locked(beside(folder), folder):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        lines: list[str] = []

        def said(line: str) -> None:
            lines.append(line)
            holder.kill()  # only now, when it is waited for

        found = extract_features(Pictures(), "train", models, cache_dir=tmp_path / "cache", say=said)
    assert len(lines) == 1
    assert len(found.latent) == 7


BROKEN = {
    "structure": ("structure", r"structure \(CLIP, block 4\)", "CLIP's weights are damaged, or its preprocessing"),
    "semantic": ("structure", "semantic feature", "CLIP's weights are damaged, or its preprocessing"),
    "latent": ("encode_latent", "latent feature", "the VAE's weights are damaged, or its scaling_factor"),
    "context": ("encode_text", "context feature", "the text encoder's weights are damaged"),
}


def broken(models: Models, feature: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """A method of the models with one feature changed; of the structure, the fourth of its layers."""
    whole = getattr(models, BROKEN[feature][0])

    def method(_self: Models, *args: Any, **options: Any) -> Any:
        found = whole(*args, **options)
        if feature in ("context", "latent"):
            return change(found)
        structure, semantic = found
        if feature == "semantic":
            return structure, change(semantic)
        return torch.cat([structure[:, :3], change(structure[:, 3:4]), structure[:, 4:]], dim=1), semantic

    return method


@pytest.mark.parametrize(("value", "what"), [(float("nan"), "NaN"), (float("-inf"), "infinite values")])
@pytest.mark.parametrize("feature", BROKEN)
def test_features_of_nan_are_refused_at_the_first_batch(
    feature: str, value: float, what: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        values[(-1, *(0,) * (values.ndim - 2), 3)] = value
        return values

    method, words, cause = BROKEN[feature]
    monkeypatch.setattr(Models, method, broken(models, feature, change))
    data = Pictures()
    with pytest.raises(InputError, match=f"the {words} of training picture . holds {what} .*most likely {cause}"):
        extract_features(data, "train", models, cache_dir=tmp_path, batch_size=2)
    assert data.asked == [(0, 2)]
    assert len(shown(tmp_path)) == 1


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("feature", BROKEN)
def test_features_that_are_the_same_for_all_are_refused(
    feature: str, batch_size: int, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, words, cause = BROKEN[feature]
    monkeypatch.setattr(Models, method, broken(models, feature, torch.ones_like))
    data = Pictures()
    with pytest.raises(InputError, match=f"the {words} is the same for .* different .*most likely {cause}"):
        extract_features(data, "train", models, cache_dir=tmp_path, batch_size=batch_size)
    assert data.asked[-1][1] <= 3


def test_one_caption_for_all_and_a_picture_shown_twice_are_allowed(models: Models, tmp_path: Path) -> None:
    data = Pictures(captions=[["a picture"]] * 7)
    data.pixels[1] = data.pixels[0]
    found = extract_features(data, "train", models, cache_dir=tmp_path, batch_size=2)
    assert found.context is not None
    assert np.ptp(found.context, axis=0).max() < 1e-5


@pytest.mark.parametrize("other", ["A Red  house", "same start"])
def test_captions_of_the_same_tokens_may_have_the_same_context(other: str, models: Models, tmp_path: Path) -> None:
    long = "a green cat on a beach beside a red house in the snow under a blue tree"
    first, second = ("a red house", other) if other != "same start" else (long, long + " at night")
    captions = [[first], [second], [second, first], [first, first]] + [["a dog"]] * 3
    found = extract_features(Pictures(captions=captions), "train", models, cache_dir=tmp_path, batch_size=1)
    assert found.context is not None
    assert np.abs(found.context[:4] - found.context[0]).max() < 1e-5
    assert np.abs(found.context[4] - found.context[0]).max() > 1e-3


def test_captions_that_are_cut_are_reported_each_time(models: Models, tmp_path: Path) -> None:
    long = "a green cat on a beach beside a red house in the snow under a blue tree"
    captions = [["a cat"], ["a cat", long], [long + " at night"], [long]] + [["a dog"]] * 3
    tokens = models.tokenizer(long)["input_ids"]
    assert len(tokens) > 15
    left = models.tokenizer.decode(tokens[1:14]).strip()  # between the start and the end mark
    assert long.startswith(left)
    for _ in range(2):
        lines: list[str] = []
        extract_features(
            Pictures(captions=captions), "train", models, cache_dir=tmp_path, batch_size=2, say=lines.append
        )
        assert len(lines) == 1
        assert lines[0].startswith("3 of 8 captions are longer than the 15 tokens of a context and were cut")
        assert f'the first, "{long}", became "{left}"' in lines[0]
    lines.clear()
    extract_features(Pictures(), "test", models, cache_dir=tmp_path, say=lines.append)
    assert lines == []


def test_other_versions_of_libraries_are_reported_and_nothing_is_computed(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    here = extract.versions(libraries.FEATURES)
    assert {"torch", "diffusers", "transformers", "open_clip_torch"} <= set(here)
    with pytest.raises(KeyboardInterrupt):
        extract_features(Pictures(), "train", models, cache_dir=tmp_path, batch_size=2, progress=kill)
    later = {**here, "torch": "9.9.0", "diffusers": here["diffusers"] + "+cpu"}
    monkeypatch.setattr(extract, "versions", lambda _names: later)
    mixed = extract_features(Pictures(), "train", models, cache_dir=tmp_path, batch_size=2)
    assert mixed.libraries["torch"] == f"{here['torch']}, then 9.9.0"
    monkeypatch.setattr(extract, "versions", lambda _names: here)
    data, lines = Pictures(), []
    again = extract_features(data, "train", models, cache_dir=tmp_path, say=lines.append)
    assert data.asked == []
    assert again.libraries == mixed.libraries
    assert len(lines) == 1
    assert f"were computed with torch {here['torch']}, then 9.9.0 (here {here['torch']})" in lines[0]
    assert "diffusers" not in lines[0]


def test_files_can_be_read_by_others(models: Models, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = extract_features(Pictures(), "train", models, cache_dir=tmp_path / "cache").folder
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o644}
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.long
def test_single_edits_of_the_description_change_no_number(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features are found as they were or made again; no edit ends in anything else."""
    rows = {"latent": (4, 4, 4), "structure": (6, 17, 32), "semantic": (32,), "context": (15, 16)}
    rng = np.random.default_rng(0)
    made = {name: rng.standard_normal((7, *shape)).astype(np.float32) for name, shape in rows.items()}
    monkeypatch.setattr(extract, "_features", lambda *_given, **_named: made)  # the models' work is not what is tested
    first = extract_features(Pictures(), "train", models, cache_dir=tmp_path)
    paths = (first.folder / "features.json", first.folder / "journal" / "00000000.json")
    edits = [(path, *edit) for path in paths for edit in single_edits(json.loads(path.read_text()), 60)]
    for path, edit, changed in edits:
        path.write_text(json.dumps(changed))
        found = extract_features(Pictures(), "train", models, cache_dir=tmp_path, say=lambda line: None)
        for name, values in made.items():
            np.testing.assert_array_equal(getattr(found, name), values, err_msg=edit)


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
