"""Streamed responses give the same folder as responses in memory, and are checked as strictly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minddiffuser.runtime.data.folder import DataFolder, SplitData, write_data
from minddiffuser.runtime.data.streamed import Streamed
from minddiffuser.runtime.errors import InputError, ShapeError


def in_blocks(rows: NDArray[np.float32], sizes: tuple[int, ...]) -> Streamed:
    def blocks() -> Iterator[NDArray[np.float32]]:
        start = 0
        for size in sizes:
            yield rows[start : start + size]
            start += size

    return Streamed(shape=rows.shape, blocks=blocks)


def write(folder: Path, train: Any, test: Any) -> DataFolder:
    splits = {
        name: SplitData(
            responses=rows,
            stimulus=np.arange(len(rows)) % 3,
            images=np.zeros((3, 8, 8, 3), np.uint8),
            captions=[["a"]] * 3,
            noise_ceiling=np.full(5, 0.5),
        )
        for name, rows in (("train", train), ("test", test))
    }
    return write_data(folder, splits, subject="s", rois={"V1": (0, 5)})


def test_the_same_bytes_as_from_memory(tmp_path: Path, rng: np.random.Generator) -> None:
    train, test = (rng.standard_normal((n, 5), dtype=np.float32) for n in (20, 7))
    write(tmp_path / "whole", train, test)
    data = write(tmp_path / "streamed", in_blocks(train, (3, 16, 1)), in_blocks(test[:, ::-1], (7,)))
    assert (tmp_path / "whole/train.safetensors").read_bytes() == (tmp_path / "streamed/train.safetensors").read_bytes()
    np.testing.assert_array_equal(data.responses("test"), test[:, ::-1])


@pytest.mark.parametrize("sizes", [(3, 16), (3, 17, 1)])
def test_another_number_of_rows_is_refused(tmp_path: Path, rng: np.random.Generator, sizes: tuple[int, ...]) -> None:
    rows = rng.standard_normal((21, 5), dtype=np.float32)
    stream = Streamed(shape=(20, 5), blocks=in_blocks(rows, sizes).blocks)
    with pytest.raises(ShapeError, match="expected"):
        write(tmp_path / "data", stream, rows)
    assert not (tmp_path / "data").exists()


def test_nan_in_training_is_refused_when_it_comes(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((20, 5), dtype=np.float32)
    broken = rows.copy()
    broken[13, 2] = np.nan
    with pytest.raises(InputError, match="1 of 20 trials in the train split to write hold NaN"):
        write(tmp_path / "data", in_blocks(broken, (20,)), rows)
    assert not (tmp_path / "data").exists()
