"""Training of the classifier that says what a picture shows, apart from the CLIP used in stage 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...runtime.metrics.classifier import build_classifier, classifier_config
from ...runtime.metrics.classifier_network import ClassifierNetwork, recalibrate
from .loop import LoopSettings, train
from .pictures import Pictures
from .scenes import BACKGROUNDS, COLOURS, CONCEPTS, IMAGE_SIZE

SETTINGS = LoopSettings(steps=4_000, learning_rate=3e-3, warmup=100, weight_decay=0.02, ema=0.99, seed=15)
BATCH = 64


def config() -> dict[str, Any]:
    """The classifier's description: what classifier.json holds."""
    labels = {"concept": list(CONCEPTS), "colour": list(COLOURS), "background": list(BACKGROUNDS)}
    return classifier_config(labels, image_size=IMAGE_SIZE)


def fit(
    pictures: Pictures, folder: Path, settings: LoopSettings = SETTINGS, *, device: str = "cpu"
) -> ClassifierNetwork:
    """Train on renderings of its own seed, softened and noised at random.

    Reconstructions are softer than renderings; a classifier trained on crisp edges alone would react to the softness.
    """
    torch.manual_seed(settings.seed)
    network = build_classifier(config()).to(device).to(memory_format=torch.channels_last)

    def loss(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = np.sort(rng.integers(len(pictures), size=BATCH))
        image = torch.from_numpy(pictures.images[chosen]).permute(0, 3, 1, 2).float().to(device) / 255
        if rng.integers(2):
            image = image.flip(3)
        soft = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        mix = torch.from_numpy(rng.uniform(0, 1, (BATCH, 1, 1, 1)).astype(np.float32)).to(device)
        noise = torch.from_numpy(rng.standard_normal(image.shape, np.float32)).to(device)
        level = float(rng.uniform(0, 0.06))
        image = (image + mix * (soft - image) + level * noise).clamp(0, 1)
        image = image.contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(pictures.labels[chosen]).to(device)
        terms = [F.cross_entropy(logits, labels[:, k], label_smoothing=0.05) for k, logits in enumerate(network(image))]
        return torch.stack(terms).sum(), {
            "concept": terms[0].item(),
            "colour": terms[1].item(),
            "background": terms[2].item(),
        }

    train(network, loss, folder, "classifier", settings)
    network = network.to("cpu")
    sample = pictures.images[:: max(1, len(pictures) // 2_000)]
    recalibrate(
        network,
        [torch.from_numpy(np.array(part)).permute(0, 3, 1, 2).float() / 255 for part in np.array_split(sample, 30)],
    )
    return network
