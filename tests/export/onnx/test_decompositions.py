"""Each operator that is broken down, against PyTorch's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minddiffuser.export.onnx import decompositions
from minddiffuser.export.onnx.decompositions import (
    attention,
    enlarge,
    forward_decompositions,
    gradient_decompositions,
    settle,
)

aten = torch.ops.aten
ONLY_INPUT = [True, False, False]


def draw(*shape: int, seed: int = 0) -> Tensor:
    """In float64, where nothing that a formula leaves out is taken for rounding."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope_at(out: Tensor) -> Tensor:
    return draw(*out.shape, seed=1)


def backward(op: Any, *args: Any, **options: Any) -> Any:
    return gradient_decompositions()[op](*args, **options)


def near(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    # Sums of a few hundred products, each rounded to 1e-16 of the largest, and a division by their spread.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(8, 8), (9, 6)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1), 1),
        ((1, 1), (1, 1), (0, 0), (1, 1), 1),
        ((3, 3), (1, 1), (0, 0), (1, 1), 1),
        ((3, 2), (1, 1), (1, 0), (1, 1), 1),
        ((3, 3), (1, 1), (2, 2), (2, 2), 1),
        ((1, 1), (1, 1), (1, 1), (1, 1), 1),  # padded by more than the kernel: no convolution goes back
        ((3, 3), (1, 1), (1, 1), (1, 1), 2),
        ((3, 3), (2, 2), (1, 1), (1, 1), 1),  # an even and an odd size lose another row
        ((3, 3), (2, 2), (0, 0), (1, 1), 1),
        ((4, 4), (4, 4), (0, 0), (1, 1), 1),
        ((3, 3), (2, 1), (1, 1), (1, 1), 2),
    ],
)
def test_back_through_a_convolution(
    size: tuple[int, int], kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> None:
    given = draw(3, 4, *size).requires_grad_()
    weight = draw(6, 4 // groups, *kernel, seed=2)
    out = F.conv2d(given, weight, None, stride, padding, dilation, groups)
    slope = slope_at(out)
    (expected,) = torch.autograd.grad(out, given, slope)
    args = (slope, given.detach(), weight, [6], stride, padding, dilation, False, (0, 0), groups, ONLY_INPUT)
    found, *rest = backward(aten.convolution_backward.default, *args)
    near(found, expected)
    assert rest == [None, None]


def test_gradients_of_weights_are_refused() -> None:
    args = (draw(1, 2, 4, 4), draw(1, 2, 4, 4), draw(2, 2, 1, 1), [2], (1, 1), (0, 0), (1, 1), False, (0, 0), 1)
    for mask in ([True, True, False], [True, False, True]):
        with pytest.raises(NotImplementedError, match="freeze the weights"):
            backward(aten.convolution_backward.default, *args, mask)
    with pytest.raises(NotImplementedError, match="plain convolution"):
        backward(aten.convolution_backward.default, *args[:7], True, *args[8:], ONLY_INPUT)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalisation_both_ways(groups: int, affine: bool) -> None:
    given = 5 + draw(3, 6, 4, 5)
    weight, bias = (draw(6, seed=2), draw(6, seed=3)) if affine else (None, None)
    args = (given, weight, bias, 3, 6, 20, groups, 1e-5)
    expected, mean, rstd = aten.native_group_norm.default(*args)
    found = backward(aten.native_group_norm.default, *args)
    near(found[0], expected)
    slope = slope_at(given)
    back = aten.native_group_norm_backward.default(slope, given, mean, rstd, weight, 3, 6, 20, groups, ONLY_INPUT)
    own = (slope, given, found[1], found[2], weight, 3, 6, 20, groups)
    near(backward(aten.native_group_norm_backward.default, *own, ONLY_INPUT)[0], back[0])
    with pytest.raises(NotImplementedError, match="freeze the weights"):
        backward(aten.native_group_norm_backward.default, *own, [True, True, False])


@pytest.mark.parametrize("affine", [True, False])
def test_layer_normalisation_both_ways(affine: bool) -> None:
    given = 3 + draw(2, 5, 8)
    weight, bias = (draw(8, seed=2), draw(8, seed=3)) if affine else (None, None)
    args = (given, [8], weight, bias, 1e-5)
    expected, mean, rstd = aten.native_layer_norm.default(*args)
    found = backward(aten.native_layer_norm.default, *args)
    near(found[0], expected)
    near(found[1], mean)
    near(found[2], rstd)
    slope = slope_at(given)
    op = aten.native_layer_norm_backward.default
    mask = [True, affine, affine]
    near(backward(op, slope, given, [8], mean, rstd, weight, bias, ONLY_INPUT)[0],
         op(slope, given, [8], mean, rstd, weight, bias, mask)[0])  # fmt: skip
    with pytest.raises(NotImplementedError, match="2 axes"):
        backward(aten.native_layer_norm.default, given, [5, 8], None, None, 1e-5)


def test_silu_both_ways() -> None:
    given = torch.cat([draw(50), torch.tensor([0.0, 80.0, -80.0])]).requires_grad_()
    out = F.silu(given)
    slope = slope_at(out)
    near(backward(aten.silu.default, given.detach()), out.detach())
    near(backward(aten.silu_backward.default, slope, given.detach()), torch.autograd.grad(out, given, slope)[0])


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize(("start", "end"), [(0, 2), (1, 3), (2, 9), (-2, 9), (0, 9)])
def test_back_through_a_slice(dim: int, start: int, end: int) -> None:
    given = draw(3, 4, 5).requires_grad_()
    out = aten.slice.Tensor(given, dim, start, end, 1)
    slope = slope_at(out)
    found = backward(aten.slice_backward.default, slope, [3, 4, 5], dim, start, end, 1)
    assert torch.equal(found, torch.autograd.grad(out, given, slope)[0])


def test_a_slice_with_a_step_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="step 2"):
        backward(aten.slice_backward.default, draw(2), [4], 0, 0, 4, 2)


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("index", [0, 1, -1])
def test_back_through_a_choice_of_one(dim: int, index: int) -> None:
    given = draw(3, 4, 5).requires_grad_()
    out = given.select(dim, index)
    slope = slope_at(out)
    found = backward(aten.select_backward.default, slope, [3, 4, 5], dim, index)
    assert torch.equal(found, torch.autograd.grad(out, given, slope)[0])


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 2), (3, 2)])
def test_nearest_enlargement_is_exact(rows: int, columns: int) -> None:
    """Exact, since each row of the matrix holds a single one; asked for by size or by factor."""
    given = draw(2, 3, 4, 5)
    expected = given.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    by_size = enlarge(given, size=(4 * rows, 5 * columns), mode="nearest")
    by_factor = enlarge(given, scale_factor=(float(rows), float(columns)))
    for found in (by_size, by_factor, *([enlarge(given, scale_factor=float(rows))] if rows == columns else [])):
        assert torch.equal(found, expected)
    assert torch.equal(expected, F.interpolate(given, size=(4 * rows, 5 * columns), mode="nearest"))


def test_enlargement_by_a_fraction_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="no whole factor"):
        enlarge(draw(1, 1, 4, 4), size=(6, 8))


def test_other_ways_to_resize_are_pytorchs() -> None:
    given = draw(1, 2, 4, 4)
    for options in (
        {"size": (6, 8), "mode": "bilinear", "align_corners": False},
        {"scale_factor": 1.5, "mode": "area"},
    ):
        assert torch.equal(enlarge(given, **options), F.interpolate(given, **options))


@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention(scale: float | None) -> None:
    query, key, value = draw(2, 3, 5, 8), draw(2, 3, 7, 8, seed=1), draw(2, 3, 7, 6, seed=2)
    found = attention(query, key, value, scale=scale)
    near(found, F.scaled_dot_product_attention(query, key, value, scale=scale))
    for options in ({"is_causal": True}, {"enable_gqa": True}, {"dropout_p": 0.5}, {"attn_mask": torch.ones(5, 7)}):
        with pytest.raises(NotImplementedError, match="not exported with its gradient"):
            attention(query, key, value, **options)


def test_a_square_is_a_product_and_other_powers_are_left_alone() -> None:
    given = draw(20)
    assert torch.equal(backward(aten.pow.Tensor_Scalar, given, 2), given * given)
    assert torch.equal(backward(aten.pow.Tensor_Scalar, given, 2.0), given * given)
    for exponent in (3, 0.5, -1):
        assert backward(aten.pow.Tensor_Scalar, given, exponent) is NotImplemented


def test_the_rest() -> None:
    given = draw(2, 5)
    for table in (forward_decompositions(), gradient_decompositions()):
        softmax = table[aten._safe_softmax.default](given, 1)
        near(softmax, given.exp() / given.exp().sum(1, keepdim=True))
    for alpha in (1, 2.5):
        near(forward_decompositions()[aten.rsub.Scalar](given, 3, alpha), 3 - alpha * given)
    assert torch.equal(backward(aten.copy.default, draw(3, 2, 5), given), given.expand(3, 2, 5))
    assert torch.equal(backward(aten.empty_permuted.default, [2, 3], [1, 0], dtype=torch.float32), torch.zeros(2, 3))


def test_two_squeezes_in_a_row_are_settled() -> None:
    class Twice(torch.nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            return aten.squeeze.dims(aten.squeeze.dims(given, [0, -1]), [0, 2]) * 2

    given = draw(1, 1, 3, 1, 2, 1)
    traced = torch.export.export(Twice(), (given,)).run_decompositions({}).module()
    expected = traced(given)
    assert [node.target for node in traced.graph.nodes].count(aten.squeeze.dims) == 2
    settle(traced.graph)
    traced.recompile()
    assert aten.squeeze.dims not in [node.target for node in traced.graph.nodes]
    assert all("val" in n.meta for n in traced.graph.nodes if n.target is aten.squeeze.dim)
    torch.testing.assert_close(traced(given), expected, rtol=0, atol=0)


def test_nothing_of_ours_is_missing_here() -> None:
    own = {
        str(op)
        for table in (forward_decompositions(), gradient_decompositions())
        for op, function in table.items()
        if getattr(function, "__module__", None) == decompositions.__name__
    }
    tested = set(re.findall(r"aten\.\w+\.\w+", Path(__file__).read_text()))
    assert own <= tested
