"""From a simulated EEG to pictures, through the commands as a person types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.images import read_image
from minddiffuser.training import cli as train


def test_from_simulated_eeg_to_pictures(
    tmp_path: Path, small_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mne")
    monkeypatch.chdir(tmp_path)
    models = ["--models", str(small_world), "--device", "cpu"]
    few = ["--n-train", "12", "--n-test", "2", "--repetitions", "2", "--train-repetitions", "2", "--strength", "5"]
    assert train.main(["simulate", "eeg", "--out", "data", *few]) == 0
    selected = [f"--n-{feature}=6" for feature in ("embedding", "latent", "structure", "semantic")]
    assert (
        train.main(["fit", "data", "--out", "checkpoint", "--n-folds", "2", "--threads", "1", *selected, *models]) == 0
    )
    assert train.main(["simulate", "eeg", "--out", "slower", "--sfreq", "50", *few]) == 0
    checkpoint = open_checkpoint("checkpoint")
    assert (checkpoint.layout.modality, checkpoint.layout.shape) == ("eeg", (17, 100))
    assert [step["name"] for step in checkpoint.layout.signal["steps"]] == ["filter", "decimate", "epoch", "baseline"]
    run = ["run", "checkpoint", "data", "--out", "run", "--stage", "1", "--threads", "1", *models]
    assert reconstruct.main(run) == 0
    made = [read_image(path) for path in sorted(Path("run/images/stage1").iterdir())]
    assert {image.shape for image in made} == {(32, 32, 3)}
    assert (made[0] != made[1]).any()
    capsys.readouterr()
    # Another rate, and with it another filter, is refused by name.
    assert reconstruct.main(["run", "checkpoint", "slower", "--out", "other", *run[5:]]) == 2
    assert "it was fitted on 100 samples, these have 50" in capsys.readouterr().err
