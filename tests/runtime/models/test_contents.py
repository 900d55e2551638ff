"""The files of a model folder: shards, tokenizers of transformers 5, one file, permissions, what the hash is over."""

from __future__ import annotations

import builtins
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.models import locate
from minddiffuser.runtime.models.clip import find_clip
from minddiffuser.runtime.models.contents import find_contents
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models

STEMS = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "model"}
CAPTIONS = ["a red cat in the sea", "Zebra's 12 über-größe!! naïve\u00a0x", "", "a blue boat in the night " * 5]


@pytest.fixture(scope="module")
def whole(small_world: Path) -> Models:
    return load_models(small_world)


@pytest.fixture
def world(small_world: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_world, tmp_path / "world")


def same_numbers(ours: Models, expected: Models) -> None:
    for part in (*STEMS, "clip"):
        pairs = zip(getattr(ours, part).parameters(), getattr(expected, part).parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), part


def shard(folder: Path, stem: str, middle: str = "") -> Path:
    """Two files and an index, as `save_pretrained` writes large models; `middle` is the variant's."""
    weights = load_file(folder / f"{stem}.safetensors")
    (folder / f"{stem}.safetensors").unlink()
    names = sorted(weights)
    halves = {1: names[::2], 2: names[1::2]}
    table = {}
    for number, chosen in halves.items():
        file = f"{stem}{middle}-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in chosen}, folder / file, metadata={"format": "pt"})
        table |= dict.fromkeys(chosen, file)
    index = folder / f"{stem}.safetensors.index{middle}.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    return index


@pytest.mark.parametrize("middle", ["", ".fp16"])
def test_shards_are_read_and_hashed(middle: str, world: Path, whole: Models) -> None:
    indices = [shard(world / part, stem, middle) for part, stem in STEMS.items()]
    opened = load_models(world)
    same_numbers(opened, whole)
    assert opened.hash != whole.hash
    for index in indices:
        last = sorted(index.parent.glob("*-00002-of-*"))[0]
        weights = load_file(last)
        save_file({name: value + 1 for name, value in weights.items()}, last, metadata={"format": "pt"})
        before, opened = opened.hash, load_models(world)
        assert opened.hash != before


def test_shards_beside_one_file_are_chosen_as_the_library_does(world: Path) -> None:
    # diffusers takes the shards, transformers the one file: the hash has to be over what was read.
    for part, stem in STEMS.items():
        single = world / part / f"{stem}.safetensors"
        weights = load_file(single)
        shard(world / part, stem)
        save_file({name: value + 1 for name, value in weights.items()}, single, metadata={"format": "pt"})
    before = load_models(world)
    for part, stem in STEMS.items():
        path = world / part / f"{stem}.safetensors"
        kept = path.read_bytes()
        save_file({name: value + 2 for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
        after = load_models(world)
        first = [next(getattr(models, part).parameters()) for models in (before, after)]
        assert torch.equal(*first) == (before.hash == after.hash) == (part != "text_encoder")
        path.write_bytes(kept)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (None, "'weight_map' is None"),
        ({}, "'weight_map' is {}"),
        ({"conv_in.weight": 3}, "'weight_map.conv_in.weight' is 3, expected the name of a safetensors file"),
        ({"conv_in.weight": "../../secret.safetensors"}, "expected the name of a safetensors file beside it"),
        ({"conv_in.weight": "model.bin"}, "expected the name of a safetensors file beside it"),
    ],
)
def test_an_odd_index_is_refused_by_field(table: Any, match: str, world: Path) -> None:
    shard(world / "unet", STEMS["unet"]).write_text(json.dumps({"weight_map": table}))
    with pytest.raises(InputError, match=match):
        load_models(world)


def test_missing_shards_are_named(world: Path) -> None:
    shard(world / "unet", STEMS["unet"])
    (world / "unet/diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileError, match="names 2 shards and 1 of them are not there, first .*-00002-of-00002.safeten"):
        load_models(world)


@pytest.mark.parametrize(
    "kept",
    [
        {"tokenizer.json", "tokenizer_config.json"},
        {"tokenizer.json"},
        {"tokenizer.json", "vocab.json"},
        {"vocab.json", "merges.txt"},
    ],
)
def test_each_way_to_save_a_tokenizer_gives_the_same_ids(kept: set[str], world: Path, whole: Models) -> None:
    for path in (world / "tokenizer").iterdir():
        if path.name not in kept:
            path.unlink()
    options = {"padding": "max_length", "max_length": 15, "truncation": True}
    opened = load_models(world)
    assert opened.tokenizer(CAPTIONS, **options).input_ids == whole.tokenizer(CAPTIONS, **options).input_ids


def test_a_tokenizer_without_words_says_which_files_it_lacks(world: Path) -> None:
    for name in ("vocab.json", "tokenizer.json"):
        (world / "tokenizer" / name).unlink()
    with pytest.raises(FileError, match="lacks tokenizer/tokenizer.json, or tokenizer/vocab.json and .*merges.txt"):
        load_models(world)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"pad_token": None}, "has no pad_token: give it in tokenizer_config.json"),
        ({"padding_side": "left"}, "does not begin every caption with its start token"),
        ({"bos_token": -1}, "cannot be opened"),
        ({"extra_special_tokens": ["cat"]}, "has 657 words, the text encoder 656"),
    ],
)
def test_an_unusable_tokenizer_is_refused(changes: dict[str, Any], match: str, world: Path) -> None:
    path = world / "tokenizer/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises((FileError, InputError), match=match):
        load_models(world)


@pytest.mark.parametrize("name", ["v1-5-pruned.safetensors", "v1-5-pruned.ckpt"])
def test_a_model_in_one_file_names_the_conversion(name: str, tmp_path: Path) -> None:
    path = tmp_path / "download" / name
    path.parent.mkdir()
    path.write_bytes(b"weights")
    for given in (path, path.parent):
        with pytest.raises(FileError, match=r"from_single_file\('.*" + name + r"'\).save_pretrained\('FOLDER'\), and"):
            load_models(given)


def test_hub_and_folder_prefixes_are_understood(
    world: Path, whole: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load_models(f"local-dir:{world}").hash == whole.hash
    monkeypatch.setattr(locate, "_snapshot", lambda name: world if name == "someone/model" else tmp_path)
    assert load_models("hf-hub:someone/model").hash == whole.hash


def test_an_adapter_beside_the_weights_is_refused(world: Path) -> None:
    # transformers adds it to the network without a word where the library for adapters is installed.
    (world / "text_encoder/adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="belongs to an adapter, which is not read: merge it"):
        load_models(world)


@pytest.mark.parametrize("part", STEMS)
def test_weights_that_the_config_leaves_unused_are_refused(part: str, world: Path) -> None:
    path = world / part / f"{STEMS[part]}.safetensors"
    save_file(load_file(path) | {"another.weight": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(FileError, match=r"1 that the config leaves unused, first another.weight"):
        load_models(world)


def test_old_names_and_stored_positions_are_no_unused_weights(world: Path, whole: Models) -> None:
    # As in the published files of Stable Diffusion 1.4.
    text = world / "text_encoder/model.safetensors"
    prefixed = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(text).items()}
    prefixed["text_model.embeddings.position_ids"] = torch.arange(15)[None]
    save_file(prefixed, text, metadata={"format": "pt"})
    vae = world / "vae/diffusion_pytorch_model.safetensors"
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    weights = {}
    for name, value in load_file(vae).items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}", f"attentions.0.{former}")
        weights[name] = value
    assert any(".query." in name for name in weights)
    save_file(weights, vae, metadata={"format": "pt"})
    same_numbers(load_models(world), whole)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_the_dtype_in_the_config_does_not_round_the_weights(name: str, world: Path, whole: Models) -> None:
    path = world / "text_encoder/config.json"
    config = json.loads(path.read_text())
    config.pop("dtype", None)
    path.write_text(json.dumps(config | {name: "float16"}))
    opened = load_models(world)
    assert all(parameter.dtype == torch.float32 for parameter in opened.text_encoder.parameters())
    same_numbers(opened, whole)


def test_settings_of_the_outputs_do_not_matter(world: Path, whole: Models) -> None:
    path = world / "text_encoder/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"return_dict": False, "output_hidden_states": True}))
    assert torch.equal(load_models(world).encode_text(CAPTIONS), whole.encode_text(CAPTIONS))


def test_the_hash_is_over_every_file_that_is_opened(world: Path) -> None:
    # Python's own audit says which files the libraries open.
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (world / "tokenizer/special_tokens_map.json").write_text(json.dumps(special))
    (world / "tokenizer/added_tokens.json").write_text("{}")
    watched: set[Path] = set()
    watching = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(str(world)):
            watched.add(Path(arguments[0]))

    sys.addaudithook(watch)
    before = load_models(world).hash
    watching.clear()
    files = {path for path in watched if path.is_file()}
    assert {path.relative_to(world).parts[0] for path in files} == {*STEMS, "scheduler", "tokenizer", "clip"}
    hashed = {*find_contents(world).files.values(), *find_clip(None, world).files.values()}
    assert len(files) > 10
    assert files <= hashed
    for name in ("tokenizer/added_tokens.json", "clip/open_clip_config.json"):
        (world / name).write_text((world / name).read_text() + "\n")
        changed = load_models(world).hash
        assert changed != before
        before = changed


@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "clip/open_clip_config.json",
        "clip/open_clip_model.safetensors",
    ],
)
def test_a_file_that_may_not_be_read_is_told_as_that(name: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever runs the tests may read everything, so the system's refusal is played.
    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def open_file(path: Any, *args: Any, **options: Any) -> Any:
            if str(path) == str(world / name):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **options)

        return open_file

    monkeypatch.setattr(builtins, "open", refusing(builtins.open))
    monkeypatch.setattr(io, "open", refusing(io.open))
    with pytest.raises(FileError, match=rf"{name} may not be read \(permission denied\): change its permissions"):
        load_models(world)


def test_a_folder_that_may_not_be_entered_is_told_as_that(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.is_dir

    def is_dir(path: Path) -> bool:
        if path == world / "unet":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    with pytest.raises(FileError, match=r"unet may not be read \(permission denied\)"):
        load_models(world)


def test_transformers_own_text_encoder_is_what_is_read(world: Path, whole: Models) -> None:
    shard(world / "text_encoder", "model")
    theirs = CLIPTextModel.from_pretrained(world / "text_encoder", dtype=torch.float32)
    opened = load_models(world)
    pairs = zip(opened.text_encoder.parameters(), theirs.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
