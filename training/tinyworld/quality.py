"""How good a tiny world is, on renderings and captions it was not trained on; and a page of its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ...runtime.generators.ddim import ddim_schedule, ddim_update
from ...runtime.images import to_float, to_uint8
from ...runtime.metrics.classifier import open_classifier
from ...runtime.metrics.locator import Locator, open_locator
from ...runtime.metrics.where import overlap, place, size
from ...runtime.models.models import Models
from ...runtime.models.open import load_models
from ...runtime.sampling import Sampling
from .degrade import blur
from .draw import draw_all, draw_coverage
from .pictures import TEST_SEED
from .scenes import BACKGROUNDS, COLOURS, CONCEPTS, Scene, sample_scene, scenes

HEADS = ("concept", "colour", "background")
BLUR_PX = 2.0
_BATCH = 50
Report = Callable[[int, int], None] | None


def measure(
    folder: Path, progress: Report = None, *, n_renderings: int = 1_000, n_samples: int = 500
) -> dict[str, Any]:
    """Every metric that the model card states, from the weights in `folder`.

    Renderings and captions come from `TEST_SEED`, with all combinations of words; accuracies on the combinations
    kept from training stand beside.
    """
    models, classifier = load_models(str(folder)), open_classifier(folder / "classifier")
    many = list(scenes(TEST_SEED, n_renderings, combinations="all"))
    held_out = list(scenes(TEST_SEED + 1, n_renderings // 4, combinations="held-out"))
    images, unseen = to_float(draw_all(many)), to_float(draw_all(held_out))
    truth, unseen_truth = _labels(many), _labels(held_out)
    rebuilt = reconstruct(models, images)
    error = np.square(rebuilt - images).mean(axis=(1, 2, 3))
    asked = list(scenes(TEST_SEED + 2, n_samples, combinations="all"))
    drawn = generate(models, [scene.caption for scene in asked], seed=TEST_SEED, progress=progress)
    return {
        "n_renderings": n_renderings,
        "n_samples": n_samples,
        "vae_psnr_db": float((-10 * np.log10(error)).mean()),
        "clip_zero_shot": _accuracy(zero_shot(folder, models, images), truth),
        "clip_zero_shot_held_out": _accuracy(zero_shot(folder, models, unseen), unseen_truth),
        "classifier_on_renderings": _accuracy(classifier.predict(images), truth),
        "classifier_on_vae_round_trip": _accuracy(classifier.predict(rebuilt), truth),
        "classifier_on_samples": _accuracy(classifier.predict(drawn), _labels(asked)),
        **measure_locator(open_locator(folder / "locator"), models, many, held_out),
    }


def measure_locator(
    locator: Locator, models: Models, many: Sequence[Scene], held_out: Sequence[Scene]
) -> dict[str, dict[str, float]]:
    """How far the locator is from the renderer's own masks and tilts, on scenes as drawn and as reconstructions are.

    Returns
    -------
    Kind of picture -> medians of the metrics `place` and `size` and of the error of the tilt in degrees, and the mean
    of `overlap`.
    """
    images = to_float(draw_all(many))
    kinds = {
        "locator_on_renderings": (many, images),
        "locator_on_renderings_held_out": (held_out, to_float(draw_all(held_out))),
        "locator_on_vae_round_trip": (many, reconstruct(models, images)),
        "locator_on_blurred": (many, blur(torch.from_numpy(images), BLUR_PX).clamp(0, 1).numpy()),
    }
    return {name: _located(locator, scenes, pictures) for name, (scenes, pictures) in kinds.items()}


def _located(locator: Locator, many: Sequence[Scene], images: NDArray[np.float32]) -> dict[str, float]:
    truth, found = true_masks(many), locator.locate(images)
    turned = found.tilt_deg - np.array([scene.tilt_deg for scene in many])
    return {
        "place": float(np.median(place(truth, found.mask))),
        "size": float(np.median(size(truth, found.mask))),
        "overlap": float(overlap(truth, found.mask).mean()),
        "tilt_deg": float(np.median(np.abs(turned))),
    }


def true_masks(many: Sequence[Scene]) -> NDArray[np.bool_]:
    """The pixels that are covered at least to half by the things of scenes, (n, 64, 64) bool."""
    return np.stack([draw_coverage(scene) >= 128 for scene in many])


def count_parameters(folder: Path) -> dict[str, int]:
    """Numbers of trained parameters of each part of a model folder, for its card."""
    models, classifier = load_models(str(folder)), open_classifier(folder / "classifier")
    locator = open_locator(folder / "locator")
    clip = open_clip.create_model(f"local-dir:{folder / 'clip'}")
    parts = {
        "vae": models.vae,
        "unet": models.unet,
        "text": models.text_encoder,
        "clip": clip,
        "classifier": classifier.network,
    }
    counts = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}
    return {**counts, "locator": sum(array.size for array in locator.weights.values())}


@torch.no_grad()
def reconstruct(models: Models, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images (n, 3, H, W) in [0, 1] through the VAE and back."""
    parts = [
        models.decode_latent(models.encode_latent(torch.from_numpy(images[start : start + _BATCH]))).numpy()
        for start in range(0, len(images), _BATCH)
    ]
    return np.concatenate(parts)


@torch.no_grad()
def generate(
    models: Models,
    captions: Sequence[str],
    *,
    seed: int,
    guidance_scale: float = 5.0,
    n_steps: int = 50,
    progress: Report = None,
) -> NDArray[np.float32]:
    """Pictures of captions from pure noise, (n, 3, H, W) in [0, 1]: DDIM with classifier-free guidance."""
    rng = np.random.default_rng(seed)
    schedule = ddim_schedule(models, Sampling(n_steps=n_steps, n_noise=None, n_reverse=n_steps))
    parts = []
    for start in range(0, len(captions), _BATCH):
        words = list(captions[start : start + _BATCH])
        context = models.encode_text([""] * len(words) + words)
        latent = torch.from_numpy(rng.standard_normal((len(words), *models.latent_shape), np.float32))
        for timestep, keep, keep_next in schedule:
            without, within = models.predict_noise(torch.cat([latent, latent]), timestep, context).chunk(2)
            latent = ddim_update(latent, without + guidance_scale * (within - without), keep, keep_next)
        parts.append(models.decode_latent(latent).numpy())
        if progress is not None:
            progress(min(start + _BATCH, len(captions)), len(captions))
    return np.concatenate(parts)


@torch.no_grad()
def zero_shot(folder: Path, models: Models, images: NDArray[np.float32]) -> NDArray[np.int64]:
    """Labels (n, 3) by CLIP alone: each word's class vector is the mean embedding of all captions with that word."""
    clip = open_clip.create_model(f"local-dir:{folder / 'clip'}").eval().float()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder / 'clip'}")
    triples = [(c, k, b) for c in range(len(CONCEPTS)) for k in range(len(COLOURS)) for b in range(len(BACKGROUNDS))]
    names = list(COLOURS)
    words = [f"a {names[k]} {CONCEPTS[c]} in the {BACKGROUNDS[b]}" for c, k, b in triples]
    said = F.normalize(clip.encode_text(tokenizer(words)), dim=-1)
    parts = [models.embedding(torch.from_numpy(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)]
    shown = F.normalize(torch.cat(parts), dim=-1)
    columns = []
    for position, n_classes in enumerate((len(CONCEPTS), len(COLOURS), len(BACKGROUNDS))):
        index = torch.tensor([triple[position] for triple in triples])
        classes = torch.stack([said[index == k].mean(0) for k in range(n_classes)])
        columns.append((shown @ F.normalize(classes, dim=-1).T).argmax(1).numpy())
    return np.stack(columns, axis=1)


def samples_page(folder: Path, path: Path, *, seed: int = 7) -> None:
    """One sample for each concept twice over, its caption below, as a picture."""
    models, rng = load_models(str(folder)), np.random.default_rng(seed)
    captions = []
    for row in range(2):
        for index, concept in enumerate(CONCEPTS):
            scene = sample_scene(rng, combinations="all")
            colour = list(COLOURS)[(5 * index + 7 * row) % len(COLOURS)]
            place = BACKGROUNDS[(3 * index + 5 * row) % len(BACKGROUNDS)]
            captions.append(Scene(**{**vars(scene), "concept": concept, "colour": colour, "background": place}).caption)
    pictures = to_uint8(generate(models, captions, seed=seed))
    contact_sheet(pictures, captions, path)


def contact_sheet(pictures: NDArray[np.uint8], captions: Sequence[str], path: Path, *, n_columns: int = 8) -> None:
    """Pictures (n, H, W, 3) in a grid, twice enlarged, captions below."""
    side, gap, line = 2 * pictures.shape[1], 14, 34
    n_rows = -(-len(pictures) // n_columns)
    sheet = Image.new("RGB", (gap + n_columns * (side + gap), gap + n_rows * (side + line + gap)), (250, 250, 248))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x = gap + index % n_columns * (side + gap)
        y = gap + index // n_columns * (side + line + gap)
        sheet.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS), (x, y))
        first, _, second = caption.partition(" in ")
        pen.multiline_text((x, y + side + 4), f"{first}\nin {second}", fill=(70, 70, 75), font=font, spacing=1)
    sheet.save(path, optimize=True)


def _labels(many: Sequence[Scene]) -> NDArray[np.int64]:
    return np.array([scene.labels for scene in many])


def _accuracy(given: NDArray[np.int64], truth: NDArray[np.int64]) -> dict[str, float]:
    return {head: float((given[:, k] == truth[:, k]).mean()) for k, head in enumerate(HEADS)}
