"""A leak by the command: what it prints, and its label in all that is made of the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.export import cli as export
from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.folder import SplitData, write_data
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.errors import FileError
from minddiffuser.training import cli as train

LINE = "these decoders were fitted with the leak test-zscore on purpose"


def write_subject(folder: Path) -> None:
    """Responses are a picture's colour, mixed; those of the test have another baseline."""
    rng = np.random.default_rng(3)
    mixing = rng.standard_normal((3, 20))

    def split(n: int, baseline: float) -> SplitData:
        colours = rng.integers(0, 256, (n, 3))
        pictures = [np.broadcast_to(colour, (32, 32, 3)).astype(np.uint8) for colour in colours]
        signal = (colours - 128) / 64 @ mixing + baseline + 0.2 * rng.standard_normal((n, 20))
        return SplitData(
            responses=signal.astype(np.float32),
            stimulus=np.arange(n),
            images=pictures,
            captions=[[f"a thing number {number % 7}"] for number in range(n)],
        )

    write_data(folder, {"train": split(24, 0.0), "test": split(6, 3.0)}, subject="someone", rois={"V1": (0, 20)})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, small_world: Path) -> Path:
    """A folder with the subject and a leaky checkpoint, by the command."""
    pytest.importorskip("scipy")
    place = tmp_path_factory.mktemp("leak")
    write_subject(place / "data")
    assert train.main(fit_command(place, small_world)) == 0
    return place


def fit_command(place: Path, world: Path) -> list[str]:
    small = ["--n-folds", "2", "--percent", "10", "--threads", "1", "--device", "cpu"]
    return [
        *("fit", str(place / "data"), "--out", str(place / "checkpoint"), "--allow-leak", "test-zscore"),
        *("--models", str(world), *small),
    ]


def test_the_command_prints_leaky_clean_and_the_interval(
    place: Path, small_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(fit_command(place, small_world)) == 0  # everything is there: it is measured again
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Leak test-zscore: the checkpoint normalises")
    assert lines[-1] == str(place / "checkpoint")
    content = json.loads((place / "checkpoint/leak.json").read_text())
    assert (content["n_trials"], content["clean"]) == (6, "checkpoint-clean")
    score = content["scores"]["latent"]
    (row,) = [line for line in lines if line.startswith("latent")]
    shown = row.replace("latent, correlation", "").replace(" to ", " ").split()
    assert shown == [
        *(f"{score[name]:.3f}" for name in ("leaky", "clean")),
        *(f"{number:+.3f}" for number in (score["difference"], *score["ci95"])),
    ]
    assert score["difference"] == pytest.approx(score["leaky"] - score["clean"])
    assert score["ci95"][0] > 0


def test_a_run_says_so_in_its_line_its_files_and_its_page(
    place: Path, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", str(place / "checkpoint"), str(place / "data"), "--out", str(tmp_path / "run"), "--stage", "1"]
    run += ["--controls", "none", "--models", str(small_world), "--device", "cpu", "--threads", "1"]
    assert reconstruct.main(run) == 0
    assert capsys.readouterr().err.count(LINE) == 1
    for name in ("settings.json", "summary.json"):
        assert json.loads((tmp_path / "run" / name).read_text())["leaks"] == ["test-zscore"]
    page = (tmp_path / "run/report.html").read_text()
    assert '<p class="leaks" role="note"><strong>With a leak.</strong> These decoders were fitted with' in page
    run[1] = str(place / "checkpoint-clean")
    run[4] = str(tmp_path / "clean")
    assert reconstruct.main(run) == 0
    assert "leak" not in capsys.readouterr().err
    assert "leaks" not in json.loads((tmp_path / "clean/summary.json").read_text())
    assert '<p class="leaks"' not in (tmp_path / "clean/report.html").read_text()


def test_a_bundle_carries_the_label_on(
    place: Path, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = ["bundle", str(place / "checkpoint"), "--out", str(tmp_path / "bundle"), "--data", str(place / "data")]
    bundle += ["--graphs", "decode_context", "decode_latent", "decode_structure", "--threads", "1"]
    assert export.main([*bundle, "--models", str(small_world)]) == 0
    assert capsys.readouterr().err.count(LINE) == 1
    opened = Bundle.open(tmp_path / "bundle")
    assert opened.leaks == ("test-zscore",)
    assert opened.manifest["checkpoint"]["leaks"] == ["test-zscore"]


@pytest.mark.parametrize("edited", [[], "test-zscore", [1], ["With spaces"], ["a"] * 9])
def test_a_label_that_is_none_is_refused(place: Path, edited: object, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for path in (place / "checkpoint").iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**content, "leaks": edited}))
    with pytest.raises(FileError, match="field 'leaks"):
        open_checkpoint(folder)


def test_an_unknown_leak_is_a_users_mistake(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fit", str(place / "data"), "--out", str(place / "other"), "--allow-leak", "drift"]
    assert train.main(command) == 2
    assert "block-design" in capsys.readouterr().err


def test_a_leak_that_does_not_apply_is_one_sentence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fit", str(place / "data"), "--out", str(place / "other"), "--allow-leak", "whitening"]
    assert train.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs EEG or MEG" in line
    assert not (place / "other").exists()
