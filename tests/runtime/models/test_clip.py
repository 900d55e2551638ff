from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import open_clip
import pytest
from safetensors.torch import load_file, save_file

import minddiffuser.runtime.models.clip as clip_module
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.models.open import load_models

REMOVED = object()


@pytest.fixture
def world(small_world: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_world, tmp_path / "world")


def edit(path: Path, field: str, value: Any) -> None:
    content = json.loads(path.read_text())
    inner = content
    *way, last = field.split(".")
    for key in way:
        inner = inner[key]
    inner.pop(last, None)
    if value is not REMOVED:
        inner[last] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("preprocess_cfg", REMOVED, "'preprocess_cfg' is missing, expected an object with the mean and std"),
        ("preprocess_cfg", {}, "'preprocess_cfg.mean' is missing, expected three numbers"),
        ("preprocess_cfg.mean", None, "'preprocess_cfg.mean' is None"),
        ("preprocess_cfg.mean", [0.5], r"'preprocess_cfg.mean' is \[0.5\], expected three numbers"),
        ("preprocess_cfg.std", REMOVED, "'preprocess_cfg.std' is missing"),
        ("preprocess_cfg.std", [0, 0, 0], r"'preprocess_cfg.std' is \[0, 0, 0\], expected three numbers above 0"),
        ("preprocess_cfg.size", 1024, "'preprocess_cfg.size' is 1024, expected .*, the image_size of its vision_cfg"),
        ("preprocess_cfg.interpolation", "nearest", "'nearest', expected one of bicubic, bilinear"),
        ("model_cfg.embed_dim", REMOVED, "'model_cfg.embed_dim' is missing"),
        ("model_cfg.vision_cfg.layers", "12", "'model_cfg.vision_cfg.layers' is '12', expected"),
        ("model_cfg.vision_cfg.width", 65536, "its weights hold .* numbers, its config makes a network of"),
        ("model_cfg.vision_cfg.patch_size", 0, "cannot be opened"),
        ("model_cfg.vision_cfg.image_size", [32, 16], "32 x 16 pixels, expected a square"),
    ],
)
def test_fields_of_a_clip_are_refused_by_name(field: str, value: Any, match: str, world: Path) -> None:
    edit(world / "clip/open_clip_config.json", field, value)
    with pytest.raises(InputError, match=match) as caught:
        load_models(world)
    assert "\n" not in str(caught.value)


def test_every_config_of_open_clip_s_own_has_good_fields(tmp_path: Path) -> None:
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    names = open_clip.list_models()
    assert len(names) > 50
    for name in names:
        clip_module.check_config(tmp_path / name, open_clip.get_model_config(name), preprocess)


def test_weights_that_a_clip_s_config_leaves_unused_are_refused(world: Path) -> None:
    path = world / "clip/open_clip_model.safetensors"
    save_file(load_file(path) | {"visual.more": load_file(path)["logit_scale"]}, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"cannot be opened .*visual.more"):
        load_models(world)


def test_transformers_layout_names_the_cure(world: Path) -> None:
    (world / "clip/open_clip_config.json").rename(world / "clip/config.json")
    with pytest.raises(FileError, match=r"as transformers saves a CLIP: pass open_clip's own, by a name such as ViT-B"):
        load_models(world)


def test_a_clip_in_one_file_names_the_cure(world: Path) -> None:
    for path in (world / "clip/open_clip_model.safetensors", str(world / "clip/open_clip_model.safetensors")):
        with pytest.raises(FileError, match="is one file, .* pass a folder that holds it as open_clip_model.safetens"):
            load_models(world, clip=path)


def test_a_clip_of_the_hub_is_read_as_a_folder(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def fetch(repository: str, names: list[str]) -> Path:
        asked.append((repository, names[0]))
        return world / "clip" / names[0]

    monkeypatch.setattr(clip_module, "hub_file", fetch)
    expected = load_models(world)
    opened = load_models(world, clip="hf-hub:someone/clip")
    assert asked == [("someone/clip", "open_clip_config.json"), ("someone/clip", "open_clip_model.safetensors")]
    assert (opened.hash, opened.preprocessing) == (expected.hash, expected.preprocessing)
    assert load_models(world, clip=f"local-dir:{world / 'clip'}").hash == expected.hash


@pytest.mark.parametrize("clip", ["ViT-B-32:openai", "hf-hub:someone/clip", None])
def test_without_a_network_the_hub_is_asked_once(
    clip: str | None,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import huggingface_hub.constants as constants

    asked: list[Any] = []

    def nobody(*args: Any, **options: Any) -> Any:
        asked.append(args)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited to ask again"))
    shutil.rmtree(world / "clip")
    with pytest.raises(
        FileError, match="could not be fetched from the hub .*: with no network, download it on another"
    ):
        load_models(world, clip=clip)
    assert 1 <= len(asked) <= 2  # the library may ask for something of its own, once in a process
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_cache_that_may_not_be_written_is_told_as_that(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refused(*args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", "/home/someone/.cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refused)
    with pytest.raises(FileError, match=r"the hub's cache may not be used \(/home/someone/.cache: permission denied\)"):
        load_models(world, clip="ViT-B-32:openai")
