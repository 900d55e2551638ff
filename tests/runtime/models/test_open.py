from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from minddiffuser.runtime.errors import ShapeError
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.models.preprocess import Preprocessing
from minddiffuser.runtime.resampling import resize_matrix


@pytest.fixture(scope="module")
def models(small_world: Path) -> Models:
    return load_models(small_world)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_shapes_come_from_the_configs(models: Models) -> None:
    assert models.image_size == 32
    assert models.latent_shape == (4, 4, 4)
    assert models.context_shape == (15, 16)
    assert models.structure_shape == (6, 17, 32)
    assert models.scaling_factor == 0.5
    assert models.preprocessing == Preprocessing(size=32, mean=(0.5, 0.4, 0.6), std=(0.25, 0.2, 0.3))


def test_everything_is_frozen_and_in_evaluation_mode(models: Models) -> None:
    for module in (models.vae, models.unet, models.text_encoder, models.clip):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_schedule_is_that_of_diffusers(models: Models, small_world: Path) -> None:
    scheduler = DDIMScheduler.from_config(json.loads((small_world / "scheduler/scheduler_config.json").read_text()))
    np.testing.assert_allclose(models.alphas_cumprod, scheduler.alphas_cumprod.numpy(), rtol=1e-5)
    assert models.alphas_cumprod.dtype == np.float64
    assert (models.steps_offset, models.set_alpha_to_one) == (1, False)


def test_text_is_the_encoder_s_last_hidden_state(models: Models, small_world: Path) -> None:
    captions = ["a red cat in the sea", "a blue boat in the night " * 9]
    encoder = CLIPTextModel.from_pretrained(small_world / "text_encoder").eval()
    tokenizer = CLIPTokenizer.from_pretrained(small_world / "tokenizer")
    for caption, context in zip(captions, models.encode_text(captions), strict=True):
        ids = tokenizer(caption).input_ids[:14]
        ids = [*ids, *[tokenizer.eos_token_id] * (15 - len(ids))]
        with torch.no_grad():
            expected = encoder(torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(context, expected, rtol=1e-5, atol=1e-5)


# Of networks in float64, whose rounding (1e-16, some hundred times over) hides nothing.
EXACT = {"rtol": 0, "atol": 1e-11}


def test_latent_is_the_scaled_posterior_mean_and_back(small_world: Path, images: torch.Tensor) -> None:
    models = load_models(small_world, dtype="float64")
    vae, images = AutoencoderKL.from_pretrained(small_world / "vae").eval().double(), images.double()
    with torch.no_grad():
        mean = vae.quant_conv(vae.encoder(2 * images - 1))[:, :4]
        decoded = vae.decode(mean).sample
    latent = models.encode_latent(images)
    torch.testing.assert_close(latent, 0.5 * mean, **EXACT)
    torch.testing.assert_close(models.decode_latent(latent), (decoded / 2 + 0.5).clamp(0, 1), **EXACT)


def test_noise_is_the_unet_s_output(small_world: Path) -> None:
    models = load_models(small_world, dtype="float64")
    unet = UNet2DConditionModel.from_pretrained(small_world / "unet").eval().double()
    latent, context = torch.randn(2, 4, 4, 4, dtype=torch.float64), torch.randn(2, 15, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = unet(latent, torch.tensor([741, 741]), context, return_dict=False)[0]
        torch.testing.assert_close(models.predict_noise(latent, 741, context), expected, **EXACT)
        assert not torch.allclose(models.predict_noise(latent, 1, context), expected, atol=1e-3)


def test_gradients_reach_latent_and_context(models: Models) -> None:
    latent, context = torch.randn(2, 4, 4, 4, requires_grad=True), torch.randn(2, 15, 16, requires_grad=True)
    image = models.decode_latent(models.predict_noise(latent, 301, context))
    models.structure(image)[0].square().sum().backward()
    assert latent.grad is not None
    assert context.grad is not None
    assert (latent.grad.flatten(1).norm(dim=1) > 0).all()
    assert (context.grad.flatten(1).norm(dim=1) > 0).all()


def test_images_of_another_size_are_refused(models: Models) -> None:
    with pytest.raises(ShapeError, match=r"expected \(n, 3, 32, 32\)"):
        models.encode_latent(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ShapeError, match=r"expected \(n, 3, H, H\)"):
        models.structure(torch.zeros(1, 3, 32, 48))


@pytest.mark.parametrize(("n_in", "n_out"), [(64, 32), (51, 22), (20, 33)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_is_torch_s_antialiased_one(n_in: int, n_out: int, interpolation: str) -> None:
    image = torch.rand(2, 3, n_in, n_in, dtype=torch.float64)
    ours = Preprocessing(size=n_out, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation=interpolation)(image)
    theirs = torch.nn.functional.interpolate(image, (n_out, n_out), mode=interpolation, antialias=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_resize_is_pillow_s_too() -> None:
    picture = np.random.default_rng(3).integers(60, 200, (40, 40), np.uint8)  # mid-grey, so that nothing is clipped
    weight = resize_matrix(40, 16, "bicubic")
    theirs = np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BICUBIC), np.float64)
    assert np.abs(weight @ picture @ weight.T - theirs).max() < 1.1  # Pillow rounds after each of its two passes


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_short_dtypes_give_float32_close_to_float32(
    dtype: str, models: Models, small_world: Path, images: torch.Tensor
) -> None:
    short = load_models(small_world, dtype=dtype)
    assert {p.dtype for p in short.unet.parameters()} == {getattr(torch, dtype)}
    assert {p.dtype for p in short.clip.parameters()} == {getattr(torch, dtype)}
    given, expected = short.structure(images, semantic=True), models.structure(images, semantic=True)
    latent = short.encode_latent(images)
    for ours, exact in [
        *zip(given, expected, strict=True),
        (latent, models.encode_latent(images)),
        (short.decode_latent(latent), models.decode_latent(latent)),
        (short.embedding(images), models.embedding(images)),
        (short.encode_text(["a cat"]), models.encode_text(["a cat"])),
    ]:
        assert ours is not None
        assert exact is not None
        assert ours.dtype == torch.float32
        assert (ours - exact).norm() / exact.norm() < 0.05


def test_float64_stays_float64(small_world: Path, images: torch.Tensor) -> None:
    double = load_models(small_world, dtype="float64")
    latent = double.encode_latent(images.double())
    context = double.encode_text(["a cat", "a dog"])
    for tensor in (latent, context, double.predict_noise(latent, 5, context), double.decode_latent(latent)):
        assert tensor.dtype == torch.float64
    assert double.structure(images.double())[0].dtype == torch.float64


def test_weights_stored_in_half_precision_open_as_float32(small_world: Path, tmp_path: Path) -> None:
    world = shutil.copytree(small_world, tmp_path / "half")
    renamed = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "model"}
    for part, stem in renamed.items():
        weights = load_file(world / part / f"{stem}.safetensors")
        (world / part / f"{stem}.safetensors").unlink()
        halves = {key: value.half() for key, value in weights.items()}
        save_file(halves, world / part / f"{stem}.fp16.safetensors", metadata={"format": "pt"})
    opened = load_models(world)
    whole = load_models(small_world)
    for part in renamed:
        for ours, exact in zip(getattr(opened, part).parameters(), getattr(whole, part).parameters(), strict=True):
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours, exact.half().float(), rtol=0, atol=0)
    assert opened.hash != whole.hash


def test_hash_follows_content_not_place(models: Models, small_world: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(small_world, tmp_path / "elsewhere")
    assert load_models(moved).hash == models.hash
    assert load_models(moved, clip=small_world / "clip", preset="paper").hash == models.hash
    config = moved / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    assert load_models(moved).hash != models.hash


def test_the_door_loads_no_heavy_library() -> None:
    code = (
        "import sys, minddiffuser.runtime.models.open; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
