"""``md-reconstruct run BUNDLE``: what it leaves behind, and one line for every mistake."""

import hashlib
import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import write_small_data

from minddiffuser.runtime import cli
from minddiffuser.runtime.engines.open import EngineSet
from minddiffuser.runtime.images import read_image, write_png

N_TRIALS = 5
ROWS = np.random.default_rng(1).standard_normal((N_TRIALS, 24)).astype(np.float32)
ADAM = ["--refiner", "adam", "--steps", "2", "--backprop-steps", "2"]
GUIDED = "--candidates 2 --n-steps 4 --strength 0.5 --start-steps 1 --finish-steps 1 --semantic-weight 0".split()
FAST = [*ADAM, "--batch-size", "2", "--threads", "1"]


@pytest.fixture
def stimuli(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for trial in range(N_TRIALS):
        write_png(tmp_path / "seen" / f"{trial}.png", rng.integers(0, 256, (40, 32, 3)).astype(np.uint8))
    return tmp_path / "seen"


@pytest.fixture
def arguments(toy_bundle: Path, tmp_path: Path) -> list[str]:
    """Of a good run, over a copy of the bundle that a test may damage."""
    shutil.copytree(toy_bundle, tmp_path / "bundle")
    np.save(tmp_path / "responses.npy", ROWS)
    return ["run", str(tmp_path / "bundle"), str(tmp_path / "responses.npy"), "--out", str(tmp_path / "run"), *FAST]


def guided(args: list[str], *options: str) -> list[str]:
    """The same run by the refiner guided."""
    at = args.index("--refiner")
    args[at : at + len(ADAM)] = [*GUIDED, *options]
    return args


def pictures(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.png"))}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_whole_run(arguments: list[str], stimuli: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*arguments, "--stimuli", str(stimuli), "--controls", "both"]) == 0
    run, captured = tmp_path / "run", capsys.readouterr()
    assert captured.out.strip() == str(run / "report.html")
    (line,) = (line for line in captured.err.splitlines() if line.startswith("computing with "))
    assert line.startswith("computing with ONNX Runtime, CPUExecutionProvider, fp32 (")
    kinds = ("images/stage1", "images/stage2", "images/shuffled", "images/oracle", "stimuli")
    assert set(pictures(run)) == {f"{kind}/{t:06d}.png" for kind in kinds for t in range(N_TRIALS)}
    assert set(read(run / "summary.json")["metrics"]) == {"pixcorr", "ssim", "ssim_columns", "clip_two_way"}
    settings = read(run / "settings.json")
    assert (settings["settings"]["backend"], settings["settings"]["dtype"]) == ("ort", "fp32")
    assert "onnxruntime" in settings["versions"]
    assert settings["hashes"]["models"] == read(tmp_path / "bundle" / "manifest.json")["models"]["hash"]
    # Two trials, two pictures; the refinement moves them.
    first, second = (read_image(run / "images" / "stage1" / f"00000{trial}.png") for trial in (0, 1))
    assert (first != second).any()
    assert pictures(run)["images/stage2/000000.png"] != pictures(run)["images/stage1/000000.png"]


def without(tmp: Path, graph: str) -> None:
    graphs = read(tmp / "bundle" / "manifest.json")["graphs"]
    del graphs[graph]
    edit(tmp, graphs=graphs)


def test_a_guided_run_without_the_unets_gradient(arguments: list[str], tmp_path: Path) -> None:
    """Where it is not asked for, its graph may be missing."""
    assert cli.main([*guided([*arguments]), "--stage", "1"]) == 0
    without(tmp_path, "denoise_gradient")
    arguments[arguments.index("--out") + 1] = str(tmp_path / "cheap")
    assert cli.main(guided(arguments, "--no-jacobian")) == 0
    cheap = pictures(tmp_path / "cheap")
    assert set(cheap) == {f"images/{kind}/{t:06d}.png" for kind in ("stage1", "stage2") for t in range(N_TRIALS)}
    assert {name: cheap[name] for name in pictures(tmp_path / "run")} == pictures(tmp_path / "run")


def test_the_same_command_does_nothing_again(arguments: list[str], tmp_path: Path) -> None:
    assert cli.main(arguments) == 0
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "images").rglob("*.png")}
    assert cli.main(arguments) == 0
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "images").rglob("*.png")}


def test_a_run_goes_on_when_engines_were_added(arguments: list[str], tmp_path: Path) -> None:
    """For another machine: nothing that the run takes from the bundle has changed."""
    assert cli.main([*arguments, "--stage", "1"]) == 0
    content = read(tmp_path / "bundle" / "manifest.json")
    name = "engines/tensorrt/denoise.fp32.plan"
    (tmp_path / "bundle" / name).parent.mkdir()
    (tmp_path / "bundle" / name).write_bytes(b"x")
    content["files"][name] = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
    plain = content["graphs"]["denoise"]["variants"][0]
    content["graphs"]["denoise"]["variants"].append({**plain, "target": "tensorrt", "file": name})
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(content))
    assert cli.main([*arguments, "--stage", "1"]) == 0
    content["sampling"]["steps_offset"] = 0
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(content))
    assert cli.main([*arguments, "--stage", "1"]) == 2


def test_a_bundle_of_stage_1_runs_stage_1(
    arguments: list[str], small_checkpoint: Path, stimuli: Path, tmp_path: Path
) -> None:
    """Without decoder of structure, gradients and CLIP: the report says which metric is left out."""
    left_out = ("decode_structure", "structure_gradient", "denoise_gradient", "clip_structure")
    importlib.import_module("toy_bundle").write_toy_bundle(tmp_path / "small", small_checkpoint, leave_out=left_out)
    whole = list(arguments)
    arguments[1] = str(tmp_path / "small")
    assert cli.main([*arguments, "--stage", "1", "--stimuli", str(stimuli)]) == 0
    summary = read(tmp_path / "run" / "summary.json")
    assert set(summary["metrics"]) == {"pixcorr", "ssim", "ssim_columns"}
    assert "clip_two_way was left out: the bundle has no graph clip_structure." in summary["notes"]
    whole[whole.index("--out") + 1] = str(tmp_path / "whole")
    assert cli.main([*whole, "--stage", "1", "--stimuli", str(stimuli)]) == 0
    assert pictures(tmp_path / "whole") == pictures(tmp_path / "run")


@pytest.mark.parametrize(("most", "given", "expected"), [(2, None, 2), (None, None, 16), (64, None, 16), (4, "3", 3)])
def test_batches_are_as_large_as_engines_take(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int | None,
    given: str | None,
    expected: int,
) -> None:
    monkeypatch.setattr(EngineSet, "largest_batch", most)
    at = arguments.index("--batch-size")
    arguments[at : at + 2] = [] if given is None else ["--batch-size", given]
    assert cli.main([*arguments, "--stage", "1"]) == 0
    assert read(tmp_path / "run" / "settings.json")["settings"]["batch_size"] == expected


# Every mistake: how to make it from the arguments of a good run, and what the line must say.
MISTAKES: dict[str, tuple[Callable[[list[str], Path], object], str]] = {}


def mistake(reason: str) -> Callable[[Callable[[list[str], Path], object]], None]:
    def register(make: Callable[[list[str], Path], object]) -> None:
        MISTAKES[make.__name__] = (make, reason)

    return register


def edit(tmp: Path, **changes: object) -> None:
    path = tmp / "bundle" / "manifest.json"
    path.write_text(json.dumps(read(path) | changes))


@mistake("invalid choice: 'onnx'")
def unknown_backend(args: list[str], tmp: Path) -> None:
    args += ["--backend", "onnx"]


@mistake("invalid choice: 'fp8'")
def unknown_precision(args: list[str], tmp: Path) -> None:
    args += ["--precision", "fp8"]


@mistake("in fp32, but fp16 was requested")
def precision_that_is_not_there(args: list[str], tmp: Path) -> None:
    args += ["--precision", "fp16"]


@mistake("needs tensorrt: md-export build bundle --target tensorrt")
def backend_that_is_not_there(args: list[str], tmp: Path) -> None:
    args += ["--backend", "tensorrt"]


@mistake("pip install 'minddiffuser[gpu]'")
def provider_that_the_build_has_not(args: list[str], tmp: Path) -> None:
    args += ["--backend", "ort-cuda"]


@mistake("--trust-plans runs code that the bundle brings, and needs an explicit backend")
def trust_without_a_backend(args: list[str], tmp: Path) -> None:
    args += ["--trust-plans"]


@mistake("has no clip_structure for the backend 'tensorrt': md-export build bundle --target tensorrt --graphs clip_st")
def plans_of_some_graphs(args: list[str], tmp: Path) -> None:
    """Those that make the pictures, and not the one that measures them."""
    content = read(tmp / "bundle" / "manifest.json")
    name = "engines/tensorrt/x.fp32.plan"
    (tmp / "bundle" / name).parent.mkdir()
    (tmp / "bundle" / name).write_bytes(b"x")
    content["files"][name] = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
    for graph in ("denoise", "vae_decode", "structure_gradient", "denoise_gradient"):
        plain = content["graphs"][graph]["variants"][0]
        content["graphs"][graph]["variants"].append({**plain, "target": "tensorrt", "file": name})
    (tmp / "bundle" / "manifest.json").write_text(json.dumps(content))
    args += ["--backend", "tensorrt"]


@mistake("is a checkpoint, and --trust-plans choose among a bundle's engines")
def trust_in_a_checkpoint(args: list[str], tmp: Path) -> None:
    (tmp / "bundle" / "manifest.json").unlink()
    (tmp / "bundle" / "checkpoint.json").write_text("{}")
    args += ["--trust-plans"]


@mistake("--models choose PyTorch's")
def models_of_its_own(args: list[str], tmp: Path) -> None:
    args += ["--models", "tiny"]


@mistake("is a bundle, which has its networks inside, and --dtype")
def dtype(args: list[str], tmp: Path) -> None:
    args += ["--dtype", "float16"]


@mistake("made for other models")
def pytorch_on_other_models(args: list[str], tmp: Path) -> None:
    args += ["--backend", "pytorch", "--models", "tiny"]


@mistake("responses have 23 voxels, the checkpoint was fitted on 24")
def other_voxels(args: list[str], tmp: Path) -> None:
    np.save(tmp / "responses.npy", ROWS[:, :23])


@mistake("decodes subject 'someone', the responses are of 'else'")
def another_subject(args: list[str], tmp: Path) -> None:
    args[2] = str(write_small_data(tmp / "data", ROWS, subject="else").folder)


@mistake("version 99")
def a_newer_schema(args: list[str], tmp: Path) -> None:
    edit(tmp, version=99)


@mistake("denoise.fp32.onnx is damaged or was changed")
def a_flipped_bit(args: list[str], tmp: Path) -> None:
    path = tmp / "bundle" / "engines" / "denoise.fp32.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@mistake("vae_decode.fp32.onnx has")
def a_truncated_engine(args: list[str], tmp: Path) -> None:
    path = tmp / "bundle" / "engines" / "vae_decode.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-7])


@mistake("lacks engines/denoise_gradient.fp32.onnx")
def a_missing_engine(args: list[str], tmp: Path) -> None:
    (tmp / "bundle" / "engines" / "denoise_gradient.fp32.onnx").unlink()


@mistake("lacks the graph denoise_gradient")
def gradients_that_were_not_exported(args: list[str], tmp: Path) -> None:
    without(tmp, "denoise_gradient")


@mistake("lacks the graph denoise_gradient")
def guided_without_the_unets_gradient(args: list[str], tmp: Path) -> None:
    without(tmp, "denoise_gradient")
    guided(args)


@mistake("lacks the graph structure_gradient")
def guided_without_the_losss_gradient(args: list[str], tmp: Path) -> None:
    without(tmp, "structure_gradient")
    guided(args)


@mistake("was exported before the cost of its graphs was counted: export it again with md-export bundle")
def a_budget_for_a_bundle_of_unknown_cost(args: list[str], tmp: Path) -> None:
    args[:] = [*guided(args)[: args.index("--candidates")], "--semantic-weight", "0", "--budget", "1000"]


@mistake("was exported before the cost of its graphs was counted: export it again with md-export bundle")
def a_deadline_for_a_bundle_of_unknown_cost(args: list[str], tmp: Path) -> None:
    args[:] = [*guided(args)[: args.index("--candidates")], "--semantic-weight", "0", "--deadline", "1000"]


@mistake("n_steps is 1001: choose 1 to 1000")
def more_steps_than_the_networks_know(args: list[str], tmp: Path) -> None:
    guided(args, "--n-steps", "1001")


@mistake("latent of the graph vae_decode")
def an_engine_that_is_not_what_it_is_said_to_be(args: list[str], tmp: Path) -> None:
    graphs = read(tmp / "bundle" / "manifest.json")["graphs"]
    graphs["vae_decode"]["inputs"]["latent"]["shape"] = ["batch", 4, 8, 8]
    edit(tmp, graphs=graphs)


@mistake("needs the stimuli")
def oracle_without_stimuli(args: list[str], tmp: Path) -> None:
    args += ["--controls", "oracle"]


@mistake("has no decoder of the semantic feature")
def semantic_term_without_a_target(args: list[str], tmp: Path) -> None:
    args += ["--semantic-weight", "0.1"]


@mistake("this process may use")
def more_threads_than_cores(args: list[str], tmp: Path) -> None:
    args += ["--threads", "99999"]


@mistake("settings.refine.steps: 7 there, 2 now")
def folder_of_other_settings(args: list[str], tmp: Path) -> None:
    assert cli.main([*args, "--stage", "1", "--steps", "7"]) == 0
    args += ["--stage", "1"]


@mistake("checkpoint.json does not exist")
def a_folder_without_a_manifest(args: list[str], tmp: Path) -> None:
    (tmp / "bundle" / "manifest.json").unlink()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    name: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = MISTAKES[name]
    make(arguments, tmp_path)
    capsys.readouterr()
    claimed = sorted(tmp_path.rglob("settings.json"))
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("md-reconstruct: ")
    assert message in lines[0]
    assert captured.out == ""
    assert sorted(tmp_path.rglob("settings.json")) == claimed, "a mistake has claimed the run folder"


def test_a_batch_that_engines_do_not_take_is_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(EngineSet, "largest_batch", 1)
    assert cli.main(arguments) == 2
    assert "the batch size is 2, and the bundle's engines were built for at most 1 trials" in capsys.readouterr().err


def test_a_run_without_a_feature(
    arguments: list[str], stimuli: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is part of what the run is, and its report says it."""
    ablated = [*arguments, "--stimuli", str(stimuli), "--without", "latent", "--without", "context", "--stage", "1"]
    assert cli.main(ablated) == 0
    run = tmp_path / "run"
    assert read(run / "settings.json")["settings"]["without"] == ["context", "latent"]
    assert "without the decoded context and latent" in (run / "report.html").read_text()
    made = [read_image(run / "images" / "stage1" / f"{trial:06d}.png") for trial in range(N_TRIALS)]
    assert all((picture != made[0]).any() for picture in made[1:])  # noise is each trial's own
    capsys.readouterr()
    assert cli.main(ablated[:-4] + ["--stage", "1"]) == 2
    assert "settings.without" in capsys.readouterr().err
    assert cli.main([*arguments, "--percent", "100"]) == 2
    assert "100 % was asked for: give at most that" in capsys.readouterr().err
