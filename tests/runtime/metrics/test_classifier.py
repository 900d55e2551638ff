from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file

from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.metrics.classifier import (
    build_classifier,
    classifier_config,
    open_classifier,
    write_classifier,
)
from minddiffuser.runtime.metrics.classifier_network import recalibrate

LABELS = {"concept": ["square", "bar", "dot"], "colour": ["red", "blue"], "background": ["sky", "sea"]}
SIZE = 16


@pytest.fixture
def config() -> dict[str, Any]:
    return classifier_config(LABELS, image_size=SIZE, channels=(4, 8))


@pytest.fixture
def folder(tmp_path: Path, config: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    network = build_classifier(config)
    images = torch.from_numpy(_images(64))
    recalibrate(network, [images])
    with torch.no_grad():  # so that an untrained classifier's answers vary
        for head, logits in zip(network.heads.values(), network(images), strict=True):
            head.bias -= logits.mean(0)
    write_classifier(tmp_path / "classifier", network, config)
    return tmp_path / "classifier"


def _images(n: int, size: int = SIZE) -> np.ndarray:
    """Noise under a tint of its own in each picture."""
    rng = np.random.default_rng(0)
    return (rng.random((n, 3, 1, 1)) * rng.random((n, 3, size, size))).astype(np.float32)


def _logits_by_hand(arrays: dict[str, np.ndarray], images: np.ndarray, head: str) -> torch.Tensor:
    """The network written out from its weights' names, without its classes."""
    weights = {name: torch.from_numpy(value) for name, value in arrays.items()}
    field = (torch.from_numpy(images) - 0.5) * 4
    for index, stride in zip((0, 3, 6), (2, 2, 1), strict=True):
        kernel = weights[f"features.{index}.weight"]
        field = F.conv2d(field, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        norm = [weights[f"features.{index + 1}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        field = F.batch_norm(field, *norm).relu()
    return field.mean((2, 3)) @ weights[f"heads.{head}.weight"].T + weights[f"heads.{head}.bias"]


def test_predicts_what_its_weights_say(folder: Path) -> None:
    classifier, images = open_classifier(folder), _images(70)
    labels = classifier.predict(images)
    assert labels.shape == (70, 3)
    assert labels.dtype == np.int64
    arrays = load_file(folder / "classifier.safetensors")
    for column, head in enumerate(LABELS):
        np.testing.assert_array_equal(labels[:, column], _logits_by_hand(arrays, images, head).argmax(1).numpy())
    assert len(np.unique(labels, axis=0)) > 2
    assert classifier.labels == {head: tuple(words) for head, words in LABELS.items()}


def test_a_picture_is_classified_alone(folder: Path) -> None:
    classifier, images = open_classifier(folder), _images(5)
    alone = np.concatenate([classifier.predict(images[[index]]) for index in range(5)])
    np.testing.assert_array_equal(classifier.predict(images), alone)


def test_other_sizes_are_resized(folder: Path) -> None:
    classifier, images = open_classifier(folder), _images(40, size=40)
    small = F.interpolate(torch.from_numpy(images), (SIZE, SIZE), mode="bilinear", antialias=True)
    expected = classifier.predict(small.clamp(0, 1).numpy())
    np.testing.assert_array_equal(classifier.predict(images), expected)
    assert len(np.unique(expected, axis=0)) > 2
    with pytest.raises(ShapeError, match="divide uint8"):
        classifier.predict(np.zeros((2, 3, SIZE, SIZE), np.uint8))
    with pytest.raises(InputError, match="span"):
        classifier.predict(images * 255)


def test_weights_are_frozen(folder: Path) -> None:
    classifier = open_classifier(folder)
    assert not classifier.network.training
    assert not any(parameter.requires_grad for parameter in classifier.network.parameters())


def test_half_precision_weights_are_opened_in_float32(folder: Path, config: dict[str, Any]) -> None:
    classifier = open_classifier(folder)
    write_classifier(folder, classifier.network, config, half=True)
    again = open_classifier(folder)
    assert load_file(folder / "classifier.safetensors")["features.0.weight"].dtype == np.float16
    for name, value in again.network.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        torch.testing.assert_close(value, classifier.network.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_learns_two_colours_and_two_backgrounds() -> None:
    torch.manual_seed(1)
    network = build_classifier(classifier_config(LABELS, image_size=SIZE, channels=(4, 8)))
    labels = torch.randint(2, (64, 2))
    images = torch.full((64, 3, SIZE, SIZE), 0.5) + 0.05 * torch.rand(64, 3, SIZE, SIZE)
    images[:, 0, 4:12, 4:12] += 0.4 * labels[:, 0, None, None]
    images[:, 2, 12:] += 0.4 * labels[:, 1, None, None]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        _, colour, background = network(images)
        loss = F.cross_entropy(colour, labels[:, 0]) + F.cross_entropy(background, labels[:, 1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    recalibrate(network, [images])
    _, colour, background = network(images)
    assert (colour.argmax(1) == labels[:, 0]).float().mean() > 0.95
    assert (background.argmax(1) == labels[:, 1]).float().mean() > 0.95


def test_recalibration_measures_plain_means(config: dict[str, Any]) -> None:
    torch.manual_seed(2)
    network = build_classifier(config)
    batches = [torch.rand(8, 3, SIZE, SIZE) for _ in range(3)]
    network(batches[0] * 0)  # leaves its mark on the running statistics
    recalibrate(network, batches)
    first, norm = network.features[0], network.features[1]
    with torch.no_grad():
        response = first((torch.cat(batches) - 0.5) * 4)
    torch.testing.assert_close(norm.running_mean, response.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1
    assert not network.training


@pytest.mark.parametrize("name", ["classifier.json", "classifier.safetensors"])
def test_missing_and_truncated_files(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match="cannot be read"):
        open_classifier(folder)
    (folder / name).unlink()
    with pytest.raises(FileError, match="missing"):
        open_classifier(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "minddiffuser-run"}, "not a MindDiffuser classifier"),
        ({"version": 2}, "version 2"),
        ({"image_size": 0}, "'image_size' is 0"),
        ({"channels": []}, "channels"),
        ({"channels": [4, True]}, "channels"),
        ({"labels": {"concept": ["a"]}}, "a list of words for each of concept"),
        ({"labels": {**LABELS, "colour": ["red", "red"]}}, "'labels.colour' .* every word once"),
        ({"labels": {**LABELS, "colour": [1, 2]}}, r"'labels.colour\[0\]' is 1"),
        ({"labels": {**LABELS, "colour": ["red", "blue", "green"]}}, "do not fit"),
        ({"channels": [4, 6]}, "do not fit"),
    ],
)
def test_damaged_descriptions(folder: Path, config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    (folder / "classifier.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(FileError, match=message):
        open_classifier(folder)


def test_weights_that_are_not_finite(folder: Path) -> None:
    arrays = {name: value.copy() for name, value in load_file(folder / "classifier.safetensors").items()}
    arrays["heads.colour.bias"][1] = np.nan
    save_file(arrays, folder / "classifier.safetensors")
    with pytest.raises(FileError, match="heads.colour.bias"):
        open_classifier(folder)


def test_unknown_device(folder: Path) -> None:
    with pytest.raises(InputError, match="device 'nowhere'"):
        open_classifier(folder, device="nowhere")
