"""The commands as a person meets them: what they leave behind, and one line for every mistake."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_data import write_small_data

from minddiffuser.runtime import cli, files
from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.refine import REFINERS
from minddiffuser.runtime.refine.settings import PRESETS, RefineSettings

N_TRIALS = 5
ROWS = np.random.default_rng(1).standard_normal((N_TRIALS, 24)).astype(np.float32)
ADAM = ["--refiner", "adam", "--steps", "1", "--backprop-steps", "1"]
# The small checkpoint has no decoder of the semantic feature.
GUIDED = "--start-steps 2 --finish-steps 1 --candidates 2 --n-steps 4 --strength 0.5 --semantic-weight 0".split()
FAST = [*ADAM, "--batch-size", "2", "--threads", "1", "--device", "cpu"]
Go = Callable[..., int]


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    path = tmp_path / "responses.npy"
    np.save(path, ROWS)
    return path


@pytest.fixture
def stimuli(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for trial in range(N_TRIALS):
        write_png(tmp_path / "seen" / f"{trial}.png", rng.integers(0, 256, (40, 32, 3)).astype(np.uint8))
    return tmp_path / "seen"


@pytest.fixture
def arguments(small_checkpoint: Path, small_world: Path, responses: Path, tmp_path: Path) -> list[str]:
    return [
        "run",
        str(small_checkpoint),
        str(responses),
        "--models",
        str(small_world),
        "--out",
        str(tmp_path / "run"),
        *FAST,
    ]


def guided(args: list[str], *options: str) -> list[str]:
    """The same run by the refiner guided, which nobody has to name."""
    at = args.index("--refiner")
    args[at : at + len(ADAM)] = options or GUIDED
    return args


def a_run_folder(folder: Path) -> Path:
    """One that says that it is one."""
    (folder / "settings.json").write_text(json.dumps({"format": "minddiffuser-run-settings", "version": 1}))
    return folder


def pictures(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.png"))}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("md-reconstruct: ")
    assert captured.out == ""
    return lines[0]


def test_a_whole_run(arguments: list[str], stimuli: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*arguments, "--stimuli", str(stimuli), "--controls", "both", "--note", "by hand"]) == 0
    run = tmp_path / "run"
    captured = capsys.readouterr()
    assert captured.out.strip() == str(run / "report.html")
    assert "images/s" in captured.err
    kinds = ("images/stage1", "images/stage2", "images/shuffled", "images/oracle", "stimuli")
    assert set(pictures(run)) == {f"{kind}/{t:06d}.png" for kind in kinds for t in range(N_TRIALS)}
    summary = json.loads((run / "summary.json").read_text())
    assert summary["n_trials"] == N_TRIALS
    assert set(summary["metrics"]) == {"pixcorr", "ssim", "ssim_columns", "clip_two_way"}
    assert set(summary["controls"]) == {"shuffled", "oracle"}
    for table in (summary["metrics"], *summary["controls"].values()):
        for row in table.values():
            assert {"stage1", "stage2", "difference", "ci95"} <= set(row)
            assert row["difference"] == pytest.approx(row["stage2"] - row["stage1"])
    for name, row in summary["metrics"].items():
        assert row["n_pictures"] == N_TRIALS
        shuffled = summary["controls"]["shuffled"][name]["stage2"]
        assert row["decoded_minus_shuffled"]["difference"] == pytest.approx(row["stage2"] - shuffled)
        assert row["stage1_floor"] is not None
    assert summary["controls"]["oracle"]["ssim"]["stage1"] == summary["metrics"]["ssim"]["stage1"]
    assert set(summary["seconds"]) == {"decode", "stage1", "stage2", "shuffled", "oracle", "metrics"}
    trials = json.loads((run / "trials.json").read_text())
    assert np.mean([row["metrics"]["ssim"][1] for row in trials]) == pytest.approx(summary["metrics"]["ssim"]["stage2"])
    settings = json.loads((run / "settings.json").read_text())
    assert settings["settings"]["refine"]["backprop_steps"] == 1
    assert settings["notes"] == ["by hand"]
    assert all(len(value) == 64 for value in settings["hashes"].values())


def test_stage_2_is_guided_where_nothing_else_is_asked_for(arguments: list[str], stimuli: Path, tmp_path: Path) -> None:
    assert cli.main([*guided(arguments), "--stimuli", str(stimuli), "--controls", "both"]) == 0
    run = tmp_path / "run"
    kinds = ("images/stage1", "images/stage2", "images/shuffled", "images/oracle", "stimuli")
    assert set(pictures(run)) == {f"{kind}/{t:06d}.png" for kind in kinds for t in range(N_TRIALS)}
    refine = json.loads((run / "settings.json").read_text())["settings"]["refine"]
    assert (refine["refiner"], refine["candidates"], refine["n_steps"], refine["strength"]) == ("guided", 2, 4, 0.5)
    for trial in range(N_TRIALS):
        curve = json.loads((run / "curves" / f"{trial:06d}.json").read_text())
        assert curve["loss"][-1] == min(curve["candidates"])
        assert curve["best_step"] == len(curve["loss"]) - 1
    assert "stage 2: guided, 2 candidates" in (run / "report.html").read_text()


def test_the_number_of_steps_alone_leaves_the_presets_strength(arguments: list[str], tmp_path: Path) -> None:
    assert cli.main([*guided(arguments, "--preset", "single", "--n-steps", "6"), "--stage", "1"]) == 0
    refine = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]["refine"]
    expected = {**PRESETS["single"].as_dict(), "n_steps": 6}
    assert refine == expected


def test_stage_1s_own_sampling_can_be_asked_for(arguments: list[str], tmp_path: Path) -> None:
    given = guided(arguments, "--preset", "single", "--strength", "stage1", "--stage", "1")
    assert cli.main(given) == 0
    refine = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]["refine"]
    assert refine == {**PRESETS["single"].as_dict(), "n_steps": None, "strength": None}


def test_every_option_of_stage_2_is_a_setting_under_its_refiner(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    text = capsys.readouterr().out
    shared, *rest = text[text.index("\nstage 2 (") :].split("\nrefiner ")
    parts = {part.partition(":")[0]: part.partition("\n\n")[0] for part in rest}
    assert set(parts) == {"adam", "guided"}
    assert all(option in shared for option in ("--preset", "--refiner", "--semantic-weight", "--seed"))
    for refiner, (kind, _) in REFINERS.items():
        listed = set(re.findall(r"^  (--[a-z-]+)", parts[refiner], flags=re.MULTILINE)) - {"--checkpointing"}
        own = {field.name for field in fields(kind)} - {field.name for field in fields(RefineSettings)}
        assert listed <= {"--no-jacobian" if name == "jacobian" else f"--{name.replace('_', '-')}" for name in own}
        assert listed


def test_repeated_pictures_and_no_second_measuring(
    arguments: list[str], stimuli: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials 0, 2 and 4 showed one picture, 1 and 3 another, in files of their own."""
    for trial, shown in ((2, 0), (4, 0), (3, 1)):
        shutil.copy(stimuli / f"{shown}.png", stimuli / f"{trial}.png")
    arguments += ["--stimuli", str(stimuli), "--controls", "shuffled"]
    assert cli.main(arguments) == 0
    assert "measuring pictures: " in capsys.readouterr().err
    first = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (first["n_trials"], first["n_pictures"]) == (5, 2)
    assert {row["ci95"] for row in first["metrics"].values()} == {None}
    trials = json.loads((tmp_path / "run" / "trials.json").read_text())
    ids = [trial["stimulus_id"] for trial in trials]
    assert ids[0] == ids[2] == ids[4] != ids[1] == ids[3]
    for trial in trials:  # against one other picture there is nothing between right and wrong
        assert set(trial["metrics"]["clip_two_way"]) <= {0.0, 1.0}
    assert cli.main(arguments) == 0
    assert "measuring" not in capsys.readouterr().err
    again = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {**again, "seconds": None} == {**first, "seconds": None}


def test_shuffling_one_picture_is_refused_before_anything_is_made(
    arguments: list[str], stimuli: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for trial in range(1, N_TRIALS):
        shutil.copy(stimuli / "0.png", stimuli / f"{trial}.png")
    assert cli.main([*arguments, "--stimuli", str(stimuli), "--controls", "shuffled"]) == 2
    said = one_line(capsys)
    assert "at least 2 different pictures, all 5 good ones showed the same" in said
    assert not (tmp_path / "run").exists()


def test_pictures_alone_without_stimuli_and_with_stage_1_only(arguments: list[str], tmp_path: Path) -> None:
    assert cli.main([*arguments, "--stage", "1", "--stage1", "near"]) == 0
    run = tmp_path / "run"
    sampling = json.loads((run / "settings.json").read_text())["settings"]["sampling"]
    assert sampling == {"guidance_scale": 5.0, "n_steps": 25, "n_noise": None, "n_reverse": 8}
    assert {path.split("/")[1] for path in pictures(run)} == {"stage1"}
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["n_trials"], summary["metrics"], summary["controls"]) == (N_TRIALS, {}, {})
    assert (run / "report.html").is_file()


def test_a_bad_trial_is_reported_skipped_counted_and_in_the_exit_code(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ROWS.copy()
    rows[3:, 5] = np.nan
    arrays = {f"{t:02d}": rows[t] for t in range(N_TRIALS)} | {"01": ROWS[1, :20]}
    save_file({name: np.ascontiguousarray(row) for name, row in arrays.items()}, tmp_path / "r.safetensors")
    arguments[2] = str(tmp_path / "r.safetensors")
    assert cli.main([*arguments, "--stage", "1"]) == 1
    printed = capsys.readouterr().err
    assert "trial 1 (01) is skipped: it has 20 voxels, expected 24" in printed
    assert "trial 3 (03) is skipped: 1 of 24 values are NaN or infinite, in voxel 5" in printed
    assert "2 trials hold NaN or infinite values in voxel 5 only: leave these voxels out" in printed
    assert "of 5 trials, 3 skipped: see " in printed
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["trial"] for row in summary["skipped"]] == [1, 3, 4]
    assert summary["n_trials"] == 2
    assert set(pictures(tmp_path / "run")) == {f"images/stage1/{t:06d}.png" for t in (0, 2)}


# The command, which kills itself as soon as the record that is named first is written.
KILLED = """
import os, signal, sys
from minddiffuser.runtime import cli
from minddiffuser.runtime import journal

last, write = sys.argv[1], journal.write_json

def write_and_die(path, content):
    write(path, content)
    if path.name == last:
        os.kill(os.getpid(), signal.SIGKILL)

journal.write_json = write_and_die
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    "refiner", [pytest.param("adam", marks=pytest.mark.slow), pytest.param("guided", marks=pytest.mark.long)]
)
def test_a_killed_run_resumes_without_redoing_and_ends_with_the_same_bytes(
    refiner: str, arguments: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = [*arguments, "--steps", "2"] if refiner == "adam" else guided(arguments)
    command = [sys.executable, "-c", KILLED, "000000.json", *arguments]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    finished = {p: p.stat().st_mtime_ns for p in run.glob("images/*/*.png")}
    assert len(finished) == 4
    assert [path.name for path in (run / "journal").iterdir()] == ["000000.json"]
    assert cli.main(arguments) == 0
    assert {p: p.stat().st_mtime_ns for p in finished} == finished, "finished trials were made again"
    arguments[arguments.index("--out") + 1] = str(tmp_path / "whole")
    assert cli.main(arguments) == 0
    assert pictures(run) == pictures(tmp_path / "whole")
    for curve in (run / "curves").iterdir():
        assert curve.read_bytes() == (tmp_path / "whole" / "curves" / curve.name).read_bytes()
    assert len(pictures(run)) == 2 * N_TRIALS


# Every mistake: how to make it from the arguments of a good run, and what the line must say.
MISTAKES: dict[str, tuple[Callable[[list[str], Path], object], str]] = {}


def mistake(reason: str) -> Callable[[Callable[[list[str], Path], object]], None]:
    def register(make: Callable[[list[str], Path], object]) -> None:
        MISTAKES[make.__name__] = (make, reason)

    return register


def own_checkpoint(args: list[str], tmp: Path) -> Path:
    shutil.copytree(args[1], tmp / "checkpoint")
    args[1] = str(tmp / "checkpoint")
    return tmp / "checkpoint"


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def give(args: list[str], tmp: Path, array: np.ndarray) -> None:
    np.save(tmp / "bad.npy", array)
    args[2] = str(tmp / "bad.npy")


@mistake("invalid choice: 'other'")
def unknown_preset(args: list[str], tmp: Path) -> None:
    args += ["--preset", "other"]


@mistake("argument --batch-size: '0' is not a whole number from 1 to 1,000,000")
def empty_batches(args: list[str], tmp: Path) -> None:
    args += ["--batch-size", "0"]


@mistake("is neither 'all' nor a whole number")
def half_a_step(args: list[str], tmp: Path) -> None:
    args += ["--backprop-steps", "1.5"]


@mistake("learning_rate is -1.0")
def backward(args: list[str], tmp: Path) -> None:
    args += ["--learning-rate", "-1"]


@mistake("--learning-rate belongs to the refiner adam, and this run's is guided: leave it out, or give --refiner adam")
def a_setting_of_adam(args: list[str], tmp: Path) -> None:
    guided(args, "--learning-rate", "0.1")


@mistake("--no-jacobian belongs to the refiner guided, and this run's is adam: leave it out, or give --refiner guided")
def a_setting_of_guided(args: list[str], tmp: Path) -> None:
    args += ["--no-jacobian"]


@mistake("this run's is adam: leave it out, or give a preset of guided (default, single)")
def a_setting_of_guided_with_the_papers(args: list[str], tmp: Path) -> None:
    guided(args, "--preset", "paper", "--candidates", "3")


@mistake("the preset paper is of the refiner adam, and the refiner guided was asked for: leave one of the two out")
def a_preset_of_another_refiner(args: list[str], tmp: Path) -> None:
    guided(args, "--preset", "paper", "--refiner", "guided")


@mistake("argument --refiner: invalid choice: 'sgd'")
def a_refiner_that_is_not_there(args: list[str], tmp: Path) -> None:
    args += ["--refiner", "sgd"]


@mistake("--candidates and --deadline each say how many candidates there are: give one of them")
def two_ways_to_say_how_many(args: list[str], tmp: Path) -> None:
    guided(args, "--candidates", "3", "--deadline", "5")


@mistake("--budget and --deadline each say how many candidates there are: give one of them")
def two_limits(args: list[str], tmp: Path) -> None:
    guided(args, "--budget", "3", "--deadline", "5")


@mistake("refine setting n_steps is 0: give a whole number of 1 or more")
def no_step(args: list[str], tmp: Path) -> None:
    guided(args, "--n-steps", "0")


@mistake("n_steps is 1001: choose 1 to 1000, the timesteps that the model was trained on")
def more_steps_than_the_networks_know(args: list[str], tmp: Path) -> None:
    guided(args, "--n-steps", "1001", "--semantic-weight", "0")


@mistake("refine setting strength is 1.5: give a share of the grid's steps, above 0 and at most 1")
def too_strong(args: list[str], tmp: Path) -> None:
    guided(args, "--strength", "1.5")


@mistake("--strength stage1 takes stage 1's own grid: leave --n-steps out, or give a number")
def a_grid_beside_stage_1s(args: list[str], tmp: Path) -> None:
    guided(args, "--n-steps", "5", "--strength", "stage1")


@mistake("argument --strength: 'stage 1' is neither 'stage1' nor a number")
def a_strength_of_another_name(args: list[str], tmp: Path) -> None:
    guided(args, "--strength", "stage 1")


@mistake("--strength belongs to the refiner guided, and this run's is adam")
def stage_1s_sampling_of_adam(args: list[str], tmp: Path) -> None:
    args += ["--strength", "stage1"]


@mistake("refine setting step_size is -0.1: give 0 or a positive number")
def a_step_backward(args: list[str], tmp: Path) -> None:
    guided(args, "--step-size", "-0.1")


@mistake("refine setting step_size is nan: give a finite number")
def a_step_of_no_size(args: list[str], tmp: Path) -> None:
    guided(args, "--step-size", "nan")


@mistake("refine setting guided_share is 1.1: give a share of the steps, 0 to 1")
def more_than_all_guided(args: list[str], tmp: Path) -> None:
    guided(args, "--guided-share", "1.1")


@mistake("argument --candidates: '0' is not a whole number")
def no_candidate(args: list[str], tmp: Path) -> None:
    guided(args, "--candidates", "0")


@mistake("refine setting budget is -5.0: give a positive number")
def a_budget_below_nothing(args: list[str], tmp: Path) -> None:
    guided(args, "--budget", "-5")


@mistake("the budget is 1, and one candidate of a trial costs")
def a_budget_for_nothing(args: list[str], tmp: Path) -> None:
    guided(args, "--budget", "1", "--semantic-weight", "0")


@mistake("the deadline is 1e-09 s, and one candidate of a trial takes")
def a_deadline_for_nothing(args: list[str], tmp: Path) -> None:
    guided(args, "--deadline", "1e-9", "--semantic-weight", "0")


@mistake("needs the stimuli")
def guided_oracle_without_stimuli(args: list[str], tmp: Path) -> None:
    guided(args, *GUIDED, "--controls", "oracle")


@mistake("no decoder of the semantic feature")
def guided_semantic_term_without_a_target(args: list[str], tmp: Path) -> None:
    guided(args, "--semantic-weight", "0.1")


@mistake("settings.refine.candidates: 2 there, 3 now")
def folder_of_other_candidates(args: list[str], tmp: Path) -> None:
    guided(args, *GUIDED, "--stage", "1")
    assert cli.main(args) == 0
    args += ["--candidates", "3"]


@mistake('settings.refine.refiner: "guided" there, "adam" now')
def folder_of_another_refiner(args: list[str], tmp: Path) -> None:
    assert cli.main([*guided([*args]), "--stage", "1"]) == 0
    args += ["--stage", "1"]


@mistake("argument --stage: invalid choice")
def third_stage(args: list[str], tmp: Path) -> None:
    args += ["--stage", "3"]


@mistake("unrecognized arguments: --sedd")
def misspelt(args: list[str], tmp: Path) -> None:
    args += ["--sedd", "3"]


@mistake("is not a folder")
def missing_checkpoint(args: list[str], tmp: Path) -> None:
    args[1] = str(tmp / "absent")


@mistake("truncated or was changed")
def truncated_checkpoint(args: list[str], tmp: Path) -> None:
    path = own_checkpoint(args, tmp) / "latent.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


@mistake("version 99")
def newer_checkpoint(args: list[str], tmp: Path) -> None:
    edit(own_checkpoint(args, tmp) / "checkpoint.json", version=99)


@mistake("made for other models")
def other_models(args: list[str], tmp: Path) -> None:
    edit(own_checkpoint(args, tmp) / "checkpoint.json", models={"name": "other", "hash": "0" * 64})


@mistake("layer preset")
def mask_of_another_preset(args: list[str], tmp: Path) -> None:
    folder = own_checkpoint(args, tmp)
    path = folder / "mask.safetensors"
    save_file(load_file(path), path, metadata={"preset": "paper"})
    content = json.loads((folder / "checkpoint.json").read_text())
    edit(folder / "checkpoint.json", files=content["files"] | {path.name: files.sha256_of(path)})


@mistake("'someone'")
def another_subject(args: list[str], tmp: Path) -> None:
    args[2] = str(write_small_data(tmp / "data", ROWS, subject="else").folder)


@mistake("response_shape is [24]: eeg has (n_channels, n_times)")
def data_that_fit_refuses(args: list[str], tmp: Path) -> None:
    args[2] = str(write_small_data(tmp / "data", ROWS).folder)
    edit(tmp / "data" / "data.json", modality="eeg")


@mistake("do not exist")
def missing_responses(args: list[str], tmp: Path) -> None:
    args[2] = str(tmp / "absent.npy")


@mistake("responses have 23 voxels, the checkpoint was fitted on 24")
def other_voxels(args: list[str], tmp: Path) -> None:
    give(args, tmp, ROWS[:, :23])


@mistake("the only trial has the shape (5, 24), and one trial is 24 voxels: these are likely the responses of 5 trials")
def wrong_rank(args: list[str], tmp: Path) -> None:
    give(args, tmp, ROWS[None])


@mistake("int64: expected float32")
def wrong_dtype(args: list[str], tmp: Path) -> None:
    give(args, tmp, ROWS.astype(np.int64))


@mistake("none of the 5 trials can be reconstructed")
def all_nan(args: list[str], tmp: Path) -> None:
    give(args, tmp, ROWS * np.nan)


@mistake("every voxel is 1")
def constant(args: list[str], tmp: Path) -> None:
    give(args, tmp, np.ones_like(ROWS))


@mistake("hold Python objects (dtype object), which are never opened")
def pickled(args: list[str], tmp: Path) -> None:
    np.save(tmp / "bad.npy", np.array([{}], dtype=object), allow_pickle=True)
    args[2] = str(tmp / "bad.npy")


@mistake("cannot be decoded")
def stimulus_that_is_no_picture(args: list[str], tmp: Path) -> None:
    (tmp / "bad").mkdir()
    for trial in range(N_TRIALS):
        (tmp / "bad" / f"{trial}.png").write_bytes(b"no picture")
    args += ["--stimuli", str(tmp / "bad")]


@mistake("there are 5 trials")
def too_few_stimuli(args: list[str], tmp: Path) -> None:
    write_png(tmp / "few" / "0.png", np.zeros((32, 32, 3), np.uint8))
    args += ["--stimuli", str(tmp / "few")]


@mistake("needs the stimuli")
def oracle_without_stimuli(args: list[str], tmp: Path) -> None:
    args += ["--controls", "oracle"]


@mistake("at least 2 good trials, there are 1")
def shuffled_alone(args: list[str], tmp: Path) -> None:
    give(args, tmp, ROWS[:1])
    args += ["--controls", "shuffled"]


@mistake("name one or more of these")
def nothing_left_to_optimise(args: list[str], tmp: Path) -> None:
    args += ["--params", "context", "--backprop-steps", "0"]


@mistake("no decoder of the semantic feature")
def semantic_term_without_a_target(args: list[str], tmp: Path) -> None:
    args += ["--semantic-weight", "0.1"]


@mistake("this process may use")
def more_threads_than_cores(args: list[str], tmp: Path) -> None:
    args += ["--threads", "99999"]


@mistake("is not a whole number from 1 to")
def a_billion_threads(args: list[str], tmp: Path) -> None:
    args += ["--threads", "99999999999"]


@mistake("a text in it is not Unicode")
def note_in_another_encoding(args: list[str], tmp: Path) -> None:
    args += ["--note", b"caf\xe9".decode(errors="surrogateescape")]


@mistake("holds stimuli and is not a run folder")
def stimuli_of_something_else(args: list[str], tmp: Path) -> None:
    write_png(tmp / "run" / "stimuli" / "000000.png", np.zeros((32, 32, 3), np.uint8))


@mistake("3.png cannot be decoded")
def one_stimulus_of_five_is_no_picture(args: list[str], tmp: Path) -> None:
    for trial in range(N_TRIALS):
        write_png(tmp / "bad" / f"{trial}.png", np.zeros((32, 32, 3), np.uint8))
    (tmp / "bad" / "3.png").write_bytes(b"no picture")
    args += ["--stimuli", str(tmp / "bad")]


@mistake("--trials and --stimuli were both given")
def demo_of_both(args: list[str], tmp: Path) -> None:
    args[:] = ["demo", "--full", "--out", str(tmp / "demo"), "--trials", "3", "--stimuli", str(tmp)]


@mistake("does not exist")
def missing_models(args: list[str], tmp: Path) -> None:
    args[args.index("--models") + 1] = str(tmp / "absent")


@mistake("settings.refine.steps: 7 there, 1 now")
def folder_of_other_settings(args: list[str], tmp: Path) -> None:
    # --stage 1 stays: the refinement's settings are part of the identity all the same.
    assert cli.main([*args, "--stage", "1", "--steps", "7"]) == 0
    args += ["--stage", "1"]


@mistake("is a file")
def folder_that_is_a_file(args: list[str], tmp: Path) -> None:
    (tmp / "run").write_text("")


@mistake("does not exist")
def report_of_nothing(args: list[str], tmp: Path) -> None:
    args[:] = ["report", str(tmp / "absent")]


@mistake("invalid choice: 'rune'")
def unknown_command(args: list[str], tmp: Path) -> None:
    args[:] = ["rune"]


@mistake("controls need at least 2")
def demo_of_one(args: list[str], tmp: Path) -> None:
    args[:] = ["demo", "--full", "--out", str(tmp / "demo"), "--trials", "1"]


@mistake("cannot be read")
def demo_of_absent_pictures(args: list[str], tmp: Path) -> None:
    args[:] = ["demo", "--full", "--out", str(tmp / "demo"), "--stimuli", str(tmp / "absent")]


# These two count operations first; tests/runtime/run/test_budget.py makes the same mistakes with a bundle.
COUNTING = {"a_budget_for_nothing", "a_deadline_for_nothing"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in COUNTING else ()) for name in MISTAKES]
)
def test_a_mistake_is_one_line_and_exit_code_2(
    name: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = MISTAKES[name]
    make(arguments, tmp_path)
    capsys.readouterr()
    claimed = sorted(tmp_path.rglob("settings.json"))
    assert cli.main(arguments) == 2
    assert message in one_line(capsys)
    assert sorted(tmp_path.rglob("settings.json")) == claimed, "a mistake has claimed the run folder"


def test_the_models_may_be_named_in_another_way(
    arguments: list[str], small_world: Path, tmp_path: Path, stimuli: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy elsewhere holds the same weights; memory and pictures of a damaged copy of the stimuli are no matter."""
    arguments += ["--stage", "1", "--stimuli", str(stimuli)]
    assert cli.main(arguments) == 0
    before, stage1 = pictures(tmp_path / "run"), tmp_path / "run" / "images" / "stage1" / "000000.png"
    written = stage1.stat().st_mtime_ns
    write_png(tmp_path / "run" / "stimuli" / "000001.png", np.zeros((32, 32, 3), np.uint8))
    shutil.copytree(small_world, tmp_path / "copy")
    arguments[arguments.index("--models") + 1] = str(tmp_path / "copy")
    assert cli.main([*arguments, "--checkpointing", "on"]) == 0
    assert pictures(tmp_path / "run") == before
    assert stage1.stat().st_mtime_ns == written, "finished trials were made again"


def test_why_concepts_were_not_measured_is_reported(arguments: list[str], stimuli: Path, tmp_path: Path) -> None:
    assert cli.main([*arguments, "--stage", "1", "--stimuli", str(stimuli)]) == 0
    notes = json.loads((tmp_path / "run" / "summary.json").read_text())["notes"]
    (note,) = [note for note in notes if note.startswith("concept_top1")]
    assert note.startswith("concept_top1 was left out: ")
    assert note in (tmp_path / "run" / "report.html").read_text()


def test_broken_refinements_are_reported_and_kept(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from minddiffuser.runtime.refine.autograd import AutogradObjective

    real, calls = AutogradObjective.value_and_gradient, []

    def value_and_gradient(self: AutogradObjective, params: object) -> object:
        loss, gradients, image = real(self, params)
        calls.append(len(loss))
        return (loss * float("nan") if len(calls) == 4 else loss), gradients, image  # trials 2 and 3, last evaluation

    monkeypatch.setattr(AutogradObjective, "value_and_gradient", value_and_gradient)
    assert cli.main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    message = [line for line in lines if "diverged" in line]
    assert len(message) == 1
    assert "trial(s) 2, 3: refinement diverged: its loss became NaN" in message[0]
    assert lines[-1].startswith("md-reconstruct: of 5 trials, 2 failed: see ")
    failed = json.loads((tmp_path / "run" / "summary.json").read_text())["failed"]
    assert [(entry["trial"], entry["picture"]) for entry in failed] == [(2, True), (3, True)]
    assert (tmp_path / "run" / "report.html").read_text().count("refinement diverged") == 2


def test_the_folder_is_locked_until_the_page_is_written(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minddiffuser.runtime.errors import FileError
    from minddiffuser.runtime.locks import inside, locked
    from minddiffuser.runtime.run import execute, results

    held = []

    def watched(module: Any, name: str) -> None:
        real = getattr(module, name)

        def step(*given: object, **chosen: object) -> object:
            folder = tmp_path / "run"
            with pytest.raises(FileError, match="another process"), locked(inside(folder), folder):
                pass
            held.append(name)
            return real(*given, **chosen)

        monkeypatch.setattr(module, name, step)

    for module, name in (
        (execute, "claim_folder"),
        (execute, "run_batch"),
        (results, "write_summary"),
        (execute, "write_report"),
    ):
        watched(module, name)
    assert cli.main([*arguments, "--stage", "1"]) == 0
    assert held == ["claim_folder", "run_batch", "write_summary", "write_report"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        full = path.parent.name == "stage1"
        return real(Path("/dev/full") if full else path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert cli.main([*arguments, "--stage", "1"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("md-reconstruct:")]
    assert len(lines) == 1
    assert "the disk is full" in lines[0]


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (KeyboardInterrupt(), 130, "the same command resumes"),
        (MemoryError(), 2, "--batch-size"),
        (PermissionError(13, "Permission denied", "some/file"), 2, "some/file: Permission denied"),
        (OSError("odd"), 2, "odd"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            2,
            "--backprop-steps",
        ),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), 2, "--batch-size"),
    ],
)
def test_what_happens_to_a_run_from_outside_is_one_line(
    error: BaseException,
    code: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from minddiffuser.runtime.report import page

    def fail(_run: Path) -> Path:
        raise error

    monkeypatch.setattr(page, "write_report", fail)
    assert cli.main(["report", str(a_run_folder(tmp_path))]) == code
    assert reason in one_line(capsys)


def test_a_fault_of_ours_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minddiffuser.runtime.report import page

    monkeypatch.setattr(page, "write_report", lambda run: {}["a fault of ours"])
    with pytest.raises(KeyError):
        cli.main(["report", str(a_run_folder(tmp_path))])


@pytest.mark.parametrize("command", ["run", "demo", "report"])
def test_help_ends_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"md-reconstruct {command} " in text[text.index("example (offline") :]
