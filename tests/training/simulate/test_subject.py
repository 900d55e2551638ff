"""A simulation holds its folder from its first picture on: a second one into the same folder says so at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.data.destination import check_target
from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.locks import beside as lock_of
from minddiffuser.runtime.locks import locked
from minddiffuser.training.cli import main
from minddiffuser.training.simulate.fmri import Area, FmriSettings
from minddiffuser.training.simulate.subject import Showing, simulate_subject

SETTINGS = FmriSettings(areas={"V1": Area(n_voxels=8, layers=(0, 1), structural=(1.0, 1.0)), "LO": Area(n_voxels=4)})


class Eyes:
    """Models that are one random projection, and note what somebody else would be told meanwhile."""

    name, hash, image_size, device = "eyes", "0" * 64, 16, "cpu"

    def __init__(self, out: Path) -> None:
        self.out, self.printed = out, []
        self.weights = torch.from_numpy(np.random.default_rng(0).standard_normal((768, 6 * 5 * 7)).astype(np.float32))

    def encode_text(self, captions: Sequence[str]) -> Any:
        codes = np.array([[hash(len(text)) % 97 + k for k in range(15 * 3)] for text in captions], np.float32)
        return torch.from_numpy(codes.reshape(-1, 15, 3))

    def structure(self, image: Any, *, semantic: bool = False) -> tuple[Any, Any]:
        for replace in (False, True):
            with pytest.raises(FileError, match="another process is working in") as caught:
                check_target(self.out, replace=replace)
            self.printed.append(str(caught.value))
        seen = (image.reshape(len(image), -1) @ self.weights).reshape(-1, 6, 5, 7)
        return seen, seen[:, 0, 0]


@pytest.mark.parametrize("existing", [False, True])
def test_the_folder_is_held_while_models_look(tmp_path: Path, existing: bool) -> None:
    out = tmp_path / "deep" / "data"
    if existing:
        simulate_subject(out, Eyes(out), SETTINGS, Showing(n_train=5, n_test=2), seed=1)
    eyes = Eyes(out)
    data = simulate_subject(out, eyes, SETTINGS, Showing(n_train=5, n_test=2), seed=2, replace=existing)
    assert eyes.printed
    assert data.subject == open_data(out).subject == "simulated-2"
    check_target(out, replace=True)  # and is free afterwards


def test_a_second_command_says_so_in_one_line_before_models_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    command = ["simulate", "fmri", "--out", str(out), "--models", str(tmp_path / "no models"), "--force"]
    with locked(lock_of(out), out):
        assert main(command) == 2
    printed = capsys.readouterr().err
    assert printed == f"md-train: another process is working in {out}: wait for it, or give another folder\n"
