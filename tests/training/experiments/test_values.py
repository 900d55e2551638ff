"""A cell's file: what was written is read, what was damaged is refused."""

from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.errors import FileError
from minddiffuser.training.experiments.values import Values, read_values, write_values


def test_it_is_read_as_it_was_written(tmp_path: Path, rng: np.random.Generator) -> None:
    made = Values(pictures=("x", "y"), columns={"ssim.stage2": rng.random(2)}, chance={"ssim.stage2": 0.5})
    write_values(tmp_path / "a.json", made)
    found = read_values(tmp_path / "a.json")
    assert (found.pictures, found.chance) == (made.pictures, made.chance)
    np.testing.assert_array_equal(found.columns["ssim.stage2"], made.columns["ssim.stage2"])


@pytest.mark.parametrize(
    ("before", "after"), [('"y"', '"y", "z"'), ("0.25", "null"), ('"columns"', '"others"'), ("0.25", "NaN")]
)
def test_a_damaged_one_is_refused(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "a.json"
    write_values(path, Values(pictures=("x", "y"), columns={"ssim.stage2": np.array([0.25, 0.5])}))
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(FileError):
        read_values(path)
