"""How many parameters each architecture has: the numbers published, or worked out by hand from the published layers."""

from __future__ import annotations

from typing import Any

import pytest

from minddiffuser.runtime.decoders.network import build_network, make_config

torch = pytest.importorskip("torch")


def grid(n_channels: int) -> list[list[float]]:
    """A position for each channel, no two the same."""
    return [[number % 7, number // 7 % 7, number // 49] for number in range(n_channels)]


def count(name: str, shape: tuple[int, ...], n_outputs: dict[str, int], **settings: Any) -> int:
    if name == "brain_module":
        settings = {"positions": grid(shape[0]), **settings}
    with torch.device("meta"):
        module = build_network(name, make_config(name, settings), shape, n_outputs)
    assert all(parameter.requires_grad for parameter in module.parameters())
    return sum(parameter.numel() for parameter in module.parameters())


# Of one feature with so many dimensions. NICE, EEGNet and ATM are worked out from their published code; the brain
# module's is published: 4,170,867 without a head for 256 samples, of which 513 belong to each output.
TABLE = [
    ("nice", (63, 250), 768, 1_802_496),
    ("nice", (63, 250), 1024, 2_630_912),
    ("nice", (17, 250), 768, 1_728_896),
    ("nice", (17, 250), 1024, 2_557_312),
    ("nice", (17, 100), 768, 807_296),
    ("nice", (17, 100), 1024, 1_328_512),
    ("nice", (63, 100), 768, 880_896),
    ("nice", (63, 100), 1024, 1_402_112),
    ("nice", (271, 201), 768, 1_828_096),
    ("nice", (271, 201), 1024, 2_554_112),
    ("eegnet", (63, 250), 1024, 1_186_832),
    ("eegnet", (63, 250), 768, 899_856),
    ("eegnet", (17, 100), 1024, 524_112),
    ("eegnet", (17, 100), 768, 400_976),
    ("eegnet", (271, 201), 1024, 1_056_272),
    ("eegnet", (271, 201), 768, 810_256),
    ("atm", (63, 250), 1024, 3_072_912),
    ("brain_module", (271, 201), 1024, 4_696_124),
    ("brain_module", (63, 256), 1, 4_170_867 + 513),
    ("brain_module", (17, 256), 1, 4_170_867 + 513),
]


@pytest.mark.parametrize(("name", "shape", "n", "expected"), TABLE)
def test_the_published_number_of_parameters(name: str, shape: tuple[int, ...], n: int, expected: int) -> None:
    assert count(name, shape, {"semantic": n}) == expected


@pytest.mark.parametrize(("n_subjects", "expected"), [(2, 3_200_413), (10, 3_704_413)])
def test_the_published_atm_holds_weights_that_never_act(n_subjects: int, expected: int) -> None:
    assert count("atm", (63, 250), {"semantic": 1024}, reference=True, n_subjects=n_subjects) == expected


@pytest.mark.parametrize(("shape", "n"), [((63, 250), 1024), ((17, 100), 1024), ((271, 201), 1024)])
def test_the_atm_by_its_layers(shape: tuple[int, int], n: int) -> None:
    """The published layers for other shapes than the one that is counted above."""
    channels, t = shape
    inner, kept = 4 * (t // 4), (t - 24 - 51) // 5 + 1
    attention = 3 * (t * inner + inner) + inner * t + t
    feed_forward = t * 256 + 256 + 256 * t + t
    convolutions = 25 * 40 + 40 + 80 + 40 * 40 * channels + 40 + 80 + 40 * 40 + 40
    head = 40 * kept * n + n + n * n + n + 2 * n
    expected = t * t + t + t + attention + feed_forward + 6 * t + convolutions + head
    assert count("atm", shape, {"semantic": n}) == expected


def test_the_log_softmax_of_the_published_eegnet_has_no_weights() -> None:
    assert count("eegnet", (63, 250), {"semantic": 1024}, reference=True) == 1_186_832


@pytest.mark.parametrize("shape", [(11_694,), (63, 250)])
def test_the_transformer_and_the_mlp_by_their_layers(shape: tuple[int, ...]) -> None:
    width, feed_forward, hidden = 256, 512, 512
    if len(shape) == 1:  # 32 patches of 366 voxels, 18 of which are filled up
        embedding = 32 * 366 * width + 32 * width
        flat = 11_694
    else:
        embedding = 250 * width + width + 63 * width
        flat = 63 * 250
    layer = 4 * (width * width + width) + 2 * width * feed_forward + feed_forward + width + 4 * width
    assert count("transformer", shape, {"semantic": 768}) == embedding + 3 * layer + 2 * width + 257 * 768
    assert count("mlp", shape, {"semantic": 768}) == (flat + 1) * hidden + 513 * hidden + 4 * hidden + 513 * 768


def test_each_further_feature_adds_its_head_alone() -> None:
    one = {"latent": 40}
    both = {**one, "semantic": 30}
    per_output = {"eegnet": 160 * 7 + 1, "brain_module": 513, "transformer": 257, "mlp": 513}
    for name, weights in per_output.items():
        assert count(name, (63, 250), both) - count(name, (63, 250), one) == 30 * weights
    for name in ("nice", "atm"):
        head = 1440 * 30 + 30 + 30 * 30 + 30 + 60
        assert count(name, (63, 250), both) - count(name, (63, 250), one) == head
        embedded = {"embedding": 1024}
        assert count(name, (63, 250), both, **embedded) - count(name, (63, 250), one, **embedded) == 1025 * 30
