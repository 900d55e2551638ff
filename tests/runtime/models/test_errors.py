from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minddiffuser.runtime.errors import FileError, InputError, MindDiffuserError, MissingExtra
from minddiffuser.runtime.models import locate
from minddiffuser.runtime.models.clip import find_clip, open_tower
from minddiffuser.runtime.models.open import load_models

SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture
def world(small_world: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_world, tmp_path / "world")


def refused(kind: type[MindDiffuserError], match: str, *args: Any, **options: Any) -> None:
    """It is refused, in one sentence on one line."""
    with pytest.raises(kind, match=match) as caught:
        load_models(*args, **options)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "name",
    [
        "vae",
        "unet",
        "text_encoder",
        "tokenizer",
        "scheduler",
        "vae/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        SCHEDULER,
    ],
)
def test_a_partial_folder_names_what_is_missing(name: str, world: Path) -> None:
    path = world / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused(FileError, f"lacks .*{name}.*download it again", world)


def test_pickled_weights_are_never_read(world: Path) -> None:
    (world / "unet/diffusion_pytorch_model.safetensors").rename(world / "unet/diffusion_pytorch_model.bin")
    refused(FileError, "pickled weights only", world)


@pytest.mark.parametrize("name", ["vae/config.json", "unet/config.json", SCHEDULER, "clip/open_clip_config.json"])
def test_damaged_json_is_a_file_error(name: str, world: Path) -> None:
    (world / name).write_text('{"truncat')
    refused(FileError, "cannot be read .*damaged", world)


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_truncated_weights_are_a_file_error(name: str, world: Path) -> None:
    (world / name).write_bytes((world / name).read_bytes()[:-100])
    refused(FileError, f"{name.split('/')[0]} cannot be opened .*download it again", world)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "drop"),
        ("vae/diffusion_pytorch_model.safetensors", "drop"),
        ("text_encoder/model.safetensors", "drop"),
        ("text_encoder/model.safetensors", "grow"),
        ("unet/diffusion_pytorch_model.safetensors", "grow"),
    ],
)
def test_weights_that_do_not_fit_are_a_file_error(name: str, change: str, world: Path) -> None:
    weights = load_file(world / name)
    key = sorted(weights)[0]
    value = weights.pop(key)
    if change == "grow":
        weights[key] = torch.cat([value, value])
    save_file(weights, world / name, metadata={"format": "pt"})
    refused(FileError, "fit its config", world)


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "expected UNet2DConditionModel"),
        ("vae/config.json", {"_class_name": "VQModel"}, "expected AutoencoderKL"),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 2}, "no cross-attention"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "as SDXL does"),
        ("unet/config.json", {"in_channels": 9}, "takes 9 and gives 4 channels"),
        ("vae/config.json", {"latent_channels": 16}, "the VAE's latents have 16"),
        ("unet/config.json", {"cross_attention_dim": 768}, "has width 16, the UNet's cross-attention takes 768"),
        ("unet/config.json", {"sample_size": None}, "sample_size None"),
        ("text_encoder/config.json", {"model_type": "t5"}, "expected a 'clip_text_model'"),
        ("text_encoder/config.json", {"max_position_embeddings": 8}, "takes 8 tokens"),
        (SCHEDULER, {"prediction_type": "v_prediction"}, "prediction_type 'v_prediction'"),
        (SCHEDULER, {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule 'squaredcos_cap_v2'"),
        (SCHEDULER, {"beta_end": 2.0}, r"outside \(0, 1\)"),
        (SCHEDULER, {"beta_end": "much"}, "'beta_end' is 'much', expected a number"),
    ],
)
def test_another_architecture_is_refused(name: str, changes: dict[str, Any], match: str, world: Path) -> None:
    edit(world / name, **changes)
    refused(InputError, match, world)


def write_other_clip(folder: Path, **vision: Any) -> None:
    from small_world import clip_config, write_clip

    write_clip(folder, clip_config(**vision))


def test_a_shallow_clip_is_refused_by_preset(world: Path) -> None:
    write_other_clip(world / "clip", layers=5)
    refused(InputError, "has 5 blocks, the layer preset 'reference' needs 6", world)
    write_other_clip(world / "clip", layers=6)
    assert load_models(world).structure_shape == (6, 17, 32)
    refused(
        InputError,
        "has 6 blocks, the layer preset 'paper' needs 12: .*or the preset 'reference'",
        world,
        preset="paper",
    )


def test_a_clip_that_is_no_vit_is_refused(world: Path) -> None:
    write_other_clip(world / "clip", layers=[1, 1, 1, 1], width=8, patch_size=None, head_width=8)
    refused(InputError, "is a ModifiedResNet, expected open_clip's VisionTransformer", world)


def test_a_clip_folder_must_be_whole(world: Path, tmp_path: Path) -> None:
    (world / "clip/open_clip_model.safetensors").rename(world / "clip/open_clip_model.bin")
    refused(FileError, "lacks open_clip_model.safetensors", world)
    (world / "clip/open_clip_config.json").unlink()
    refused(FileError, "the CLIP's config is missing", world)
    refused(FileError, "is not a folder", world, clip=tmp_path / "nowhere")
    refused(FileError, "is not a folder", world, clip="nowhere")


def test_clip_weights_of_another_shape_are_refused(world: Path) -> None:
    path = world / "clip/open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 48
    path.write_text(json.dumps(config))
    refused(InputError, "the CLIP .* cannot be opened", world)


def test_unknown_clip_names_list_choices(small_world: Path) -> None:
    refused(InputError, "unknown to open_clip: choose one such as ViT-B-32", small_world, clip="ViT-B32:openai")
    refused(InputError, "choose one of openai", small_world, clip="ViT-B-32:opnai")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's own offline mode, with an empty cache."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("offline")
def test_no_network_says_how_to_carry_the_models_over(world: Path) -> None:
    refused(FileError, "with no network, download it on another machine .*pass FOLDER", "CompVis/stable-diffusion-v1-4")
    shutil.rmtree(world / "clip")
    refused(FileError, "timm/vit_base_patch32_clip_224.openai could not be fetched .*pass FOLDER", world)


def test_the_openai_clip_is_built_with_its_own_activation(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # open_clip itself only warns that ViT-B-32 lacks the QuickGELU its openai weights were trained with.
    import open_clip

    import minddiffuser.runtime.models.clip as clip_module

    asked: list[Any] = []

    def fetch(repository: str, names: list[str]) -> Path:
        asked.append((repository, names[0]))
        return tmp_path / "open_clip_model.safetensors"

    built: dict[str, Any] = {}

    def create_model(name: str, pretrained: str, **options: Any) -> Any:
        built.update(options, name=name, pretrained=pretrained)
        return open_clip.CLIP(**json.loads((world / "clip/open_clip_config.json").read_text())["model_cfg"])

    monkeypatch.setattr(clip_module, "hub_file", fetch)
    source = find_clip("ViT-B-32:openai", world)
    assert asked == [("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors")]
    assert source.quick_gelu
    assert not find_clip("ViT-B-32:laion2b_s34b_b79k", world).quick_gelu
    assert source.preprocess["mean"] == open_clip.OPENAI_DATASET_MEAN
    monkeypatch.setattr(clip_module.open_clip, "create_model", create_model)
    with pytest.raises(AttributeError, match="preprocess_cfg"):
        open_tower(source)  # the stand-in carries no preprocessing; what was asked for is the point
    assert built["force_quick_gelu"] is True
    assert built["require_pretrained"] is True
    assert built["pretrained"].endswith(".safetensors")


@pytest.mark.parametrize("name", ["./wrold", "~/no/such/folder", "a/b/c", "world", "../x"])
def test_a_misspelt_folder_is_missing_not_a_download(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "_snapshot", lambda name: pytest.fail("the hub was asked"))
    refused(FileError, "does not exist: pass an existing folder, 'tiny', or a hub id", name)


def test_a_file_is_no_folder(world: Path) -> None:
    refused(FileError, "is a file, expected a model folder", world / "model_index.json")


def test_the_tiny_world_without_weights_says_how_to_train_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locate, "TINY_FOLDER", tmp_path / "world")
    refused(FileError, "md-train world", "tiny")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dtype": "fp8"}, "bfloat16, float16, float32, float64"),
        ({"device": "tpu"}, "choose cpu, cuda, cuda:N or mps"),
        ({"device": "cuda:99"}, "is not there, PyTorch sees"),
    ],
)
def test_unknown_settings_are_refused(options: dict[str, str], match: str, small_world: Path) -> None:
    refused(InputError, match, small_world, **options)


def test_a_missing_library_names_the_extra(small_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minddiffuser.runtime.models.build", None)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ModuleNotFoundError("No module named 'diffusers'", name="diffusers")

    importer: Callable[..., Any] = __import__
    monkeypatch.setattr(
        "builtins.__import__",
        lambda name, *rest: fail() if name == "build" or name.endswith("models.build") else importer(name, *rest),
    )
    refused(MissingExtra, r"pip install 'minddiffuser\[torch\]'", small_world)
