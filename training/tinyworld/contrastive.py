"""The tiny world's CLIP: an open_clip model whose visual tower is a ViT with twelve blocks.

Contrastive training alone leaves shapes for last, because colour and background already tell most pairs of a
batch apart; linear heads on the class token and the mean token (dropped afterwards) teach the three words from
the first step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from .loop import LoopSettings, compiled, train
from .pictures import Pictures
from .scenes import BACKGROUNDS, COLOURS, CONCEPTS, IMAGE_SIZE
from .tokens import N_TOKENS

SETTINGS = LoopSettings(steps=3_400, learning_rate=1.5e-3, warmup=300, weight_decay=0.05, ema=0.998, seed=12)
BATCH = 64
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def config(vocab_size: int) -> dict[str, Any]:
    """The `model_cfg` of open_clip_config.json."""
    return {
        "embed_dim": 96,
        "vision_cfg": {"image_size": IMAGE_SIZE, "layers": 12, "width": 96, "head_width": 32, "patch_size": 8},
        "text_cfg": {
            "context_length": N_TOKENS,
            "vocab_size": vocab_size,
            "width": 64,
            "heads": 2,
            "layers": 2,
            "hf_tokenizer_name": "tokenizer",
        },
    }


def write_folder(model: CLIP, tokenizer: CLIPTokenizer, folder: Path, *, half: bool) -> None:
    """Write the open_clip layout: open_clip_config.json, open_clip_model.safetensors and the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    text = json.dumps({"model_cfg": config(len(tokenizer)), "preprocess_cfg": preprocess}, indent=2)
    (folder / "open_clip_config.json").write_text(text + "\n")
    dtype = torch.float16 if half else torch.float32
    weights = {key: value.to(dtype).contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def build(vocab_size: int) -> CLIP:
    return CLIP(**config(vocab_size))


class _Heads(torch.nn.Module):
    """The model with its throw-away classifiers, trained together."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model
        width = model.visual.transformer.width
        sizes = (len(CONCEPTS), len(COLOURS), len(BACKGROUNDS))
        self.class_heads = torch.nn.ModuleList(torch.nn.Linear(width, n) for n in sizes)
        self.mean_heads = torch.nn.ModuleList(torch.nn.Linear(width, n) for n in sizes)


def fit(
    pictures: Pictures,
    tokenizer: CLIPTokenizer,
    folder: Path,
    settings: LoopSettings = SETTINGS,
    *,
    device: str = "cpu",
) -> CLIP:
    """Train and return the CLIP."""
    torch.manual_seed(settings.seed)
    trained = _Heads(build(len(tokenizer))).to(device)
    model = trained.model
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
    words = [
        f"a {colour} {concept} in the {place}" for concept in CONCEPTS for colour in COLOURS for place in BACKGROUNDS
    ]
    tokens = tokenizer(words, padding="max_length", max_length=N_TOKENS, return_tensors="pt").input_ids.to(device)

    def objective(
        image: torch.Tensor, labels: torch.Tensor, text: torch.Tensor, same: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        last, _ = model.visual.transformer.forward_intermediates(_embed(model, (image - mean) / std), indices=1)
        pooled = model.visual.ln_post(last)
        shown = F.normalize(pooled[:, 0] @ model.visual.proj, dim=-1)
        said = F.normalize(model.encode_text(text), dim=-1)
        logits = model.logit_scale.exp().clamp(max=50) * shown @ said.T
        share = same / same.sum(1, keepdim=True)
        pairs = F.cross_entropy(logits, share) + F.cross_entropy(logits.T, share)
        heads = [
            F.cross_entropy(head(token), labels[:, k])
            for token, heads in ((pooled[:, 0], trained.class_heads), (pooled[:, 1:].mean(1), trained.mean_heads))
            for k, head in enumerate(heads)
        ]
        return 0.5 * pairs + sum(heads), pairs, heads[0]

    fast = compiled(objective)

    def loss(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = np.sort(rng.integers(len(pictures), size=BATCH))
        image = torch.from_numpy(pictures.images[chosen]).permute(0, 3, 1, 2).float() / 255
        if rng.integers(2):
            image = image.flip(3)  # mirroring is in the world already, so the caption stays true
        labels = torch.from_numpy(pictures.labels[chosen]).to(device)
        which = (labels[:, 0] * len(COLOURS) + labels[:, 1]) * len(BACKGROUNDS) + labels[:, 2]
        same = (which[:, None] == which[None, :]).float()
        value, pairs, concept = fast(image.to(device).contiguous(), labels, tokens[which], same)
        return value, {"pairs": pairs.item(), "concept": concept.item()}

    train(trained, loss, folder, "contrastive", settings)
    return model.to("cpu").eval()


def _embed(model: CLIP, image: torch.Tensor) -> torch.Tensor:
    """What `VisionTransformer.forward` does before its blocks."""
    visual = model.visual
    patches = visual.conv1(image).flatten(2).transpose(1, 2)
    token = visual.class_embedding.view(1, 1, -1).expand(len(image), -1, -1)
    return visual.ln_pre(torch.cat([token, patches], dim=1) + visual.positional_embedding)
