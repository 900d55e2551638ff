"""Single fields of a model folder's JSON files are edited: the folder opens as before, or is refused in one sentence.

Where it opens and computes something else, the field was honoured: diffusers, transformers and open_clip, asked for the
same folder without any of our code, compute the same.
"""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

import minddiffuser.runtime.models.build as build
from minddiffuser.runtime.errors import MindDiffuserError
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models

REMOVED = object()
VALUES: tuple[Any, ...] = (None, "x", -1, [], 0.5, {}, 10**12, True, 0, 3, [1], float("nan"), REMOVED)
FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "vae/config.json",
    "unet/config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "clip/open_clip_config.json",
)
# What would be read instead of the edited file, which is taken away meanwhile.
INSTEAD = {
    "tokenizer/tokenizer_config.json": "tokenizer/special_tokens_map.json",
    "tokenizer/vocab.json": "tokenizer/tokenizer.json",
}
# Thousands of entries: a few of each are edited.
LARGE = ("tokenizer/tokenizer.json", "tokenizer/vocab.json")
PER_FILE = {"model_index.json": 5, "unet/config.json": 20, "scheduler/scheduler_config.json": 45}
OTHERS = 14
CAPTIONS = ["a red cat in the sea", ""]
Numbers = dict[str, Any]
Kept = dict[Any, Any]
Edit = tuple[str, tuple[Any, ...], Any]


@pytest.fixture(scope="module")
def world(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(small_world, tmp_path_factory.mktemp("edited") / "world")
    end = {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {"bos_token": "<|startoftext|>", "eos_token": end, "pad_token": "<|endoftext|>", "unk_token": end}
    (folder / "tokenizer/special_tokens_map.json").write_text(json.dumps(special))
    return folder


def fields(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value of a JSON file, containers too."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from fields(value, (*path, key))


def edits(world: Path, rng: np.random.Generator) -> list[Edit]:
    """Every field with every value, and lists one entry shorter and longer; of large files a few."""
    chosen = []
    for name in (*FILES, *LARGE):
        content = json.loads((world / name).read_text())
        ways = list(fields(content))
        if name in LARGE:
            ways = [ways[i] for i in np.sort(rng.choice(len(ways), 20, replace=False))]
            ways += [way for way in fields(content) if len(way) == 1 and name == LARGE[0]]
        for way in ways:
            held = functools.reduce(lambda inner, key: inner[key], way, content)
            lists = (held[:-1], [*held, *held[-1:]]) if isinstance(held, list) else ()
            chosen += [(name, way, value) for value in (*VALUES, *lists)]
    return chosen


def edited(content: Any, way: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    inner = functools.reduce(lambda inner, key: inner[key], way[:-1], content)
    if value is REMOVED:
        del inner[way[-1]]
    else:
        inner[way[-1]] = value
    return content


def ours(models: Models, kept: Kept) -> Numbers:
    """What the models compute; parts that were there before are asked once."""
    image, latent = example(models.image_size, models.latent_shape)

    def once(name: str, part: Any, compute: Callable[[], Any], *also: object) -> Any:
        key = (name, id(part), models.image_size, *also)
        if key not in kept:
            kept[key] = (compute(), part)  # the part is kept too, so that no other gets its id
        return kept[key][0]

    with torch.no_grad():
        context = once("text", models.text_encoder, lambda: models.encode_text(CAPTIONS), id(models.tokenizer))
        structure, token, embedding = once("clip", models.clip, lambda: models.features(example(40, (1, 1, 1))[0]))
        noise = once("unet", models.unet, lambda: models.predict_noise(latent, 341, context[:1]), id(context))
        return {
            "context": context,
            "latent": once("encode", models.vae, lambda: models.encode_latent(image)),
            "noise": noise,
            "decoded": once("decode", models.vae, lambda: models.decode_unclamped(latent)),
            "structure": structure,
            "token": token,
            "embedding": embedding,
            "alphas": torch.from_numpy(models.alphas_cumprod.copy()),
            "steps": torch.tensor([models.steps_offset, models.set_alpha_to_one]),
        }


def example(size: int, latent_shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    make = torch.Generator().manual_seed(5)
    return torch.rand(1, 3, size, size, generator=make), torch.randn(1, *latent_shape, generator=make)


def theirs(folder: Path, name: str) -> Numbers:
    """What the libraries compute from the part that `name` belongs to."""
    make: dict[str, Callable[[Path], Numbers]] = {
        "scheduler": _their_schedule,
        "vae": _their_vae,
        "unet": _their_unet,
        "text_encoder": _their_text,
        "tokenizer": _their_text,
        "clip": _their_clip,
    }
    with torch.no_grad():
        return make[name.split("/")[0]](folder)


def _their_schedule(folder: Path) -> Numbers:
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    steps = torch.tensor([scheduler.config.steps_offset, bool(scheduler.final_alpha_cumprod == 1)])
    return {"alphas": scheduler.alphas_cumprod.double(), "steps": steps}


def _their_vae(folder: Path) -> Numbers:
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    side = json.loads((folder / "unet/config.json").read_text())["sample_size"]
    channels, factor = vae.config.latent_channels, vae.config.scaling_factor
    image, latent = example(side * 2 ** (len(vae.config.block_out_channels) - 1), (channels, side, side))
    decoded = vae.decode(latent / factor).sample / 2 + 0.5
    return {"latent": vae.encode(image * 2 - 1).latent_dist.mean * factor, "decoded": decoded}


def _their_unet(folder: Path) -> Numbers:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    side = unet.config.sample_size
    latent = example(8 * side, (4, side, side))[1]
    return {"noise": unet(latent, 341, _their_text(folder)["context"][:1]).sample}


def _their_text(folder: Path) -> Numbers:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    ids = tokenizer(CAPTIONS, padding="max_length", max_length=15, truncation=True, return_tensors="pt").input_ids
    return {"context": encoder(ids, return_dict=True).last_hidden_state}


def _their_clip(folder: Path) -> Numbers:
    model = open_clip.create_model(f"local-dir:{folder / 'clip'}").eval()
    config = open_clip.get_model_preprocess_cfg(model)
    image = torch.nn.functional.interpolate(
        example(40, (1, 1, 1))[0], model.visual.image_size, mode=config["interpolation"], antialias=True
    )
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    output = model.visual((image - mean) / std)
    return {"embedding": output[0] if isinstance(output, tuple) else output}


@pytest.fixture
def kept(world: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Parts whose files were not edited are opened and tried once."""
    kept: Kept = {}

    def once(name: str, places: Callable[..., list[Path]]) -> None:
        real = getattr(build, name)

        def call(*args: Any, **options: Any) -> Any:
            read = tuple((path.name, path.read_bytes()) for path in places(*args) if path.is_file())
            key = (name, read, *(str(argument) for argument in args if not isinstance(argument, Path)))
            if key not in kept:
                kept[key] = real(*args, **options)
            return kept[key]

        monkeypatch.setattr(build, name, call)

    once("_read", lambda kind, folder, *rest: [folder / "config.json"])
    once("read_tokenizer", lambda folder, size: sorted(folder.iterdir()))
    for name in ("check_clip", "open_tower"):
        once(name, lambda *args: [world / "clip/open_clip_config.json"])
    real = build.try_networks

    def try_networks(models: Models) -> None:
        parts = (models.vae, models.unet, models.text_encoder, models.tokenizer, models.clip)
        key = ("tried", *map(id, parts))
        if key not in kept:
            real(models)
            kept[key] = parts

    monkeypatch.setattr(build, "try_networks", try_networks)
    return kept


def outcome(world: Path, edit: Edit, before: Numbers, kept: Kept) -> str:
    """'same', 'honoured' or 'refused'; fails for anything else."""
    name, way, value = edit
    path = world / name
    whole = path.read_text()
    other, aside = world / INSTEAD.get(name, name), world / "aside"
    path.write_text(json.dumps(edited(json.loads(whole), way, value)))
    if other != path:
        other.rename(aside)
    try:
        now = opened(world, kept)
        if isinstance(now, str):
            assert "\n" not in now
            assert len(now) < 700
            return "refused"
        changed = {key for key in before if not _alike(now[key], before[key])}
        if not changed:
            return "same"
        expected = theirs(world, name)
        for key in expected:
            assert _alike(now[key], expected[key]), f"{key} is neither as before nor as the libraries have it"
        assert changed <= {*expected, *_FOLLOWING.get(name.split("/")[0], ())}
        return "honoured"
    finally:
        path.write_text(whole)
        if other != path:
            aside.rename(other)


def opened(world: Path, kept: Kept) -> Numbers | str:
    """What the folder computes, or why it is refused."""
    try:
        return ours(load_models(world), kept)
    except MindDiffuserError as error:
        return str(error)


# What else moves with a part: the UNet is given the context, and its sample_size decides the picture's size.
_FOLLOWING = {
    "tokenizer": ("noise",),
    "text_encoder": ("noise",),
    "unet": ("latent", "decoded"),
    "clip": ("structure", "token"),
}


def _alike(given: torch.Tensor, expected: torch.Tensor) -> bool:
    if given.shape != expected.shape:
        return False
    # Both are float32 of the same operations in another memory layout, and diffusers' alphas are float32 products: some
    # hundred roundings of the largest numbers.
    largest = max(1.0, float(expected.abs().max()))
    return torch.allclose(given.double(), expected.double(), rtol=0, atol=300 * 2.0**-24 * largest)


def check(world: Path, chosen: list[Edit], kept: Kept) -> Counter[str]:
    before, found = ours(load_models(world), kept), Counter[str]()
    for edit in chosen:
        try:
            found[outcome(world, edit, before, kept)] += 1
        except (Exception, pytest.fail.Exception) as error:
            pytest.fail(f"{edit[0]}, field {edit[1]} = {edit[2]!r}: {type(error).__name__}: {error}")
    return found


def test_edited_fields_end_well(world: Path, kept: Kept, rng: np.random.Generator) -> None:
    every = edits(world, rng)
    chosen = []
    for name in (*FILES, *LARGE):
        here = [edit for edit in every if edit[0] == name]
        chosen += [here[i] for i in rng.choice(len(here), min(len(here), PER_FILE.get(name, OTHERS)), replace=False)]
    found = check(world, chosen, kept)
    assert found.total() > 120
    assert min(found[kind] for kind in ("same", "honoured", "refused")) >= 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_edited_field_ends_well(world: Path, kept: Kept, rng: np.random.Generator) -> None:
    found = check(world, edits(world, rng), kept)
    assert found.total() > 2000
