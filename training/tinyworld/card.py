"""The model card of a tiny world, written from what was measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .scenes import BACKGROUNDS, COLOURS, CONCEPTS

_TEXT = """# The tiny world

A Stable Diffusion and CLIP family in the formats of the real ones, for pictures of {image_size} x {image_size} pixels
that show one of {n_concepts} things in one of {n_colours} colours in one of {n_backgrounds} places, at any position,
size, tilt and mirroring. It exists so that every line of MindDiffuser runs without a download, and so that results can
be checked against a truth that is known.

![Samples: captions to pictures from pure noise](samples.png)

| folder | what | parameters |
|---|---|---|
| `vae/` | diffusers AutoencoderKL, factor 8, 4 latent channels | {n_vae} |
| `unet/` | diffusers UNet2DConditionModel with cross-attention, 4 x 8 x 8 latents | {n_unet} |
| `text_encoder/`, `tokenizer/` | CLIPTextModel over 15 tokens, byte-pair tokenizer | {n_text} |
| `scheduler/` | Stable Diffusion 1.4's noise schedule | |
| `clip/` | open_clip model, ViT of twelve blocks with patches of 8 pixels, and its text tower | {n_clip} |
| `judge/` | a small convolutional classifier, kept apart from everything that stage 2 sees | {n_judge} |

Weights are stored as float16 and loaded as float32.

## How it was made

`md-train world --out FOLDER`, on {n_pictures:,} renderings captioned "a COLOUR THING in the PLACE" (the judge on
{n_judge_pictures:,} of another seed). One in twenty combinations of thing, colour and place never occurs in training.

| part | steps | batch | minutes |
|---|---|---|---|
{trainings}

{hardware}

## What it can do

Measured by `md-train world --out FOLDER --part quality` on {n_renderings:,} renderings and {n_samples} captions that
training did not see, all combinations of words among them.

| | thing | colour | place |
|---|---|---|---|
| CLIP zero-shot | {clip_zero_shot} |
| the same, on held-out combinations only | {clip_zero_shot_held_out} |
| captions to pictures from pure noise (50 DDIM steps, guidance 5), marked by the judge | {samples_judged} |
| the judge on renderings | {judge_on_renderings} |
| the judge on renderings through the VAE | {judge_on_vae_round_trip} |

VAE round trip: {vae_psnr_db:.1f} dB PSNR (mean over pictures).

## What it cannot do

Anything but these words: other captions tokenise but mean nothing, and a photograph comes back as the nearest thing it
knows. Fine marks (stars, windows, the teeth of a key) are soft, because a picture of 12,288 numbers passes through a
latent of 256. It says nothing about how well a method works on real brains or real pictures.
"""


def write_card(
    folder: Path,
    figures: Mapping[str, Any],
    parameters: Mapping[str, int],
    trainings: Mapping[str, tuple[int, int, float]],
    *,
    hardware: str = "",
) -> None:
    """Write README.md into a model folder.

    Parameters
    ----------
    folder : the model folder.
    figures : what `quality.measure` returned.
    parameters : number of parameters by part ("vae", "unet", "text", "clip", "judge").
    trainings : part -> (steps, batch size, minutes).
    hardware : a sentence on the machine.
    """
    rows = [f"| {part} | {steps:,} | {batch} | {minutes:.0f} |" for part, (steps, batch, minutes) in trainings.items()]
    shares = {
        name: " | ".join(f"{100 * share:.1f} %" for share in value.values())
        for name, value in figures.items()
        if isinstance(value, dict)
    }
    text = _TEXT.format(
        image_size=64,
        n_concepts=len(CONCEPTS),
        n_colours=len(COLOURS),
        n_backgrounds=len(BACKGROUNDS),
        trainings="\n".join(rows),
        hardware=hardware,
        **{f"n_{name}": f"{number:,}" for name, number in parameters.items()},
        **{**figures, **shares},
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
