"""checkpoint.json after a person has edited it: the same numbers, or one sentence."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.checkpoint import OPTIONAL_FILES
from minddiffuser.runtime.decode import open_checkpoint
from minddiffuser.runtime.errors import MindDiffuserError
from minddiffuser.runtime.files import sha256_of

REMOVED = object()
EDITS = (None, "x", -1, [], 0.5, {}, REMOVED)


def fields(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document but its root."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [found for key, value in items for found in ((*path, key), *fields(value, (*path, key)))]


def edited(content: Any, path: tuple[Any, ...], edit: object) -> Any:
    content = json.loads(json.dumps(content))
    place = content
    for key in path[:-1]:
        place = place[key]
    if edit is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = edit
    return content


@pytest.fixture
def checkpoint(tmp_path: Path, small_checkpoint: Path) -> Path:
    """A copy with the fields and files that a fit writes besides."""
    folder = shutil.copytree(small_checkpoint, tmp_path / "checkpoint")
    content = json.loads((folder / "checkpoint.json").read_text())
    for name in OPTIONAL_FILES:
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
    cases = [(place, edit) for place in fields(content) for edit in EDITS]
    assert len(cases) > 300
    n_opened = 0
    for place, edit in random.Random(8).sample(cases, 300):
        path.write_text(json.dumps(edited(content, place, edit)))
        try:
            opened = open_checkpoint(checkpoint)
        except MindDiffuserError as error:
            said = str(error)
            assert "\n" not in said and len(said) < 600, said  # noqa: PT017, PT018
            continue
        n_opened += 1
        decoded = opened.decode(responses)
        for name in ("context", "latent", "structure"):
            np.testing.assert_array_equal(getattr(decoded, name), getattr(expected, name), err_msg=f"{place} {edit}")
    assert n_opened > 30


def test_files_for_people_may_be_absent_and_are_verified(checkpoint: Path) -> None:
    path = checkpoint / "checkpoint.json"
    content = json.loads(path.read_text())
    for name in OPTIONAL_FILES:
        path.write_text(json.dumps(edited(content, ("files", name), REMOVED)))
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
    with pytest.raises(MindDiffuserError, match="field 'files' is missing or wrong"):
        open_checkpoint(checkpoint)
