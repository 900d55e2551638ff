"""The three commands one after the other, as a person types them, on a world with random weights: nothing replaced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.decode import open_checkpoint
from minddiffuser.runtime.images import read_image
from minddiffuser.training import cli as train


def test_from_simulation_to_pictures(
    tmp_path: Path, small_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    common = ["--models", str(small_world), "--device", "cpu"]
    assert train.main(["simulate", "fmri", "--out", "data", "--n-train", "12", "--n-test", "3", *common]) == 0
    few = [f"--n-{target}={n}" for target, n in (("context", 5), ("latent", 6), ("structure", 7), ("semantic", 4))]
    fit = ["fit", "data", "--out", "checkpoint", "--n-folds", "2", "--threads", "1", *few, *common]
    assert train.main(fit) == 0
    told = capsys.readouterr()
    assert told.out.split() == ["data", "checkpoint"]
    assert "features" in told.err

    data, checkpoint = open_data("data"), open_checkpoint("checkpoint")
    assert checkpoint.shapes == {"context": (15, 16), "latent": (4, 4, 4), "structure": (6, 17, 32), "semantic": (32,)}
    assert checkpoint.mask.reshape(6, -1).sum(axis=1).tolist() == [136] * 6
    assert {name: made["n_selected"] for name, made in checkpoint.description["decoders"].items()} == {
        "context": 5,
        "latent": 6,
        "structure": 7,
        "semantic": 4,
    }
    # The decoders saw these pictures: their own latents are nearer to what is decoded than another picture's.
    latent = checkpoint.decode(data.responses("train")).latent.reshape(12, -1)
    features = next((tmp_path / "features").iterdir())
    true = np.load(features / "latent.npy", allow_pickle=False).reshape(12, -1)
    distance = np.linalg.norm(latent[:, None] - true[None], axis=2)
    assert (distance.argmin(axis=1) == np.arange(12)).mean() > 0.5

    run = ["run", "checkpoint", "data", "--out", "run", "--stage", "1", "--threads", "1", *common]
    assert reconstruct.main(run) == 0
    pictures = sorted((tmp_path / "run" / "images" / "stage1").iterdir())
    assert [path.name for path in pictures] == ["000000.png", "000001.png", "000002.png"]
    made = [read_image(path) for path in pictures]
    assert {image.shape for image in made} == {(32, 32, 3)}
    assert (made[0] != made[1]).any()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["n_trials"] == 3
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    assert train.main(fit) == 0  # finished: given again as it is
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()} == before
