"""A run as a person meets it: where it may write, what it looks at first, and what one bad trial does to it."""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from small_data import write_small_data

from minddiffuser.runtime import cli, environment
from minddiffuser.runtime.backends.base import Options
from minddiffuser.runtime.backends.bundle import BundleBackend
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.references import refer
from minddiffuser.runtime.decoders.bundle import BundleDecoder
from minddiffuser.runtime.engines.open import EngineSet
from minddiffuser.runtime.engines.ort import engine as ort
from minddiffuser.runtime.errors import FileError, InputError, MindDiffuserError
from minddiffuser.runtime.files import sha256_of
from minddiffuser.runtime.images import fit_square, read_image, write_png
from minddiffuser.runtime.locks import inside, locked
from minddiffuser.runtime.run.execute import run_job
from minddiffuser.runtime.run.job import Job

N_TRIALS = 5
ROWS = np.random.default_rng(1).standard_normal((N_TRIALS, 24)).astype(np.float32)
FAST = ["--refiner", "adam", "--steps", "2", "--backprop-steps", "2", "--batch-size", "2", "--threads", "1"]


@pytest.fixture(autouse=True)
def own_threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command takes one pool of threads for its process; this process has other tests to run."""
    monkeypatch.setattr(ort, "uses_pool", lambda *_given, **_named: False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder with responses.npy and five stimuli."""
    rng = np.random.default_rng(5)
    for trial in range(N_TRIALS):
        write_png(tmp_path / "in" / "seen" / f"{trial}.png", rng.integers(0, 256, (40, 32, 3)).astype(np.uint8))
    np.save(tmp_path / "in" / "responses.npy", ROWS)
    return tmp_path / "in"


@pytest.fixture
def of_bundle(toy_bundle: Path, inputs: Path, tmp_path: Path) -> list[str]:
    """Arguments of a good run over a copy of a bundle."""
    shutil.copytree(toy_bundle, tmp_path / "bundle")
    return arguments(tmp_path / "bundle", inputs / "responses.npy", tmp_path / "run")


@pytest.fixture
def of_checkpoint(small_checkpoint: Path, small_world: Path, inputs: Path, tmp_path: Path) -> list[str]:
    """Arguments of a good run over a copy of a checkpoint."""
    shutil.copytree(small_checkpoint, tmp_path / "checkpoint")
    models = ["--models", str(small_world), "--device", "cpu"]
    return [*arguments(tmp_path / "checkpoint", inputs / "responses.npy", tmp_path / "run"), *models]


def arguments(folder: Path, responses: Path, out: Path) -> list[str]:
    return ["run", str(folder), str(responses), "--out", str(out), *FAST]


def change(args: list[str], option: str, value: object) -> list[str]:
    """The same arguments with another value of an option that they have."""
    at = args.index(option)
    return [*args[: at + 1], str(value), *args[at + 2 :]]


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder but locks, which say nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


def pictures(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.png"))}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(read(path) | changes))


def refusal(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(args) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# Where a run writes.

STRANGERS: dict[str, dict[str, str]] = {
    "a page of somebody's": {"report.html": "<p>my thesis</p>"},
    "figures of somebody's": {"summary.json": '{"mean": 3}'},
    "pictures": {"images/stage1/000000.png": "x"},
    "settings of an editor": {"settings.json": '{"editor.fontSize": 12}'},
    "settings that are a list": {"settings.json": "[1]"},
    "a hidden file": {".bashrc": "x"},
    "a folder in it": {"work/data/f": "x"},
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_strangers_folder_is_refused_and_left_alone(
    name: str, of_bundle: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, text in STRANGERS[name].items():
        (tmp_path / "run" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / path).write_text(text)
    before = contents(tmp_path / "run")
    assert str(tmp_path / "run") in refusal(of_bundle, capsys)
    assert str(tmp_path / "run") in refusal(["report", str(tmp_path / "run")], capsys)
    assert contents(tmp_path / "run") == before
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("bundle", "lies in the checkpoint or bundle"),
        ("bundle/run", "lies in the checkpoint or bundle"),
        ("bundle/engines/a/b", "lies in the checkpoint or bundle"),
        ("data", "lies in the data folder"),
        ("data/stimuli/run", "lies in the data folder"),
        ("in/../bundle/run", "lies in the checkpoint or bundle"),
        ("linked/run", "lies in the checkpoint or bundle"),
        ("in/seen", "is the folder of the stimuli"),
        (".", "holds the checkpoint or bundle"),
        ("in", "holds the stimuli"),
    ],
)
def test_what_a_run_reads_is_no_place_to_write(
    out: str, reason: str, of_bundle: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "linked").symlink_to(tmp_path / "bundle")
    data = tmp_path / "data"
    write_png(data / "stimuli" / "test" / "000000.png", np.zeros((32, 32, 3), np.uint8))
    save_file({"responses": ROWS, "stimulus": np.zeros(N_TRIALS, np.int64)}, data / "test.safetensors")
    of_bundle[2] = str(data)
    before = contents(tmp_path)
    line = refusal([*change(of_bundle, "--out", tmp_path / out), "--stimuli", str(tmp_path / "in" / "seen")], capsys)
    assert reason in line
    assert contents(tmp_path) == before


def test_a_model_folder_is_no_place_to_write(
    of_checkpoint: list[str], small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_world, tmp_path / "world")
    args = change(change(of_checkpoint, "--models", tmp_path / "world"), "--out", tmp_path / "world" / "run")
    assert "lies in the model folder" in refusal(args, capsys)
    assert not (tmp_path / "world" / "run").exists()


def test_a_place_without_permission_is_reported_before_anything_is_read(
    of_bundle: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of_bundle[1] = str(tmp_path / "absent")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    line = refusal(change(of_bundle, "--out", tmp_path / "new" / "run"), capsys)
    assert f"cannot be written (no permission to write to {tmp_path})" in line


def test_what_a_desktop_leaves_in_a_folder_is_no_hindrance(of_bundle: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / "run" / name).write_text("{}")
    assert cli.main([*of_bundle, "--stage", "1"]) == 0


def test_only_drafts_of_our_own_files_are_taken_away(of_bundle: list[str], tmp_path: Path) -> None:
    """A killed run's go, whatever its process; what merely looks like one stays."""
    assert cli.main([*of_bundle, "--stage", "1"]) == 0
    run = tmp_path / "run"
    theirs = [".thesis.draft", ".thesis.tex.12.draft", "images/stage1/.mine.7.draft", "images/mine/.000000.png.7.draft"]
    theirs += ["stimuli/.1.png.8.draft", "journal/.notes.json.9.draft"]
    ours = [
        ".summary.json.12.draft",
        ".measured.safetensors.3.draft",
        "images/stage1/.000000.png.7.draft",
        "journal/.000001.json.9.draft",
    ]
    for name in (*theirs, *ours):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("x")
    assert cli.main([*of_bundle, "--stage", "1"]) == 0
    assert [name for name in theirs if not (run / name).exists()] == []
    assert [name for name in ours if (run / name).exists()] == []


# What is looked at first.

Change = Callable[[list[str], Path], list[str]]


def other_responses(args: list[str], inputs: Path) -> list[str]:
    np.save(inputs / "responses.npy", ROWS[:, :23])
    return args


def responses_that_are_not_there(args: list[str], inputs: Path) -> list[str]:
    (inputs / "responses.npy").unlink()
    return args


def too_few_stimuli(args: list[str], inputs: Path) -> list[str]:
    (inputs / "seen" / "4.png").unlink()
    return [*args, "--stimuli", str(inputs / "seen")]


def a_stimulus_that_is_no_picture(args: list[str], inputs: Path) -> list[str]:
    (inputs / "seen" / "4.png").write_bytes(b"no picture")
    return [*args, "--stimuli", str(inputs / "seen")]


def stimuli_that_are_not_there(args: list[str], inputs: Path) -> list[str]:
    return [*args, "--stimuli", str(inputs / "absent")]


def a_folder_of_somebody(args: list[str], inputs: Path) -> list[str]:
    return change(args, "--out", inputs / "seen")


def a_run_of_other_settings(args: list[str], inputs: Path) -> list[str]:
    return change(args, "--steps", "3")


def oracle_without_stimuli(args: list[str], inputs: Path) -> list[str]:
    return [*args, "--controls", "oracle"]


def shuffled_alone(args: list[str], inputs: Path) -> list[str]:
    return [*args, "--controls", "shuffled", "--skip-trials", "1,2,3,4"]


def a_target_without_decoder(args: list[str], inputs: Path) -> list[str]:
    return [*args, "--semantic-weight", "0.1"]


def a_trial_that_is_not_there(args: list[str], inputs: Path) -> list[str]:
    return [*args, "--skip-trials", "5"]


def more_threads_than_cores(args: list[str], inputs: Path) -> list[str]:
    return change(args, "--threads", "99999")


EARLY: dict[Change, str] = {
    other_responses: "responses have 23 voxels",
    responses_that_are_not_there: "do not exist",
    too_few_stimuli: "4 pictures and there are 5 trials",
    a_stimulus_that_is_no_picture: "or leave out what it belongs to: --skip-trials 4",
    stimuli_that_are_not_there: "cannot be read",
    a_folder_of_somebody: "is not a run folder",
    a_run_of_other_settings: "settings.refine.steps: 2 there, 3 now",
    oracle_without_stimuli: "needs the stimuli",
    shuffled_alone: "at least 2 good trials",
    a_target_without_decoder: "no decoder of the semantic feature",
    a_trial_that_is_not_there: "names '5', and the responses have no such trial: give rows from 0 to 4",
    more_threads_than_cores: "threads is 99999",
}


@pytest.mark.parametrize("kind", ["checkpoint", "bundle"])
def test_what_is_quick_to_check_is_checked_before_networks_are_opened(
    kind: str,
    inputs: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a finished run whose networks cannot be opened any more."""
    args: list[str] = [*request.getfixturevalue(f"of_{kind}"), "--params", "latent"]
    assert cli.main([*args, "--stage", "1"]) == 0

    def fail(*_given: object, **_named: object) -> None:
        raise AssertionError("networks were opened")

    monkeypatch.setattr("minddiffuser.runtime.backends.torch.load_models", fail)
    monkeypatch.setattr(EngineSet, "open", fail)
    for make, message in EARLY.items():
        copy = tmp_path / make.__name__
        shutil.copytree(inputs, copy)
        given = make([*args[:2], str(copy / "responses.npy"), *args[3:]], copy)
        if make is a_run_of_other_settings:
            given += ["--stage", "1"]
        assert message in refusal(given, capsys), make.__name__


# One bad trial.


def spoil(monkeypatch: pytest.MonkeyPatch, bundle: Path, responses: np.ndarray) -> list[int]:
    """Spoil stage 1 of the trials with these responses; counts the batches that were made."""
    with EngineSet(Bundle.open(bundle)) as engines:
        decoder = BundleDecoder(Bundle.open(bundle), engines)
        spoilt = {decoder.decode_start(row[None])[1].tobytes() for row in responses}
    real, made = BundleBackend.generator, []

    def generator(self: BundleBackend, start: Any, *rest: Any, **named: Any) -> Any:
        found: Any = real(self, start, *rest, **named)
        rows = [i for i, row in enumerate(start.latent) if row.tobytes() in spoilt]
        render = found.stage1

        def stage1() -> Any:
            images = np.array(render())
            images[rows, 1, 3, 3] = np.nan
            return images

        found.stage1 = stage1
        made.append(len(start.latent))
        return found

    monkeypatch.setattr(BundleBackend, "generator", generator)
    return made


def test_a_trial_that_fails_is_recorded_and_the_run_goes_on(
    of_bundle: list[str],
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = [*of_bundle, "--stimuli", str(inputs / "seen"), "--controls", "both"]
    assert cli.main(change(args, "--out", tmp_path / "whole")) == 0
    whole = pictures(tmp_path / "whole")
    made = spoil(monkeypatch, tmp_path / "bundle", ROWS[[3]])
    capsys.readouterr()
    assert cli.main(args) == 1
    run, printed = tmp_path / "run", capsys.readouterr().err
    assert "md-reconstruct: trial 3 has no picture: its picture of stage 1 holds NaN or infinite values" in printed
    assert printed.strip().splitlines()[-1].startswith("md-reconstruct: of 5 trials, 1 failed: see ")
    # Every other trial is what it is without the bad one, in every kind of picture.
    assert pictures(run) == {n: data for n, data in whole.items() if not n.endswith("3.png") or n.startswith("stimuli")}
    summary = read(run / "summary.json")
    assert [(entry["trial"], entry["picture"]) for entry in summary["failed"]] == [(3, False)]
    assert "NaN" in summary["failed"][0]["reason"]
    assert summary["n_trials"] == N_TRIALS - 1
    assert [row["trial"] for row in read(run / "trials.json")] == [0, 1, 2, 4]
    page = (run / "report.html").read_text()
    assert "Failed trials" in page
    assert "Trial 3: its picture of stage 1" in page
    # The same command ends the same way, and makes nothing again.
    n_made, before = len(made), contents(run)
    assert cli.main(args) == 1
    assert len(made) == n_made
    assert pictures(run) == {name: data for name, data in before.items() if name.endswith(".png")}
    assert read(run / "summary.json")["failed"] == summary["failed"]


def test_without_any_picture_one_sentence_says_so_each_time(
    of_bundle: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = spoil(monkeypatch, tmp_path / "bundle", ROWS)
    for _ in range(2):
        assert cli.main(of_bundle) == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert "none of 5 trials has a picture (trial 0: its picture of stage 1 holds NaN" in last
        assert "--out" in last
    assert len(made) == 3, "batches without a picture were made again"
    assert pictures(tmp_path / "run") == {}


@pytest.mark.long
def test_the_advice_after_an_overflow_can_be_followed(
    of_checkpoint: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a narrow dtype trials 0 and 1 overflow; the options that the line names give them their pictures."""
    from minddiffuser.runtime.generators.diffusion import DiffusionGenerator

    real, narrow = DiffusionGenerator.stage1, []

    def stage1(self: DiffusionGenerator) -> torch.Tensor:
        images = real(self).float()
        return images * torch.nan if len(images) == 2 and narrow else images

    monkeypatch.setattr(DiffusionGenerator, "stage1", stage1)
    narrow.append(True)
    args = [*of_checkpoint, "--stage", "1"]
    assert cli.main([*args, "--dtype", "bfloat16"]) == 1
    line = next(line for line in capsys.readouterr().err.splitlines() if "to try again" in line)
    assert "overflowed in bfloat16: to try again, give --dtype float32 and another --out" in line
    narrow.clear()
    assert cli.main([*change(args, "--out", tmp_path / "again"), "--dtype", "float32"]) == 0
    # In the widest dtype there is no wider one to give.
    narrow.append(True)
    assert cli.main(change(args, "--out", tmp_path / "third")) == 1
    line = next(line for line in capsys.readouterr().err.splitlines() if "complete" in line)
    assert "--dtype" not in line
    assert "give --skip-trials 0,1,2,3 and another --out" in line


def test_trials_may_be_left_out(
    of_bundle: list[str], inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one whose stimulus cannot be read; that some are left out is part of what the run is."""
    (inputs / "seen" / "3.png").write_bytes(b"no picture")
    args = [*of_bundle, "--stimuli", str(inputs / "seen"), "--stage", "1"]
    assert "--skip-trials 3" in refusal(args, capsys)
    left_out = [*args, "--skip-trials", "3", "--skip-trials", "0, 3"]
    assert cli.main(left_out) == 0
    summary = read(tmp_path / "run" / "summary.json")
    assert [row["trial"] for row in summary["skipped"]] == [0, 3]
    assert {row["reason"] for row in summary["skipped"]} == {"left out by --skip-trials"}
    assert {name[-10:] for name in pictures(tmp_path / "run")} == {f"{trial:06d}.png" for trial in (1, 2, 4)}
    assert cli.main([*args, "--skip-trials", "3,0"]) == 0
    save_file({f"t{trial}": row for trial, row in enumerate(ROWS)}, inputs / "named.safetensors")
    named = [*change([*args[:2], str(inputs / "named.safetensors"), *args[3:]], "--out", tmp_path / "named")]
    assert cli.main([*named, "--skip-trials", "t3,0"]) == 0
    assert [row["trial"] for row in read(tmp_path / "named" / "summary.json")["skipped"]] == [0, 3]
    assert "or ids such as 't0'" in refusal([*named, "--skip-trials", "t9"], capsys)
    assert "skip_trials" in refusal([*args, "--skip-trials", "3"], capsys)
    assert "all 5 trials" in refusal([*args, "--skip-trials", "0,1,2,3,4"], capsys)
    assert "is not a list of trials" in refusal([*args, "--skip-trials", "1,,2"], capsys)


def test_the_advice_names_trials_as_the_option_takes_them(
    of_bundle: list[str],
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Arrays named "1" to "5": the one that fails is row 3, "4" by its name, and "3" is another one."""
    save_file({str(row + 1): data for row, data in enumerate(ROWS)}, inputs / "named.safetensors")
    args = [*of_bundle[:2], str(inputs / "named.safetensors"), *of_bundle[3:], "--stage", "1"]
    spoil(monkeypatch, tmp_path / "bundle", ROWS[[3]])
    assert cli.main(args) == 1
    printed = capsys.readouterr().err
    assert "trial 3 (4) has no picture" in printed
    assert "give --skip-trials 4 and another --out" in printed
    again = [*change(args, "--out", tmp_path / "again"), "--skip-trials", "4"]
    assert cli.main(again) == 0
    assert [row["trial"] for row in read(tmp_path / "again" / "summary.json")["skipped"]] == [3]
    assert "give ids such as '1'" in refusal([*args, "--skip-trials", "0"], capsys)
    (inputs / "seen" / "3.png").rename(inputs / "seen" / "5.png")
    (inputs / "seen" / "0.png").rename(inputs / "seen" / "3.png")
    (inputs / "seen" / "4.png").write_bytes(b"no picture")
    assert refusal([*args, "--stimuli", str(inputs / "seen")], capsys).endswith("--skip-trials 4")


def test_trials_that_are_left_out_are_not_looked_at(
    of_bundle: list[str],
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Those in other units would have the whole set refused, and a stimulus of one is not to be read at all."""
    rows = ROWS.copy()
    rows[:3] *= 300
    np.save(inputs / "responses.npy", rows)

    def readable(path: Path) -> str:
        if path.name == "1.png":
            raise FileError("no permission")
        return sha256_of(path)

    monkeypatch.setattr("minddiffuser.runtime.run.fingerprint.sha256_of", readable)
    args = [*of_bundle, "--stimuli", str(inputs / "seen"), "--stage", "1"]
    assert "not on the scale" in refusal(args, capsys)
    assert cli.main([*args, "--skip-trials", "0,1,2"]) == 0
    printed = capsys.readouterr().err
    assert "is skipped" not in printed
    assert "standard deviations" not in printed
    assert [row["trial"] for row in read(tmp_path / "run" / "trials.json")] == [3, 4]


def test_the_same_command_twice_is_reported_before_networks_are_opened(
    of_bundle: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*of_bundle, "--stage", "1"]
    assert cli.main(args) == 0

    def fail(*_given: object, **_named: object) -> None:
        raise AssertionError("networks were opened")

    with locked(inside(tmp_path / "run"), tmp_path / "run"):
        monkeypatch.setattr(EngineSet, "open", fail)
        assert "another process is working in" in refusal(args, capsys)


# What a run's identity holds.


def install(monkeypatch: pytest.MonkeyPatch, **libraries: str) -> None:
    real = environment.metadata.version
    names = {name.replace("_", "-"): number for name, number in libraries.items()}
    monkeypatch.setattr(environment.metadata, "version", lambda name: names.get(name) or real(name))


@pytest.mark.parametrize("library", ["tensorrt_rtx", "tensorrt", "safetensors", "torch"])
def test_libraries_that_compute_nothing_here_may_come_and_go(
    library: str, of_bundle: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main([*of_bundle, "--stage", "1"]) == 0
    written = (tmp_path / "run" / "journal" / "000000.json").stat().st_mtime_ns
    install(monkeypatch, **{library: "99.1"})
    assert cli.main([*of_bundle, "--stage", "1"]) == 0
    assert (tmp_path / "run" / "journal" / "000000.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("library", ["onnxruntime", "numpy", "minddiffuser"])
def test_libraries_that_compute_are_compared(
    library: str, of_bundle: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*of_bundle, "--stage", "1"]) == 0
    install(monkeypatch, **{library: "99.1"})
    assert f"versions.{library}" in refusal([*of_bundle, "--stage", "1"], capsys)


def with_another_engine(bundle: Path, graph: str) -> None:
    """What md-export build does: one more file, and an entry for it."""
    content = read(bundle / "manifest.json")
    variant = content["graphs"][graph]["variants"][0]
    data = (bundle / variant["file"]).read_bytes()
    name = f"engines/{graph}.fp16.onnx"
    (bundle / name).write_bytes(data)
    content["graphs"][graph]["variants"].append({**variant, "precision": "fp16", "file": name})
    content["files"][name] = {"sha256": sha256_of(bundle / name), "size": len(data)}
    content["lineage"] = {"built": "later"}
    (bundle / "manifest.json").write_text(json.dumps(content))


def test_engines_that_are_added_to_a_bundle_stop_no_run(of_bundle: list[str], tmp_path: Path) -> None:
    assert cli.main(of_bundle) == 0
    before = contents(tmp_path / "run" / "journal")
    with_another_engine(tmp_path / "bundle", "denoise")
    with_another_engine(tmp_path / "bundle", "decode_latent")
    assert cli.main(of_bundle) == 0
    assert contents(tmp_path / "run" / "journal") == before


@pytest.mark.parametrize("name", ["engines/denoise.fp32.onnx", "engines/decode_latent.fp32.onnx", "arrays.safetensors"])
def test_another_engine_in_a_used_ones_place_is_another_run(
    name: str, of_bundle: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*of_bundle, "--stage", "1"]) == 0
    content = read(tmp_path / "bundle" / "manifest.json")
    path = tmp_path / "bundle" / name
    if name.endswith(".onnx"):
        import onnx

        model = onnx.load(path)
        model.doc_string = "another"
        path.write_bytes(model.SerializeToString(deterministic=True))
    else:
        from safetensors.numpy import load_file

        arrays = load_file(path)
        save_file({**arrays, "std": arrays["std"] * 2}, path)
    content["files"][name] = {"sha256": sha256_of(path), "size": path.stat().st_size}
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(content))
    assert "hashes.checkpoint" in refusal([*of_bundle, "--stage", "1"], capsys)


def test_the_gpus_name_is_part_of_a_run_where_it_computes(
    of_bundle: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from minddiffuser.runtime.engines.cuda import gpu as cuda_gpu
    from minddiffuser.runtime.engines.ort.engine import OrtEngine

    assert cli.main([*of_bundle, "--stage", "1"]) == 0
    assert "gpu" not in read(tmp_path / "run" / "settings.json")["settings"]
    args = [*change(of_bundle, "--out", tmp_path / "gpu"), "--stage", "1"]
    monkeypatch.setattr(OrtEngine, "device", property(lambda self: "cuda:0"))
    for name, code in (("GPU of one kind", 0), ("GPU of one kind", 0), ("another", 2)):
        gpu = cuda_gpu.Gpu(index=0, name=name, compute_capability="8.0", cuda="12.4")
        monkeypatch.setattr(cuda_gpu, "find_gpu", lambda _index=None, gpu=gpu: gpu)
        assert cli.main(args) == code
    assert 'settings.gpu: "GPU of one kind" there, "another" now' in capsys.readouterr().err


def test_threads_are_the_cores_that_may_be_used(
    of_bundle: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("minddiffuser.runtime.backends.base.usable_cores", lambda: 1)
    args = [*of_bundle, "--stage", "1"]
    assert "this process may use 1 core: give at most 1" in refusal(change(args, "--threads", 2), capsys)
    at = args.index("--threads")
    del args[at : at + 2]
    assert cli.main(args) == 0
    assert read(tmp_path / "run" / "settings.json")["settings"]["threads"] == 1


# Libraries since the fit.


def test_other_versions_than_at_the_fit_are_reported_in_one_line(
    of_checkpoint: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = environment.versions(("torch", "diffusers"))
    fitted = {"torch": "1.0.0", "diffusers": here["diffusers"], "scipy": "0.1", "numpy": 3}
    edit(tmp_path / "checkpoint" / "checkpoint.json", provenance={"libraries": fitted})
    assert cli.main([*of_checkpoint, "--stage", "1"]) == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if "versions" in line]
    assert len(printed) == 1
    assert f"were fitted with torch 1.0.0, and this runs with torch {here['torch']}. " in printed[0]
    notes = [note for note in read(tmp_path / "run" / "summary.json")["notes"] if "versions" in note]
    assert [f"md-reconstruct: {note}" for note in notes] == printed
    assert "torch 1.0.0" in (tmp_path / "run" / "report.html").read_text()


def test_a_bundle_tells_of_the_export_and_of_the_fit(
    of_bundle: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bundle" / "manifest.json"
    checkpoint = read(path)["checkpoint"] | {"provenance": {"libraries": {"torch": "2.0", "diffusers": "0.3"}}}
    edit(path, checkpoint=checkpoint, versions={"torch": "2.1", "diffusers": "0.3", "onnxruntime": "1.0"})
    assert cli.main([*of_bundle, "--stage", "1"]) == 0
    printed = "\n".join(line for line in capsys.readouterr().err.splitlines() if "versions" in line)
    assert "were fitted with torch 2.0, and the bundle was exported with torch 2.1" in printed
    assert "exported and verified with onnxruntime 1.0, and this runs with onnxruntime" in printed
    # ONNX Runtime of another package, and what is no version: a terminal obeys it.
    edit(path, versions={"minddiffuser": "\x1b[2Jgone", "onnxruntime-gpu": "1.1"})
    assert cli.main([*of_bundle, "--stage", "1"]) == 0
    printed = capsys.readouterr().err
    assert "exported and verified with onnxruntime 1.1, and this runs with onnxruntime" in printed
    assert "\x1b" not in printed


# From Python.


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": -2}, "batch_size is -2"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(choice: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        Job(checkpoint=tmp_path, responses=tmp_path, out=tmp_path, **choice)


def test_from_python_the_same_folders_are_refused(toy_bundle: Path, inputs: Path, tmp_path: Path) -> None:
    """Paths may be texts, as in a notebook."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.html").write_text("mine")
    given: dict[str, Any] = {"checkpoint": str(toy_bundle), "responses": str(inputs / "responses.npy")}
    given["options"] = Options(threads=1)
    for out in (tmp_path / "mine", toy_bundle, toy_bundle / "run"):
        with pytest.raises(FileError, match="--out|is not a run folder"):
            run_job(Job(**given, out=str(out)), io.StringIO())
    assert contents(tmp_path / "mine") == {"report.html": b"mine"}
    with pytest.raises(MindDiffuserError, match="no such trial"):
        run_job(Job(**given, out=str(tmp_path / "run"), skip_trials=("9",)), io.StringIO())


def test_stimuli_that_lie_elsewhere_are_read_from_their_root(of_bundle: list[str], tmp_path: Path) -> None:
    data = write_small_data(tmp_path / "data", ROWS)
    root = tmp_path / "root"
    root.mkdir()
    images = np.random.default_rng(7).integers(0, 256, (4, 50, 40, 3), dtype=np.uint8)
    np.save(root / "all.npy", images)
    named = [refer(root, "all.npy", index=index).as_json() for index in range(4)]
    about = {"root": "/nowhere", "crop": "centre", "resize": "bicubic", "test": named}
    (data.folder / "stimuli.json").write_text(json.dumps(about))
    shutil.rmtree(data.folder / "stimuli" / "test")
    args = [*of_bundle[:2], str(data.folder), *of_bundle[3:]]
    assert cli.main(args) == 2
    assert not (tmp_path / "run").exists()
    assert cli.main([*args, "--stimuli-root", str(root)]) == 0
    stimulus = data.stimulus("test")
    for trial in range(N_TRIALS):
        stored = read_image(tmp_path / f"run/stimuli/{trial:06d}.png")
        np.testing.assert_array_equal(stored, fit_square(images[stimulus[trial]], len(stored)))
