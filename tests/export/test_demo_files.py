"""The files of the demonstration are those of today's world and formats; how their decoders are rounded."""

import json
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.export import demo_files
from minddiffuser.export.demo_files import Subject, key, make, round_weights
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.demo.packed import BLOB, read_index
from minddiffuser.runtime.demo.quick import SHIPPED
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.files import read_tensors

AGAIN = "the shipped demonstration is of another world or format: python -m minddiffuser.export.demo_files"


def test_the_shipped_files_are_of_today() -> None:
    assert read_index(SHIPPED)["key"] == key(Subject()), AGAIN


def test_they_are_small() -> None:
    assert (SHIPPED / BLOB).stat().st_size < 20_000_000


def test_the_key_knows_what_decides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key(Subject()), key(Subject(seed=8)), key(Subject(n_test=9)), key(Subject(n_structure=9))]
    monkeypatch.setattr(demo_files, "BUNDLE_VERSION", 10_000)
    keys.append(key(Subject()))
    monkeypatch.setattr(demo_files, "sha256_of", lambda path: "0" * 64)
    assert len({*keys, key(Subject())}) == 6


def test_weights_are_rounded_and_the_checkpoint_still_opens(small_checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "checkpoint"
    shutil.copytree(small_checkpoint, folder)
    before = open_checkpoint(small_checkpoint)
    responses = np.random.default_rng(0).standard_normal((3, *before.layout.shape)).astype(np.float32)
    round_weights(folder)
    rounded = open_checkpoint(folder)
    for name in rounded.shapes:
        weight = read_tensors(folder / f"{name}.safetensors", name)["weight"]
        exact = read_tensors(small_checkpoint / f"{name}.safetensors", name)["weight"]
        assert (weight == weight.astype(np.float16)).all()
        np.testing.assert_allclose(weight, exact, rtol=2**-11, atol=2**-25)  # half a unit in the last place
    one, two = (it.decode(responses, screened=True).structure for it in (before, rounded))
    assert 0 < np.abs(one - two).max() < 1e-2 * np.abs(one).max()
    again = json.loads((folder / "checkpoint.json").read_text())
    round_weights(folder)
    assert json.loads((folder / "checkpoint.json").read_text()) == again


def test_a_command_that_fails_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minddiffuser.training import cli

    ran: list[str] = []
    monkeypatch.setattr(cli, "main", lambda arguments: ran.append(arguments[0]) or 2)
    with pytest.raises(InputError, match="md-train simulate ended with 2"):
        make(tmp_path / "work", tmp_path / "out", Subject())
    assert ran == ["simulate"]
    assert not (tmp_path / "out").exists()
