"""Each architecture computes what was published: against other implementations, or its formulas in float64.

Both sides are float64, so what is left is rounding: sums of at most some thousand terms, 1e-16 each of their size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from network_settings import SENSORS, SMALL, VOXELS, draw_statistics

from minddiffuser.runtime.decoders.network import build_network, make_config

torch = pytest.importorskip("torch")
nn = torch.nn
EXACT = {"rtol": 1e-11, "atol": 1e-11}


def drawn(name: str, shape: tuple[int, ...], n_outputs: dict[str, int], **settings: Any) -> Any:
    torch.manual_seed(1)
    module = build_network(name, make_config(name, settings), shape, n_outputs)
    draw_statistics(module)
    return module.double().eval().requires_grad_(False)


@pytest.mark.parametrize("shape", [(63, 250), (17, 100)])
@pytest.mark.parametrize("norm", [0.4, 2.5])
def test_eegnet_is_braindecodes(shape: tuple[int, int], norm: float) -> None:
    """With its weights copied, some filters over the channels longer than their largest norm and some shorter."""
    models, (n_channels, n_times) = pytest.importorskip("braindecode.models"), shape
    benched = {"F1": 8, "D": 20, "F2": 160, "kernel_length": 4, "drop_prob": 0.25}
    with pytest.warns(DeprecationWarning, match="final_layer_with_constraint"):
        theirs = models.EEGNet(n_chans=n_channels, n_outputs=48, n_times=n_times, **benched)
    draw_statistics(theirs)
    with torch.no_grad():
        spatial = theirs.conv_spatial.parametrizations.weight.original
        spatial *= norm * torch.rand(len(spatial), 1, 1, 1) * 2 / spatial.flatten(1).norm(dim=1)[:, None, None, None]
        for name in ("bnorm_temporal", "bnorm_1", "bnorm_2"):
            getattr(theirs, name).weight.uniform_(0.5, 1.5)
            getattr(theirs, name).bias.normal_()
    theirs = theirs.double().eval().requires_grad_(False)
    ours = drawn("eegnet", shape, {"semantic": 48})
    copied = {
        "temporal": theirs.conv_temporal,
        "norm_1": theirs.bnorm_temporal,
        "norm_2": theirs.bnorm_1,
        "depthwise": theirs.conv_separable_depth,
        "pointwise": theirs.conv_separable_point,
        "norm_3": theirs.bnorm_2,
    }
    for name, module in copied.items():
        getattr(ours, name).load_state_dict(module.state_dict())
    ours.spatial.weight.copy_(theirs.conv_spatial.parametrizations.weight.original)
    last = theirs.final_layer.conv_classifier
    ours.heads[0].load_state_dict({"weight": last.weight.flatten(1), "bias": last.bias + 0.25})
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    scores = torch.randn(3, *shape, dtype=torch.float64)
    (found,) = ours(scores)
    torch.testing.assert_close(found - 0.25, theirs(scores), **EXACT)
    reference = drawn("eegnet", shape, {"semantic": 48}, reference=True)
    reference.load_state_dict(ours.state_dict())
    torch.testing.assert_close(reference(scores)[0], found - found.exp().sum(1, keepdim=True).log(), **EXACT)


def torchs_layer(ours: Any, width: int, heads: int, feed_forward: int, *, norm_first: bool) -> Any:
    """PyTorch's own encoder layer with our weights."""
    theirs = nn.TransformerEncoderLayer(
        width, heads, feed_forward, activation="gelu", batch_first=True, norm_first=norm_first, dtype=torch.float64
    ).eval()
    attention = ours.attention
    parts = (attention.query, attention.key, attention.value)
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([part.weight for part in parts]),
            "self_attn.in_proj_bias": torch.cat([part.bias for part in parts]),
            **{f"self_attn.out_proj.{key}": value for key, value in attention.out.state_dict().items()},
            **{f"linear1.{key}": value for key, value in ours.feed_forward[0].state_dict().items()},
            **{f"linear2.{key}": value for key, value in ours.feed_forward[3].state_dict().items()},
            **{f"norm1.{key}": value for key, value in ours.norm_1.state_dict().items()},
            **{f"norm2.{key}": value for key, value in ours.norm_2.state_dict().items()},
        }
    )
    return theirs.requires_grad_(False)


def normalised(values: np.ndarray, part: Any) -> np.ndarray:
    """BatchNorm by its running statistics, over axis 1."""
    mean, var, weight, bias = (
        getattr(part, key).numpy().reshape(-1, *[1] * (values.ndim - 2))
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return np.asarray((values - mean) / np.sqrt(var + part.eps) * weight + bias)


def elu(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.expm1(values))


def gelu(values: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * values * (1 + np.vectorize(math.erf)(values / 2**0.5)))


def temporal_spatial(signals: np.ndarray, part: Any, kernel: int, pool: int, stride: int) -> np.ndarray:
    """NICE's convolutions, sum by sum."""
    weight, bias = part.temporal.weight[:, 0, 0].numpy(), part.temporal.bias.numpy()
    windows = np.lib.stride_tricks.sliding_window_view(signals, kernel, axis=2)
    found = np.einsum("nctk,fk->nfct", windows, weight) + bias[:, None, None]
    pooled = np.lib.stride_tricks.sliding_window_view(found, pool, axis=3)[:, :, :, ::stride].mean(-1)
    found = elu(normalised(pooled, part.norm_1))
    spatial = np.einsum("nfct,gfc->ngt", found, part.spatial.weight[..., 0].numpy())
    found = elu(normalised(spatial + part.spatial.bias.numpy()[:, None], part.norm_2))
    found = np.einsum("nft,gf->ntg", found, part.point.weight[..., 0, 0].numpy()) + part.point.bias.numpy()
    return found.reshape(len(found), -1)


def linear(values: np.ndarray, part: Any) -> np.ndarray:
    return np.asarray(values @ part.weight.numpy().T + part.bias.numpy())


def layer_norm(values: np.ndarray, part: Any) -> np.ndarray:
    centred = values - values.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + part.eps)
    return np.asarray(scaled * part.weight.numpy() + part.bias.numpy())


def projected(values: np.ndarray, head: Any) -> np.ndarray:
    first = linear(values, head[0])
    return layer_norm(first + linear(gelu(first), head[1].inner[1]), head[2])


@pytest.mark.parametrize("embedding", [None, 12])
def test_nice_by_its_formulas(embedding: int | None) -> None:
    settings = {**SMALL["nice"], "embedding": embedding}
    ours = drawn("nice", SENSORS, {"latent": 5, "semantic": 7}, **settings)
    scores = np.random.default_rng(2).standard_normal((3, *SENSORS))
    values = temporal_spatial(scores, ours.trunk, kernel=9, pool=11, stride=5)
    if embedding is None:
        expected = [projected(values, head) for head in ours.heads.heads]
    else:
        expected = [linear(projected(values, ours.heads.embed), head) for head in ours.heads.heads]
    for found, wanted in zip(ours(torch.from_numpy(scores)), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, **EXACT)


@pytest.mark.parametrize("reference", [False, True])
def test_atm_by_pytorchs_attention(reference: bool) -> None:
    """The last channel counts for nothing but the others' attention in the published form; the subject's token does."""
    n_channels, n_times = SENSORS
    settings = {**SMALL["atm"], "embedding": None, "reference": reference}
    ours = drawn("atm", SENSORS, {"semantic": 7}, **settings)
    scores = torch.randn(3, *SENSORS, dtype=torch.float64)
    tokens = torch.cat([ours.subject.expand(3, 1, n_times), ours.embed(scores)], dim=1)
    encoded = ours.norm(torchs_layer(ours.encoder, n_times, 4, 24, norm_first=False)(tokens))
    kept = encoded[:, :n_channels] if reference else encoded[:, -n_channels:]
    values = temporal_spatial(kept.numpy(), ours.trunk, kernel=9, pool=11, stride=5)
    np.testing.assert_allclose(ours(scores)[0].numpy(), projected(values, ours.heads.heads[0]), **EXACT)


@pytest.mark.parametrize(("shape", "tokens"), [(VOXELS, "voxels"), (SENSORS, "channels"), (SENSORS, "times")])
def test_the_transformer_by_pytorchs_layers(shape: tuple[int, ...], tokens: str) -> None:
    ours = drawn("transformer", shape, {"latent": 5, "semantic": 7}, **SMALL["transformer"], tokens=tokens)
    scores = torch.randn(3, *shape, dtype=torch.float64)
    embed = ours.embed
    if tokens == "channels":
        rows = [embed.map(scores[:, number]) for number in range(SENSORS[0])]
    else:
        size = -(-shape[-1] // 8)
        filled = torch.zeros(3, *shape[:-1], 8 * size, dtype=torch.float64)
        filled[..., : shape[-1]] = scores
        cut = [filled[..., size * number : size * (number + 1)].flatten(1) for number in range(8)]
        rows = [part @ (embed.map[number] if tokens == "voxels" else embed.map) for number, part in enumerate(cut)]
    found = torch.stack(rows, dim=1) + embed.place
    assert len(ours.layers) == 3
    for layer in ours.layers:
        found = torchs_layer(layer, 16, 2, 24, norm_first=True)(found)
    pooled = ours.norm(found).mean(dim=1)
    for output, head in zip(ours(scores), ours.heads, strict=True):
        torch.testing.assert_close(output, head(pooled), **EXACT)


def convolved(signals: np.ndarray, part: Any, dilation: int = 1) -> np.ndarray:
    """A convolution that keeps the length, tap by tap."""
    weight = part.weight.numpy()
    reach = weight.shape[2] // 2 * dilation
    padded = np.pad(signals, ((0, 0), (0, 0), (reach, reach)))
    length = signals.shape[2]
    taps = [
        np.einsum("nct,oc->not", padded[:, :, k * dilation : k * dilation + length], weight[:, :, k])
        for k in range(weight.shape[2])
    ]
    return np.asarray(sum(taps) + part.bias.numpy()[:, None])


def test_the_brain_module_by_its_formulas() -> None:
    """Seven layers, so that the dilation starts anew; two of equal width, and others."""
    settings = {**SMALL["brain_module"], "depth": 7}
    ours = drawn("brain_module", SENSORS, {"latent": 5, "semantic": 7}, **settings)
    scores = np.random.default_rng(2).standard_normal((3, *SENSORS))
    places = np.array(SMALL["brain_module"]["positions"])
    places = (places - places.min(0)) / np.ptp(places, axis=0)
    waves = [(i, j, k) for i in range(3) for j in range(3) for k in range(3)]
    phases = np.array([[2 * np.pi / 1.4 * (place + 0.2) @ wave for wave in waves] for place in places])
    likeness = ours.merger.queries.numpy() @ np.concatenate([np.cos(phases), np.sin(phases)], axis=1).T
    weights = np.exp(likeness) / np.exp(likeness).sum(1, keepdims=True)
    found = convolved(np.einsum("oc,nct->not", weights, scores), ours.mix)
    for number, (layer, dilation) in enumerate(zip(ours.layers, (1, 2, 4, 8, 16, 1, 2), strict=True)):
        before, found = found, convolved(found, layer.inner[0], dilation)
        if number < 6:
            found = gelu(normalised(found, layer.inner[1]))
        found = found + before if found.shape == before.shape else found
        if number in (1, 3, 5):
            left, right = np.split(convolved(found, layer.gate[0]), 2, axis=1)
            found = left / (1 + np.exp(-right))
    aggregated = found @ ours.over_time.weight[0].numpy() + ours.over_time.bias.numpy()
    for output, head in zip(ours(torch.from_numpy(scores)), ours.heads, strict=True):
        # The positions are stored in float32, the series' phases are up to 2 pi / 1.4 x 2 x 3 x 1.2 = 32.
        np.testing.assert_allclose(output.numpy(), linear(aggregated, head), rtol=0, atol=1e-5)


def test_where_a_sensor_lies_decides_how_it_is_merged() -> None:
    """Channels in another order, with their positions, give the same; without them they do not."""
    ours = drawn("brain_module", SENSORS, {"semantic": 7}, **SMALL["brain_module"])
    order = [3, 1, 5, 0, 2, 4]
    positions = [SMALL["brain_module"]["positions"][number] for number in order]
    other = build_network(
        "brain_module",
        make_config("brain_module", {**SMALL["brain_module"], "positions": positions}),
        SENSORS,
        {"s": 7},
    ).double()
    other.load_state_dict({**ours.state_dict(), "merger.places": other.merger.places})
    scores = torch.randn(2, *SENSORS, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(scores[:, order])[0], ours(scores)[0], **EXACT)
        assert (other(scores)[0] - ours(scores)[0]).abs().max() > 1e-3


def test_sensors_near_a_random_place_are_not_heard_in_training() -> None:
    """All of them where the distance is large, none where it is 0, and some in between."""
    heard = {}
    for distance in (0.0, 0.3, 0.999):
        ours = drawn("brain_module", SENSORS, {"s": 7}, **{**SMALL["brain_module"], "spatial_dropout": distance})
        ours.merger.train()
        silent = []
        for seed in range(30):
            torch.manual_seed(seed)
            weights = ours.merger(torch.eye(6, dtype=torch.float64)[None])[0]
            assert weights.isfinite().all()
            silent.append(int((weights == 0).all(dim=0).sum()))
        heard[distance] = silent
    assert set(heard[0.0]) == {0}
    assert 0 < np.mean(heard[0.3]) < np.mean(heard[0.999]) < 6
