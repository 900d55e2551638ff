"""Fields of the VAE's, the UNet's and the text encoder's configs: refused by name, or reported in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.models.open import load_models
from minddiffuser.training.cli import main

REMOVED = object()


@pytest.fixture
def world(small_world: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_world, tmp_path / "world")


def edit(path: Path, **changes: Any) -> None:
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not REMOVED}))


@pytest.mark.parametrize(
    ("part", "changes", "match"),
    [
        ("vae", {"shift_factor": 0.1}, "'shift_factor' is 0.1, expected null"),
        ("vae", {"latents_mean": [0.1] * 4}, "'latents_mean' is"),
        ("vae", {"latents_std": [2.0] * 4}, "'latents_std' is"),
        ("vae", {"scaling_factor": 0}, "'scaling_factor' is 0, expected a number above 0"),
        ("vae", {"scaling_factor": -0.2}, "'scaling_factor' is -0.2, expected a number above 0"),
        ("vae", {"scaling_factor": None}, "'scaling_factor' is None, expected a number"),
        ("vae", {"scaling_factor": float("inf")}, "'scaling_factor' is inf, expected a number"),
        ("vae", {"in_channels": 1}, "takes 1 and gives 3 channels, expected the 3 of an RGB image"),
        ("vae", {"use_quant_conv": False}, "do not fit its config"),
        ("vae", {"block_out_channels": [8, 8, 8, 10**12]}, "'block_out_channels' is 1000000000000, expected 0 to"),
        ("vae", {"quantization_config": {"quant_method": "x"}}, "'quantization_config' is"),
        ("unet", {"sample_size": 10**12}, "'sample_size' is 1000000000000, expected 0 to"),
        ("unet", {"sample_size": 600}, "sample_size 600, expected one number from 1 to 512"),
        ("unet", {"sample_size": [4, 4]}, r"sample_size \[4, 4\], expected one number"),
        ("unet", {"num_class_embeds": 3}, r"needs more than a text, as SDXL does \(num_class_embeds 3\)"),
        ("unet", {"encoder_hid_dim": 16}, "encoder_hid_dim 16"),
        ("unet", {"time_cond_proj_dim": 8}, "time_cond_proj_dim 8"),
        ("unet", {"attention_type": "gated"}, "attention_type 'gated'"),
        ("unet", {"conv_in_kernel": 4}, "do not fit its config|cannot be opened|does not run"),
        ("unet", {"norm_eps": -1}, "'norm_eps' is -1, expected"),
        ("unet", {"layers_per_block": 1000}, "'layers_per_block' is 1000, expected 0 to 64"),
        ("unet", {"down_block_types": None}, "'down_block_types' is None, expected a list, each entry a text"),
        ("text_encoder", {"max_position_embeddings": None}, "'max_position_embeddings' is None"),
        ("text_encoder", {"num_hidden_layers": 1}, "that the config leaves unused"),
        ("text_encoder", {"layer_norm_eps": 0}, "'layer_norm_eps' is 0, expected a number above 0"),
        ("text_encoder", {"hidden_act": "swoosh"}, "text_encoder cannot be opened .*swoosh"),
    ],
)
def test_fields_are_refused_by_name(part: str, changes: dict[str, Any], match: str, world: Path) -> None:
    edit(world / part / "config.json", **changes)
    with pytest.raises((InputError, FileError), match=match) as caught:
        load_models(world)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("vae", {"shift_factor": 0.0, "latents_mean": None, "latents_std": None}),
        ("vae", {"force_upcast": False}),  # of the pipelines for SDXL alone
        ("unet", {"upcast_attention": None}),
        ("unet", {"addition_embed_type_num_heads": 1}),
    ],
)
def test_fields_that_change_nothing_open_without_a_word(
    part: str, changes: dict[str, Any], world: Path, small_world: Path
) -> None:
    edit(world / part / "config.json", **changes)
    opened, expected = load_models(world), load_models(small_world)
    assert opened.notes == expected.notes == ()
    latent, context = torch.ones(1, 4, 4, 4), expected.encode_text(["a cat"])
    with torch.no_grad():
        assert torch.equal(opened.decode_latent(latent), expected.decode_latent(latent))
        assert torch.equal(opened.predict_noise(latent, 3, context), expected.predict_noise(latent, 3, context))


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        (
            "vae",
            {"sample_size": 64},
            "pictures have 32 pixels, by sample_size 4 of the UNet .* VAE names sample_size 64",
        ),
        (
            "unet",
            {"sample_size": 8},
            "pictures have 64 pixels, by sample_size 8 of the UNet .* VAE names sample_size 32",
        ),
        (
            "text_encoder",
            {"hidden_atc": "gelu", "dropout": 0.0},
            "has hidden_atc, which the installed transformers does",
        ),
        ("unet", {"new_trick": True}, "has new_trick, which the installed diffusers does not know and leaves out"),
    ],
)
def test_what_is_not_used_is_said_in_one_line(part: str, changes: dict[str, Any], said: str, world: Path) -> None:
    edit(world / part / "config.json", **changes)
    (note,) = load_models(world).notes
    assert re.search(said, note)
    assert "\n" not in note


def test_commands_say_it(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(world / "scheduler/scheduler_config.json", steps_offset=0)
    out = ["--out", str(tmp_path / "data"), "--n-train", "3", "--n-test", "2", "--device", "cpu"]
    assert main(["simulate", "fmri", "--brain", "clip", "--models", str(world), *out]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "steps_offset" in line]
    assert len(said) == 1
    assert "scheduler_config.json says steps_offset 0: taken as it is" in said[0]


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder"])
def test_weights_that_are_not_finite_are_refused(part: str, world: Path) -> None:
    path = next((world / part).glob("*.safetensors"))
    weights = {name: value.clone() for name, value in load_file(path).items()}
    for value in weights.values():
        value[..., 0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(FileError, match=f"the {part} of .* gives numbers that are not finite: its weights are damaged"):
        load_models(world)
