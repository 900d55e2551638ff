import numpy as np
import pytest
import torch

from minddiffuser.runtime.errors import ShapeError
from minddiffuser.runtime.refine.loss import semantic_loss, structural_loss, weights_of_layers

N, LAYERS, TOKENS, WIDTH = 2, 6, 3, 5


@pytest.fixture
def data(rng):
    generated, target = rng.standard_normal((2, N, LAYERS, TOKENS, WIDTH))
    mask = rng.random((LAYERS, TOKENS, WIDTH)) < 0.4
    return generated, target, mask, rng.random(LAYERS) + 0.1


def by_hand(generated, target, mask, weights, *, kept: bool) -> list[float]:
    """Equation 5, one number at a time."""
    losses = []
    for i in range(N):
        total = 0.0
        for layer in range(LAYERS):
            squares = [
                (generated[i, layer, t, d] - target[i, layer, t, d]) ** 2
                for t in range(TOKENS)
                for d in range(WIDTH)
                if mask[layer, t, d]
            ]
            total += weights[layer] * sum(squares) / (len(squares) if kept else TOKENS * WIDTH)
        losses.append(total)
    return losses


@pytest.mark.parametrize("mean", ["kept", "all"])
@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_formula(data, mean, convert) -> None:
    loss = structural_loss(*(convert(part) for part in data), mean=mean)
    assert loss.shape == (N,)
    np.testing.assert_allclose(np.asarray(loss), by_hand(*data, kept=mean == "kept"), rtol=1e-12)


def test_weights_may_differ_by_trial(data) -> None:
    generated, target, mask, weights = data
    both = structural_loss(generated, target, mask, np.stack([weights, 3 * weights]))
    np.testing.assert_allclose(both, structural_loss(generated, target, mask, weights) * [1, 3])


def test_dimensions_outside_the_mask_do_not_count(data) -> None:
    generated, target, mask, weights = data
    changed = np.where(mask, generated, generated + 100)
    np.testing.assert_array_equal(
        structural_loss(changed, target, mask, weights), structural_loss(generated, target, mask, weights)
    )


def test_a_layer_of_which_nothing_is_kept_adds_nothing(data) -> None:
    generated, target, mask, weights = data
    mask[2] = False
    without = [loss for loss in by_hand_without(2, data)]
    np.testing.assert_allclose(structural_loss(generated, target, mask, weights), without)


def by_hand_without(layer: int, data) -> list[float]:
    rest = [index for index in range(LAYERS) if index != layer]
    generated, target, mask, weights = data
    losses = structural_loss(generated[:, rest], target[:, rest], mask[rest], weights[rest])
    return [float(loss) for loss in losses]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, np.float16])
def test_half_precision_is_summed_in_float32(kind) -> None:
    """40,000 squares of 16: their sum is past float16's range, and bfloat16 would stop counting at 4,096."""
    shape = (2, 1, 100, 400)
    if isinstance(kind, torch.dtype):
        generated, target, mask, weights = (
            torch.full(shape, 4.0, dtype=kind),
            torch.zeros(shape, dtype=kind),
            torch.ones(shape[1:]),
            torch.ones(1),
        )
    else:
        generated, target = np.full(shape, 4, kind), np.zeros(shape, kind)
        mask, weights = np.ones(shape[1:], bool), np.ones(1, np.float32)
    loss = structural_loss(generated, target, mask, weights)
    assert loss.dtype.itemsize >= 4
    np.testing.assert_allclose(np.asarray(loss), [16, 16])
    semantic = semantic_loss(generated.reshape(2, -1), target.reshape(2, -1))
    np.testing.assert_allclose(np.asarray(semantic), [16, 16])


def test_semantic_term_is_the_mean_square(rng) -> None:
    generated, target = rng.standard_normal((2, N, 7))
    expected = [sum((g - t) ** 2 for g, t in zip(generated[i], target[i], strict=True)) / 7 for i in range(N)]
    np.testing.assert_allclose(semantic_loss(generated, target), expected)


def test_reference_weights(data) -> None:
    _, target, mask, _ = data
    weights = weights_of_layers("reference", target, mask)
    for i in range(N):
        norms = [np.linalg.norm((target[i, layer] * mask[layer]).ravel()) for layer in range(LAYERS)]
        total = sum(1 / norm for norm in norms)
        expected = [(1 / norm) / total * boost for norm, boost in zip(norms, [1.5, 1.2, 1, 1, 1, 1], strict=True)]
        np.testing.assert_allclose(weights[i], expected, rtol=1e-6)


def test_reference_weight_of_an_empty_layer_is_zero(data) -> None:
    _, target, mask, _ = data
    mask[3] = False
    weights = weights_of_layers("reference", target, mask)
    assert (weights[:, 3] == 0).all()
    assert np.isfinite(weights).all()


def test_uniform_and_given_weights(data) -> None:
    _, target, mask, _ = data
    np.testing.assert_allclose(weights_of_layers("uniform", target, mask), np.full((N, LAYERS), 1 / 6))
    np.testing.assert_allclose(weights_of_layers((1, 2, 3, 4, 5, 6.5), target, mask)[1], [1, 2, 3, 4, 5, 6.5])


def test_another_number_of_layers_is_refused(data) -> None:
    _, target, mask, _ = data
    with pytest.raises(ShapeError, match="2 numbers for 6 layers"):
        weights_of_layers((1.0, 2.0), target, mask)
    with pytest.raises(ShapeError, match="6 layers"):
        weights_of_layers("reference", target[:, :4], mask[:4])
