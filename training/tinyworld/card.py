"""The model card of a tiny world, written from how it was trained (training.json) and what was measured on it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runtime.errors import FileError
from ...runtime.files import check_format, read_json, write_bytes
from .scenes import BACKGROUNDS, COLOURS, CONCEPTS

_TEXT = """# The tiny world

A small Stable Diffusion model and a small CLIP, in the file formats of the real ones, for pictures of
{image_size} x {image_size} pixels that show one of {n_concepts} things in one of {n_colours} colours in one of
{n_backgrounds} places, at any position, size and tilt, mirrored or not. With them every part of MindDiffuser runs
without a download, and results can be checked against a known ground truth.

![Samples: captions to pictures from pure noise](samples.png)

| folder | what | parameters |
|---|---|---|
| `vae/` | diffusers AutoencoderKL, factor 8, 4 latent channels | {n_vae} |
| `unet/` | diffusers UNet2DConditionModel with cross-attention, 4 x 8 x 8 latents | {n_unet} |
| `text_encoder/`, `tokenizer/` | CLIPTextModel over 15 tokens, byte-pair tokenizer | {n_text} |
| `scheduler/` | Stable Diffusion 1.4's noise schedule | |
| `clip/` | open_clip model, ViT of twelve blocks with patches of 8 pixels, and its text tower | {n_clip} |
| `classifier/` | a small convolutional classifier, for evaluation only: stage 2 never uses it | {n_classifier} |
| `locator/` | a small convolutional network that finds the thing's mask, for evaluation only | {n_locator} |

Weights are stored as float16 and loaded as float32.

## How it was made

{made}

## What it can do

Measured by `md-train world --out FOLDER --part quality` on {n_renderings:,} renderings and {n_samples} captions that
were not used in training, drawn from all combinations of thing, colour and place.

| | thing | colour | place |
|---|---|---|---|
| CLIP zero-shot | {clip_zero_shot} |
| the same, on held-out combinations only | {clip_zero_shot_held_out} |
| captions to pictures from pure noise (50 DDIM steps, guidance 5), classified | {classifier_on_samples} |
| the classifier on renderings | {classifier_on_renderings} |
| the classifier on renderings through the VAE | {classifier_on_vae_round_trip} |

VAE round trip: {vae_psnr_db:.1f} dB PSNR (mean over pictures).

The locator against the renderer: distance of the centres in picture widths, logarithm of the ratio of sizes, error of
the tilt in degrees (medians), and intersection over union of the masks (mean).

| | place | size | tilt | overlap |
|---|---|---|---|---|
| renderings | {locator_on_renderings} |
| the same, on held-out combinations only | {locator_on_renderings_held_out} |
| renderings through the VAE | {locator_on_vae_round_trip} |
| renderings blurred (Gaussian, 2 pixels) | {locator_on_blurred} |

## What it cannot do

It knows these words alone: other captions can be tokenised but mean nothing to it, and a photograph comes back as the
nearest thing that it knows. Fine details (stars, windows, the teeth of a key) are soft, because a picture of 12,288
numbers passes through a latent of 256. Results on it say nothing about how well a method works on real brains or real
pictures.
"""


_MADE = """{command}, on {n_pictures:,} renderings captioned "a COLOUR THING in the PLACE" (the classifier on
{n_classifier_pictures:,} of another seed, the locator on {n_locator_pictures:,} with wider ranges of size, place and
tilt, degraded as reconstructions are: bent, faded, recoloured, blurred, noised). One in twenty combinations of thing,
colour and place never occurs in training.

| part | steps | batch | minutes |
|---|---|---|---|
{trainings}

{hardware}"""
_NOT_KNOWN = "How and where this world was trained is not recorded: its folder has no training.json."

KIND, VERSION = "world", 1


def describe_training(parts: Mapping[str, Any], *, effort: float, note: str | None = None) -> dict[str, Any]:
    """What training.json holds.

    Parameters
    ----------
    parts : training -> {"steps", "batch", "minutes", "hardware", "n_pictures"}, in the order of the card's table.
    effort : share of the shipped world's training.
    note : a person's paragraph on the machine and the course; stands in the card instead of its hardware sentence.
    """
    content = {"format": f"minddiffuser-{KIND}", "version": VERSION, "effort": effort, "parts": dict(parts)}
    return content if note is None else {**content, "note": note}


def read_training(folder: Path) -> dict[str, Any] | None:
    """The training.json of a model folder; None when it has none."""
    path = folder / "training.json"
    if not path.exists():
        return None
    content = read_json(path, "the world's training")
    check_format(content, path, KIND, VERSION)
    return content


def write_card(
    folder: Path, metrics: Mapping[str, Any], parameters: Mapping[str, int], training: Mapping[str, Any] | None
) -> None:
    """Write README.md into a model folder.

    Parameters
    ----------
    folder : the model folder.
    metrics : what `quality.measure` returned.
    parameters : number of parameters by part ("vae", "unet", "text", "clip", "classifier", "locator").
    training : what `read_training` returned; without it the card says that it is not known.

    Raises
    ------
    FileError
        When `training` lacks something that the card states.
    """
    try:
        made = _NOT_KNOWN if training is None else _made(training)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(
            f"{folder / 'training.json'} lacks what the model card states ({error!r}): run the part 'folder' again"
        ) from error
    cells = {name: _cells(value) for name, value in metrics.items() if isinstance(value, dict)}
    text = _TEXT.format(
        image_size=64,
        n_concepts=len(CONCEPTS),
        n_colours=len(COLOURS),
        n_backgrounds=len(BACKGROUNDS),
        made=made,
        **{f"n_{name}": f"{number:,}" for name, number in parameters.items()},
        **{**metrics, **cells},
    )
    write_bytes(folder / "README.md", text.encode("utf-8"))


def _cells(values: Mapping[str, float]) -> str:
    """A row of the card's tables: errors of the locator, or shares of right answers."""
    if "place" in values:
        return "{place:.3f} | {size:.3f} | {tilt_deg:.1f} | {overlap:.3f}".format(**values)
    return " | ".join(f"{100 * share:.1f} %" for share in values.values())


def _made(training: Mapping[str, Any]) -> str:
    parts, effort = training["parts"], training["effort"]
    rows = [
        f"| {name} | {part['steps']:,} | {part['batch']} | {_minutes(part['minutes'])} |"
        for name, part in parts.items()
    ]
    return _MADE.format(
        command="`md-train world --out FOLDER`"
        if effort == 1
        else f"`md-train world --out FOLDER --effort {effort:g}`",
        n_pictures=parts["denoiser"]["n_pictures"],
        n_classifier_pictures=parts["classifier"]["n_pictures"],
        n_locator_pictures=parts["locator"]["n_pictures"],
        trainings="\n".join(rows),
        hardware=textwrap.fill(training.get("note") or _hardware(parts), width=120),
    )


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f}" if minutes >= 1 else "under 1"


def _hardware(parts: Mapping[str, Any]) -> str:
    """One sentence; when the parts were trained on several machines, each with its parts."""
    machines: dict[str, list[str]] = {}
    for name, part in parts.items():
        machines.setdefault(part["hardware"], []).append(name)
    if len(machines) == 1:
        return f"Trained on {next(iter(machines))}."
    places = [f"{machine} ({', '.join(names)})" for machine, names in machines.items()]
    return f"Trained on {'; on '.join(places)}."
