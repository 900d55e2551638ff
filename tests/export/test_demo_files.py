"""The files of the demonstration are those of today's world and formats; how their decoders are rounded."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.export import demo_files
from minddiffuser.export.demo_files import Subject, key, make, round_weights, work_name
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.demo.packed import BLOB, read_index
from minddiffuser.runtime.demo.quick import SHIPPED
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.files import read_tensors

AGAIN = "the shipped demonstration is of another world or format: python -m minddiffuser.export.demo_files"


def test_the_shipped_files_are_of_today() -> None:
    assert read_index(SHIPPED).about["key"] == key(Subject()), AGAIN


def test_they_are_small() -> None:
    assert (SHIPPED / BLOB).stat().st_size < 20_000_000


def test_the_key_knows_what_decides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key(Subject()), key(Subject(seed=8)), key(Subject(n_test=9)), key(Subject(n_structure=9))]
    monkeypatch.setattr(demo_files, "BUNDLE_VERSION", 10_000)
    keys.append(key(Subject()))
    monkeypatch.setattr(demo_files, "sha256_of", lambda path: "0" * 64)
    assert len({*keys, key(Subject())}) == 6


def test_the_working_folder_knows_all_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped files do not become stale with every edit; what is half made on the way does."""
    before = work_name(Subject()), key(Subject())
    assert work_name(Subject()) == before[0]
    assert work_name(Subject(seed=8)) != before[0]
    monkeypatch.setattr(demo_files, "code_digests", lambda: {"export/graphs/denoise.py": "0"})
    assert work_name(Subject()) != before[0]
    assert key(Subject()) == before[1]


def test_weights_are_rounded_and_the_checkpoint_still_opens(small_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    before = open_checkpoint(small_checkpoint)
    responses = np.random.default_rng(0).standard_normal((3, *before.layout.shape)).astype(np.float32)
    given = {path.name: path.read_bytes() for path in small_checkpoint.iterdir() if path.is_file()}
    round_weights(small_checkpoint, folder)
    rounded = open_checkpoint(folder)
    for name in rounded.shapes:
        weight = read_tensors(folder / f"{name}.safetensors", name)["weight"]
        exact = read_tensors(small_checkpoint / f"{name}.safetensors", name)["weight"]
        assert (weight == weight.astype(np.float16)).all()
        np.testing.assert_allclose(weight, exact, rtol=2**-11, atol=2**-25)  # half a unit in the last place
    one, two = (it.decode(responses, screened=True).structure for it in (before, rounded))
    assert 0 < np.abs(one - two).max() < 1e-2 * np.abs(one).max()
    assert {path.name: path.read_bytes() for path in small_checkpoint.iterdir() if path.is_file()} == given


def test_a_rounding_that_is_ended_anywhere_goes_on(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rounded"
    round_weights(small_checkpoint, tmp_path / "whole")
    real = demo_files.write_tensors
    for n_written in range(1, 4):
        left = iter(range(n_written))

        def ended(*given: Any, left: Any = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            real(*given)

        with monkeypatch.context() as patch:
            patch.setattr(demo_files, "write_tensors", ended)
            # A killed process does not tidy up behind itself.
            patch.setattr("minddiffuser.runtime.output.shutil.rmtree", lambda *_, **__: None)
            with pytest.raises(KeyboardInterrupt):
                round_weights(small_checkpoint, out)
        assert not (out / "checkpoint.json").exists()
        for draft in tmp_path.glob(f".rounded.{os.getpid()}.draft"):
            draft.rename(tmp_path / f".rounded.{10**8 + n_written}.draft")  # of another process
    round_weights(small_checkpoint, out)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir() if path.is_file()
    }
    open_checkpoint(out)


def test_a_command_that_fails_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minddiffuser.training import cli

    ran: list[str] = []
    monkeypatch.setattr(cli, "main", lambda arguments: ran.append(arguments[0]) or 2)
    with pytest.raises(InputError, match="md-train simulate failed with exit code 2"):
        make(tmp_path / "work", tmp_path / "out", Subject())
    assert ran == ["simulate"]
    assert not (tmp_path / "out").exists()
