"""checkpoint.json after a person has edited it: the same numbers, or one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from json_edits import single_edits

from minddiffuser.runtime.data.voxels import VOXELS, Voxels, write_voxels
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.decoders.files import OPTIONAL_FILES
from minddiffuser.runtime.errors import MindDiffuserError
from minddiffuser.runtime.files import sha256_of


@pytest.fixture
def checkpoint(tmp_path: Path, small_checkpoint: Path) -> Path:
    """A copy with the fields and files that a fit writes besides."""
    folder = shutil.copytree(small_checkpoint, tmp_path / "checkpoint")
    content = json.loads((folder / "checkpoint.json").read_text())
    write_voxels(folder, Voxels(ijk=np.arange(72).reshape(24, 3)))
    for name in OPTIONAL_FILES:
        if name != VOXELS:
            (folder / name).write_text("{}")
        content["files"][name] = sha256_of(folder / name)
    content["provenance"] = {
        "key": "k",
        "about": "a",
        "n_trials": 3,
        "data": {"kind": "x"},
        "libraries": {"torch": "1"},
        "features": {"key": "f", "libraries": {"torch": "1"}},
    }
    (folder / "checkpoint.json").write_text(json.dumps(content))
    return folder


def test_single_edits_change_no_number(checkpoint: Path) -> None:
    path = checkpoint / "checkpoint.json"
    content = json.loads(path.read_text())
    responses = np.random.default_rng(0).standard_normal((2, 24)).astype(np.float32)
    expected = open_checkpoint(checkpoint).decode(responses)
    n_opened = 0
    for edit, changed in single_edits(content, 300):
        path.write_text(json.dumps(changed))
        try:
            opened = open_checkpoint(checkpoint)
        except MindDiffuserError as error:
            assert len(str(error).splitlines()) == 1, edit  # noqa: PT017
            continue
        n_opened += 1
        decoded = opened.decode(responses)
        for name in ("context", "latent", "structure"):
            np.testing.assert_array_equal(getattr(decoded, name), getattr(expected, name), err_msg=edit)
    assert n_opened > 30


def test_files_for_people_may_be_absent_and_are_verified(checkpoint: Path) -> None:
    path = checkpoint / "checkpoint.json"
    content = json.loads(path.read_text())
    for name in OPTIONAL_FILES:
        fewer = {file: digest for file, digest in content["files"].items() if file != name}
        path.write_text(json.dumps({**content, "files": fewer}))
        open_checkpoint(checkpoint)
    path.write_text(json.dumps(content))
    (checkpoint / "scores.json").write_text("[]")
    with pytest.raises(MindDiffuserError, match=r"scores\.json is truncated or was changed"):
        open_checkpoint(checkpoint)


def test_other_files_are_refused(checkpoint: Path) -> None:
    path = checkpoint / "checkpoint.json"
    content = json.loads(path.read_text())
    (checkpoint / "notes.txt").write_text("mine")
    content["files"]["notes.txt"] = sha256_of(checkpoint / "notes.txt")
    path.write_text(json.dumps(content))
    with pytest.raises(MindDiffuserError, match="field 'files' is .* expected exactly"):
        open_checkpoint(checkpoint)
