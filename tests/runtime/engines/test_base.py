"""What an engine refuses before its backend sees it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.bundle.graph_specs import TensorSpec
from minddiffuser.runtime.engines.base import check_feeds, dtype_name
from minddiffuser.runtime.errors import InputError, ShapeError

# Two free dimensions, each in two inputs, and one input without any.
INPUTS = {
    "left": TensorSpec("float32", ("batch", "tokens", 4)),
    "right": TensorSpec("float32", ("tokens", "batch")),
    "step": TensorSpec("int64", (3,)),
}


def fitting(batch: int = 2, tokens: int = 5) -> dict[str, Any]:
    return {
        "left": np.zeros((batch, tokens, 4), np.float32),
        "right": np.zeros((tokens, batch), np.float32),
        "step": np.zeros(3, np.int64),
    }


def as_torch(feeds: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in feeds.items()}


def as_declared(feeds: dict[str, Any]) -> dict[str, Any]:
    """Anything with a dtype by name and a shape, as an array that lies on a GPU."""
    return {name: SimpleNamespace(dtype=str(array.dtype), shape=array.shape) for name, array in feeds.items()}


KINDS = {"numpy": dict, "torch": as_torch, "declared": as_declared}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (2, 5), (5, 2)])
def test_free_dimensions_are_found(kind: str, batch: int, tokens: int) -> None:
    found = check_feeds("sum", INPUTS, KINDS[kind](fitting(batch, tokens)))
    assert found == {"batch": batch, "tokens": tokens}
    assert all(type(size) is int for size in found.values())


# Each: what is changed in feeds that fit, the error, and what its sentence says.
WRONG: dict[str, tuple[dict[str, np.ndarray | None], type[InputError], str]] = {
    "missing": ({"left": None, "step": None}, InputError, "lacks left, step: it takes left, right, step"),
    "unknown": ({"more": np.zeros(1, np.float32)}, InputError, "does not take more"),
    "both": ({"step": None, "more": np.zeros(1)}, InputError, "lacks step and does not take more"),
    "dtype": (
        {"left": np.zeros((2, 5, 4))},
        ShapeError,
        r"input 'left' of the engine 'sum' is float64 \(2, 5, 4\), expected float32 \(batch, tokens, 4\)",
    ),
    "integer": ({"step": np.zeros(3, np.int32)}, ShapeError, r"int32 \(3,\), expected int64 \(3,\)"),
    "rank": ({"left": np.zeros((5, 4), np.float32)}, ShapeError, r"float32 \(5, 4\), expected"),
    "scalar": ({"step": np.array(3)}, ShapeError, r"is int64 \(\), expected int64 \(3,\)"),
    "fixed": ({"left": np.zeros((2, 5, 3), np.float32)}, ShapeError, r"\(2, 5, 3\), expected"),
    "first free": (
        {"right": np.zeros((5, 3), np.float32)},
        ShapeError,
        r"\(5, 3\), expected float32 \(tokens, batch\) with batch = 2 as in the other inputs",
    ),
    "second free": ({"right": np.zeros((6, 2), np.float32)}, ShapeError, "with tokens = 5 as in the other inputs"),
    "empty": (
        {"left": np.zeros((0, 5, 4), np.float32), "right": np.zeros((5, 0), np.float32)},
        ShapeError,
        "batch = 0",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(kind: str, name: str) -> None:
    changes, error, message = WRONG[name]
    feeds = KINDS[kind]({key: array for key, array in (fitting() | changes).items() if array is not None})
    with pytest.raises(InputError, match=message) as caught:
        check_feeds("sum", INPUTS, feeds)
    assert type(caught.value) is error


@pytest.mark.parametrize("given", [[[0.0]], None, "text"])
def test_what_is_no_array_is_refused_by_its_type(given: Any) -> None:
    with pytest.raises(ShapeError, match=rf"is {type(given).__name__} \(\), expected int64 \(3,\)"):
        check_feeds("sum", INPUTS, fitting() | {"step": given})


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.zeros(1, np.float16), "float16"),
        (torch.zeros(1, dtype=torch.bfloat16), "bfloat16"),
        (torch.zeros(1, dtype=torch.bool), "bool"),
        (np.zeros(1, bool), "bool"),
        ([1.0], "list"),
    ],
)
def test_dtypes_have_one_name_in_both_libraries(array: Any, name: str) -> None:
    assert dtype_name(array) == name
