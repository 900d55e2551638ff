"""Metrics that a person asks a run for, by the command."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import alexnet

from minddiffuser.runtime import cli
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.files import sha256_of
from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.run.job import Job

N_TRIALS = 3
FAST = ["--refiner", "adam", "--steps", "1", "--backprop-steps", "1", "--threads", "1"]


@pytest.fixture
def args(small_checkpoint: Path, small_world: Path, tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(5)
    for trial in range(N_TRIALS):
        write_png(tmp_path / "seen" / f"{trial}.png", rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    np.save(tmp_path / "responses.npy", rng.standard_normal((N_TRIALS, 24)).astype(np.float32))
    given = ["run", str(small_checkpoint), str(tmp_path / "responses.npy"), "--stimuli", str(tmp_path / "seen")]
    return [*given, "--models", str(small_world), "--device", "cpu", "--out", str(tmp_path / "run"), *FAST]


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def summary(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "run" / "summary.json").read_text())


def test_metrics_that_are_missing_are_said_and_come_with_their_weights(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--metrics", "pixcorr_pil425,alexnet2,alexnet2_takagi,near_pair_own,decoded"]
    assert cli.main([*args, *asked]) == 0
    first, said = summary(tmp_path), capsys.readouterr().err
    assert list(first["metrics"]) == ["pixcorr_pil425", "near_pair_own"]
    note = next(note for note in first["notes"] if note.startswith("alexnet2, alexnet2_takagi were left out"))
    assert "--download-weights" in note
    assert note in said
    assert "extractors" not in first
    for feature in first["decoded"].values():
        assert set(feature["retrieval"]) == {"top1_of_3"}
        assert 1 <= feature["dimension"]["decoded"] <= N_TRIALS - 1
    assert "decoded structure feature: top-1 of 3" in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="decoded"' in page

    folder = tmp_path / "weights"
    folder.mkdir()
    path = folder / "alexnet-owt-7be5be79.safetensors"
    save_file({f"features.{name}": value for name, value in alexnet().features.state_dict().items()}, path)
    pictures = {path: path.read_bytes() for path in (tmp_path / "run" / "images").rglob("*.png")}
    assert cli.main([*args, *asked, "--weights", str(folder)]) == 0
    second = summary(tmp_path)
    assert list(second["metrics"]) == ["pixcorr_pil425", "alexnet2", "alexnet2_takagi", "near_pair_own"]
    assert second["extractors"] == {"alexnet2": {path.name: sha256_of(path)}}
    assert second["metrics"]["pixcorr_pil425"] == first["metrics"]["pixcorr_pil425"]
    assert second["decoded"] == first["decoded"]
    assert {path: path.read_bytes() for path in pictures} == pictures
    assert re.search(rf"Weights: {path.name} \(SHA-256 \w{{16}}…\)", (tmp_path / "run" / "report.html").read_text())


def test_a_run_that_stops_after_stage_1_has_no_decoded_features_to_measure(args: list[str], tmp_path: Path) -> None:
    without_stage_2 = args[: -len(FAST)]
    assert cli.main([*without_stage_2, "--stage", "1", "--metrics", "pixcorr,retrieval"]) == 0
    assert any("retrieval left out: a run that stops after stage 1" in note for note in summary(tmp_path)["notes"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--metrics", "pixcor"], "did you mean pixcorr"),
        (["--weights", "nowhere"], "the weights folder nowhere does not exist"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    given: list[str], said: str, args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*args, *given]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "run").exists()


def test_a_damaged_file_of_weights_is_one_line_before_anything_is_computed(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "swav_800ep_pretrain.pth.tar").write_bytes(b"cut short")
    assert cli.main([*args, "--metrics", "standard", "--weights", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "swav_800ep_pretrain.pth.tar hold more than tensors or are damaged" in lines[-1]
    assert not (tmp_path / "run" / "images").exists()


def test_a_job_takes_names_as_people_give_them(tmp_path: Path) -> None:
    places = {"checkpoint": "c", "responses": "r", "out": "o"}
    assert Job(**places, metrics="standard,lpips", weights=str(tmp_path)).metrics == ("standard", "lpips")
    assert Job(**places, metrics=["ssim", "swav"]).metrics == ("ssim", "swav")
    with pytest.raises(InputError, match="is unknown"):
        Job(**places, metrics=["ssim", "nothing"])
    with pytest.raises(FileError, match="weights folder"):
        Job(**places, weights=str(tmp_path / "nowhere"))
