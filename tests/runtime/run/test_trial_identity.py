"""``md-reconstruct run``: a trial's picture goes with its id, whatever row, file or company it comes in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from minddiffuser.runtime import cli
from minddiffuser.runtime.data.folder import SplitData, write_data
from minddiffuser.runtime.engines.ort import engine as ort
from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.run.responses import open_responses

IDS = ("cat", "dog", "elk", "fox", "gnu")
ROWS = np.random.default_rng(1).standard_normal((len(IDS), 24)).astype(np.float32)
FAST = {
    "adam": ["--refiner", "adam", "--steps", "1", "--backprop-steps", "1"],
    "guided": (
        "--refiner guided --start-steps 2 --finish-steps 2"
        " --candidates 2 --n-steps 4 --strength 0.5 --semantic-weight 0"
    ).split(),
}
Run = Callable[..., dict[str, bytes]]


@pytest.fixture
def run(toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Reconstruct an array's or a folder's trials one by one; gives the pictures by kind and place.

    By a bundle whose networks are one formula each, or from `source`.
    """
    # A command takes one pool of threads for its process; this process has other tests to run.
    monkeypatch.setattr(ort, "uses_pool", lambda *_given, **_named: False)
    count = 0

    def go(
        responses: Path, *options: str, source: Path = toy_bundle, code: int = 0, refiner: str = "adam"
    ) -> dict[str, bytes]:
        nonlocal count
        count += 1
        out = tmp_path / f"run{count}"
        fast = [*FAST[refiner], "--threads", "1", "--batch-size", "1"]
        assert cli.main(["run", str(source), str(responses), "--out", str(out), *fast, *options]) == code
        return {f"{path.parent.name}/{path.stem}": path.read_bytes() for path in sorted(out.glob("images/*/*.png"))}

    return go


def with_options(run: Run, *always: str, **choices: Any) -> Run:
    return lambda responses, *options, **more: run(responses, *options, *always, **choices, **more)


def saved(path: Path, rows: np.ndarray) -> Path:
    np.save(path, rows)
    return path


def listed(path: Path, ids: Any) -> str:
    path.write_text(json.dumps(list(ids)) if path.suffix == ".json" else "\n".join(ids))
    return str(path)


def of(pictures: dict[str, bytes], row: int) -> tuple[bytes, bytes]:
    return pictures[f"stage1/{row:06d}"], pictures[f"stage2/{row:06d}"]


@pytest.mark.parametrize("refiner", FAST)
@pytest.mark.parametrize("kind", [pytest.param("checkpoint", marks=pytest.mark.long), "bundle"])
def test_pictures_go_with_the_ids(
    kind: str, refiner: str, run: Run, small_checkpoint: Path, small_world: Path, tmp_path: Path
) -> None:
    run = with_options(run, refiner=refiner)
    if kind == "checkpoint":
        run = with_options(run, "--models", str(small_world), "--device", "cpu", source=small_checkpoint)
    whole = run(saved(tmp_path / "a.npy", ROWS[:4]), "--trial-ids", listed(tmp_path / "a.txt", IDS[:4]))
    order = [3, 0]
    some = run(
        saved(tmp_path / "b.npy", ROWS[order]), "--trial-ids", listed(tmp_path / "b.json", [IDS[t] for t in order])
    )
    assert [of(some, row) for row in range(2)] == [of(whole, trial) for trial in order]
    save_file({IDS[2]: ROWS[2].copy()}, tmp_path / "c.safetensors")  # alone, under the name of its array
    assert of(run(tmp_path / "c.safetensors"), 0) == of(whole, 2)
    # Without ids it is the row that decides: other noise, other pictures.
    rowed = run(saved(tmp_path / "d.npy", ROWS[order]), "--stage", "1")
    assert all(rowed[f"stage1/{row:06d}"] != of(whole, trial)[0] for row, trial in enumerate(order))


def test_a_subset_of_a_data_folder_keeps_its_pictures(run: Run, tmp_path: Path) -> None:
    def write(folder: Path, trials: list[int], ids: list[str] | None) -> Path:
        images = np.random.default_rng(5).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        stimulus = np.array([0, 1, 0, 1])[trials]
        test = SplitData(responses=ROWS[trials], stimulus=stimulus, images=images, trial_ids=ids)
        train = SplitData(responses=ROWS, stimulus=np.zeros(5, np.int64), images=images[:1], captions=[["a cat"]])
        write_data(folder, {"train": train, "test": test}, subject="someone", rois={"V1": (0, 24)})
        return folder

    whole = run(write(tmp_path / "whole", [0, 1, 2, 3], None))
    ids = json.loads((tmp_path / "whole" / "trial_ids.json").read_text())["test"]
    assert ids == ["test/0/0", "test/1/0", "test/0/1", "test/1/1"]
    part = run(write(tmp_path / "part", [3, 2], [ids[3], ids[2]]))
    assert [of(part, 0), of(part, 1)] == [of(whole, 3), of(whole, 2)]
    first = tmp_path / "run1"
    assert [row["id"] for row in json.loads((first / "trials.json").read_text())] == ids
    assert "test/1/1" in (first / "report.html").read_text()
    # A folder of an earlier release has no such file, and the same ids.
    (tmp_path / "whole" / "trial_ids.json").unlink()
    assert list(open_responses(tmp_path / "whole").trial_ids) == ids


def test_skipped_trials_are_named_by_their_ids(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = ROWS.copy()
    bad[1, 3] = np.nan
    run(saved(tmp_path / "a.npy", bad), "--trial-ids", listed(tmp_path / "a.txt", IDS), "--stage", "1", code=1)
    assert "trial 1 (dog) is skipped: 1 of 24 values" in capsys.readouterr().err
    (skipped,) = json.loads((tmp_path / "run1" / "summary.json").read_text())["skipped"]
    assert (skipped["trial"], skipped["id"]) == (1, "dog")
    assert "Trial 1 (dog)" in (tmp_path / "run1" / "report.html").read_text()
    run(saved(tmp_path / "b.npy", ROWS), "--stage", "1")
    assert all("id" not in row for row in json.loads((tmp_path / "run2" / "trials.json").read_text()))


def test_a_run_folder_belongs_to_its_ids(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, options = saved(tmp_path / "a.npy", ROWS), ("--out", str(tmp_path / "run"), "--stage", "1", "--trial-ids")
    run(path, *options, listed(tmp_path / "a.txt", IDS))
    run(path, *options, listed(tmp_path / "a.json", IDS))
    capsys.readouterr()
    run(path, *options, listed(tmp_path / "b.txt", reversed(IDS)), code=2)
    assert "hashes.trial_ids" in capsys.readouterr().err


def test_ids_that_are_not_one_per_trial_are_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "a.npy", ROWS)
    for ids, message in (
        (IDS[:4], "has 4 trial ids and there are 5 trials"),
        (("cat",) * 5, "occurs at trials 0 and 1"),
    ):
        capsys.readouterr()
        assert run(path, "--trial-ids", listed(tmp_path / "ids.txt", ids), code=2) == {}
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line


def test_own_pictures_find_their_trials_by_id(run: Run, tmp_path: Path) -> None:
    colours = dict(zip(IDS, np.random.default_rng(3).integers(0, 256, (5, 3)), strict=True))
    for name, colour in colours.items():
        write_png(tmp_path / "seen" / f"{name}.png", np.broadcast_to(colour.astype(np.uint8), (32, 32, 3)).copy())
    ids = ("gnu", "cat", "fox", "dog", "elk")
    options = ["--trial-ids", listed(tmp_path / "a.txt", ids), "--stimuli", str(tmp_path / "seen"), "--stage", "1"]
    run(saved(tmp_path / "a.npy", ROWS), *options)
    for row, name in enumerate(ids):
        shown = (tmp_path / "run1" / "stimuli" / f"{row:06d}.png").read_bytes()
        assert shown == (tmp_path / "seen" / f"{name}.png").read_bytes()


# ---- responses that are not on the scale of training, or not in its order ------------------------------------------


def test_other_units_are_refused_before_the_run_folder_is_touched(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(saved(tmp_path / "a.npy", 300 * ROWS), code=2) == {}
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "not on the scale of the training responses" in line
    assert not (tmp_path / "run1").exists()


def test_a_doubtful_scale_is_reported_on_the_page_too(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ROWS + 6
    assert len(run(saved(tmp_path / "a.npy", rows), "--stage", "1")) == len(ROWS)
    assert "md-reconstruct: warning: the responses are barely on the scale" in capsys.readouterr().err
    (note,) = [
        note for note in json.loads((tmp_path / "run1" / "summary.json").read_text())["notes"] if "scale" in note
    ]
    assert note.startswith("Warning: the responses are barely on the scale")
    assert "barely on the scale" in (tmp_path / "run1" / "report.html").read_text()


def write_folder(folder: Path, rois: dict[str, tuple[int, int]]) -> Path:
    images = np.zeros((1, 32, 32, 3), np.uint8)
    part = SplitData(responses=ROWS, stimulus=np.zeros(5, np.int64), images=images, captions=[["a cat"]])
    write_data(folder, {"train": part, "test": part}, subject="someone", rois=rois)
    return folder


@pytest.mark.parametrize("kind", [pytest.param("checkpoint", marks=pytest.mark.long), "bundle"])
def test_voxels_of_other_regions_are_refused_where_regions_are_known(
    kind: str, run: Run, small_checkpoint: Path, toy_bundle: Path, small_world: Path, tmp_path: Path, capsys: Any
) -> None:
    source = shutil.copytree({"checkpoint": small_checkpoint, "bundle": toy_bundle}[kind], tmp_path / kind)
    options = ["--models", str(small_world), "--device", "cpu"] if kind == "checkpoint" else []
    data = write_folder(tmp_path / "data", {"V1": (0, 10), "LO": (10, 24)})
    turned = write_folder(tmp_path / "turned", {"LO": (0, 14), "V1": (14, 24)})

    def go(folder: Path, code: int = 0) -> None:
        run(folder, "--stage", "1", *options, source=source, code=code)

    go(turned)  # the checkpoint knows of no regions
    capsys.readouterr()
    keep_rois(source, {"V1": [0, 10], "LO": [10, 24]})
    go(turned, code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "roi 'V1' is voxels 0 to 10 there and voxels 14 to 24 here" in line
    assert not (tmp_path / "run2" / "settings.json").exists()
    go(data)
    assert "rois" not in capsys.readouterr().err


def keep_rois(source: Path, rois: dict[str, list[int]]) -> None:
    path = source / "manifest.json"
    path = path if path.exists() else source / "checkpoint.json"
    content = json.loads(path.read_text())
    content["layout"]["rois"] = rois
    path.write_text(json.dumps(content))
