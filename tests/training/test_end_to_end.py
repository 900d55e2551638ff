"""The three commands one after the other, as a person types them, on a world with random weights: nothing replaced."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.images import read_image
from minddiffuser.training import cli as train
from minddiffuser.training.decoders import DECODERS


def test_from_simulation_to_pictures(
    tmp_path: Path, small_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    common = ["--models", str(small_world), "--device", "cpu"]
    simulate = ["simulate", "fmri", "--brain", "clip", "--out", "data", "--n-train", "12", "--n-test", "3"]
    assert train.main([*simulate, *common]) == 0
    few = [f"--n-{target}={n}" for target, n in (("context", 5), ("latent", 6), ("structure", 7), ("semantic", 4))]
    fit = ["fit", "data", "--out", "checkpoint", "--n-folds", "2", "--threads", "1", *few, *common]
    assert train.main(fit) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert (lines[0], lines[-1]) == ("data", "checkpoint")
    assert {"region", "all", "V1", "LO", "dimensions"} <= {line.split()[0] for line in lines if line}
    assert "features" in printed.err
    scores = json.loads(Path("checkpoint/scores.json").read_text())
    assert scores["features"].keys() == {"context", "latent", "structure", "semantic"}
    assert list(scores["features"]["latent"]["rois"]) == list(open_data("data").layout.rois)
    assert Path("checkpoint/scores.svg").read_text().startswith("<svg")

    data, checkpoint = open_data("data"), open_checkpoint("checkpoint")
    assert checkpoint.shapes == {"context": (15, 16), "latent": (4, 4, 4), "structure": (6, 17, 32), "semantic": (32,)}
    assert checkpoint.mask.reshape(6, -1).sum(axis=1).tolist() == [136] * 6
    assert {made["features"][0]: made["fit"]["n_selected"] for made in checkpoint.description["decoders"]} == {
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
    capsys.readouterr()
    assert train.main(fit) == 0  # finished: given again as it is
    assert capsys.readouterr().out.splitlines() == lines[1:]
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()} == before


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """A decoder as CONTRIBUTING describes one: each target from the voxel that goes with it best."""

    shrink: float = 1.0

    @classmethod
    def for_feature(cls, feature: str, **options: Any) -> Nearest:
        return cls(**options)

    def fit(self, responses: np.ndarray, targets: Any, *, progress: Any = None, **_more: Any) -> FittedNearest:
        n_targets = targets.shape[1]
        best, slope = np.empty(n_targets, np.int32), np.empty(n_targets, np.float32)
        power = np.maximum((responses**2).sum(axis=0), 1e-9)
        for start in range(0, n_targets, 100):
            product = responses.T @ targets.columns(start, min(start + 100, n_targets))
            part = slice(start, start + product.shape[1])
            best[part] = np.abs(product / np.sqrt(power)[:, None]).argmax(axis=0)
            slope[part] = np.take_along_axis(product / power[:, None], best[part][None], axis=0)[0] / self.shrink
            if progress is not None:
                progress(part.stop, n_targets)
        return FittedNearest(best, slope)

    def describe(self) -> dict[str, Any]:
        return {"fitter": "nearest", "shrink": self.shrink}


@dataclass(frozen=True)
class FittedNearest:
    best: np.ndarray
    slope: np.ndarray
    kind: ClassVar[str] = "linear"

    def described(self) -> dict[str, Any]:
        return {}

    def predict(self, responses: np.ndarray, start: int = 0, stop: int | None = None) -> np.ndarray:
        return responses[:, self.best[start:stop]] * self.slope[start:stop].astype(float)

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "index": self.best[:, None],
            "weight": self.slope[:, None],
            "bias": np.zeros(len(self.best), np.float32),
        }


def test_another_decoder_goes_through_the_command(
    tmp_path: Path, small_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file, one line in the register: help, options, selection, scores and a checkpoint that decodes."""
    module = ModuleType("minddiffuser.training.decoders.nearest")
    module.Nearest = Nearest  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(DECODERS, "nearest", ("nearest", "Nearest"))
    monkeypatch.chdir(tmp_path)
    common = ["--models", str(small_world), "--device", "cpu"]
    simulate = ["simulate", "fmri", "--brain", "clip", "--out", "data", "--n-train", "8", "--n-test", "2"]
    assert train.main([*simulate, *common]) == 0

    with pytest.raises(SystemExit):
        train.main(["fit", "--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    assert "nearest (options: shrink);" in help_text
    assert "ridge (options: n_selected, alpha, device)" in help_text
    fit = ["fit", "data", "--out", "checkpoint", "--n-folds", "2", "--threads", "1", "--decoder", "nearest", *common]
    for wrong, message in (
        (["--n-latent", "5"], "--n-latent cannot be used: decoder 'nearest' has no option 'n_selected'"),
        (["--alpha-context", "5"], "--alpha-context cannot be used: decoder 'nearest' has no option 'alpha'"),
        (["--n-selection", "5"], "decoder 'nearest' has no option 'n_selected': its options are shrink"),
        (["--decoder-option", "alpha=5"], "decoder 'nearest' has no option 'alpha': its options are shrink"),
    ):
        assert train.main([*fit, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert train.main([*fit, "--decoder-option", "shrink=2", "--decoder-option", "latent.shrink=4"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "checkpoint"

    checkpoint, data = open_checkpoint("checkpoint"), open_data("data")
    fits = {made["features"][0]: made["fit"] for made in checkpoint.description["decoders"]}
    assert fits["latent"] == {"fitter": "nearest", "shrink": 4}
    assert fits["structure"] == {"fitter": "nearest", "shrink": 2}
    decoded = checkpoint.decode(data.responses("train"))
    true = np.load(next((tmp_path / "features").glob("*/latent.npy")), allow_pickle=False)
    slope = [np.polyfit(true[:, 0, 0, k], decoded.latent[:, 0, 0, k], 1)[0] for k in range(4)]
    assert all(0 < value < 0.25 for value in slope)  # a fit of one voxel explains a share below 1, shrunk by 4
