"""md-export as a person meets it: what it prints, and one line for every mistake."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from minddiffuser.export import cli
from minddiffuser.export.cli import main, parser
from minddiffuser.export.verify.check import OK, check_bundle
from minddiffuser.runtime.backends.flops import flops_of
from minddiffuser.runtime.bundle.manifest import PRECISIONS, TARGETS, Variant
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.engines.cuda.gpu import Gpu
from minddiffuser.runtime.engines.trust import read_trusted
from minddiffuser.runtime.models.open import load_models

Command = Callable[..., tuple[int, list[str], list[str]]]
Edit = Callable[..., None]
COMMANDS = [[], ["bundle"], ["check"], ["inspect"], ["build"], ["trust"]]
GPU_TARGETS = [target for target in TARGETS if target in ("tensorrt", "ort-tensorrt")]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("runtime.engines.cuda.gpu", "export.tensorrt.plan"):
        monkeypatch.setattr(f"minddiffuser.{name}.find_gpu", lambda: None)


@pytest.mark.parametrize("given", COMMANDS, ids=" ".join)
def test_help_shows_an_example_that_can_be_typed(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*given, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    example = text[text.index("\nexample (") :]
    lines = [line.strip() for line in example.splitlines() if line.strip().startswith("md-export")]
    assert lines
    for line in lines:
        parser().parse_args(line.split()[1:])
    if given not in ([], ["bundle"]):
        assert f"md-export {given[0]} bundle" in lines[0]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("md-export ")


def plans_of(bundle: Bundle) -> list[Variant]:
    return [v for graph in bundle.graphs.values() for v in graph.variants if v.target == "tensorrt-rtx"]


BUNDLE = ["bundle", "nowhere", "--out", "x"]
BUILD = ["build", "nowhere", "--target"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["bundle", "nowhere"], "--out"),
        (["bundle", "--out", "x"], "CHECKPOINT"),
        (["check"], "BUNDLE"),
        (["inspect"], "BUNDLE"),
        (["build", "nowhere"], "--target"),
        (BUNDLE, "nowhere is not a folder: give the checkpoint"),
        (["check", "nowhere"], "the bundle nowhere is not a folder"),
        (["inspect", "nowhere"], "the bundle nowhere is not a folder"),
        ([*BUILD, "tensorrt-rtx"], "the bundle nowhere is not a folder"),
        ([*BUNDLE, "--target", "tpu"], "invalid choice: 'tpu'"),
        ([*BUILD, "tpu"], "invalid choice: 'tpu'"),
        ([*BUILD, "onnx"], "invalid choice: 'onnx'"),
        ([*BUNDLE, "--precision", "fp8"], "invalid choice: 'fp8'"),
        ([*BUILD, "tensorrt-rtx", "--precision", "int8"], "invalid choice: 'int8'"),
        ([*BUNDLE, "--graphs", "dream"], "graph 'dream' is unknown: choose one of clip_structure, "),
        ([*BUNDLE, "--graphs"], "--graphs"),
        ([*BUNDLE, "--verify-trials", "0"], "'0' is not a whole number from 1 to 1,000,000"),
        ([*BUNDLE, "--threads", "some"], "'some' is not a whole number"),
        ([*BUNDLE, "--batch", "1", "2", "4"], "--batch apply only to the build targets tensorrt and tensorrt-rtx"),
        ([*BUNDLE, "--strip", "--workspace", "9"], "--workspace, --strip apply only to the build targets"),
        ([*BUNDLE, "--target", "onnx", "--version-compatible"], "--version-compatible apply only"),
        ([*BUILD, "tensorrt-rtx", "--batch", "1", "2"], "--batch"),
        ([*BUILD, "tensorrt-rtx", "--batch", "1", "4", "2"], "batch"),
        ([*BUILD, "tensorrt-rtx", "--batch", "2", "4", "8"], "--batch begins with 2: give 1 there"),
        ([*BUILD, "tensorrt-rtx", "--optimization-level", "9"], "invalid choice: 9"),
        ([*BUILD, "tensorrt-rtx", "--compute-capability", "ada"], "ada"),
        ([*BUILD, "tensorrt-rtx", "--hardware-compatibility", "ampere_plus"], "tensorrt"),
        ([*BUILD, "tensorrt-rtx", "--hardware-compatibility", "some"], "invalid choice: 'some'"),
        ([*BUILD, "tensorrt-rtx", "--timing-cache", "x"], "timing_cache"),
        ([*BUNDLE, "--colour", "red"], "unrecognized arguments: --colour"),
        *(([*BUNDLE, "--target", target], f"build target {target} needs the NVIDIA GPU") for target in GPU_TARGETS),
        *(([*BUILD, target], f"build target {target} needs the NVIDIA GPU") for target in GPU_TARGETS),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    argv: list[str], message: str, command: Command, no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*argv)
    assert (code, out, len(err)) == (2, [], 1), err
    assert err[0].startswith("md-export: ")
    assert message in err[0]
    assert list(tmp_path.iterdir()) == []


def refused(printed: tuple[int, list[str], list[str]], *words: str) -> None:
    code, out, err = printed
    assert (code, out) == (2, []), printed
    lines = [line for line in err if line.startswith("md-export: ")]
    assert len(lines) == 1
    assert not any("Traceback" in line for line in err)
    for word in words:
        assert word in lines[0]


def test_missing_models_and_data(command: Command, small_checkpoint: Path, small_world: Path, tmp_path: Path) -> None:
    out, nowhere = tmp_path / "bundle", tmp_path / "nowhere"
    refused(command("bundle", small_checkpoint, "--models", nowhere, "--out", out), "nowhere")
    refused(command("bundle", small_checkpoint, "--out", out), "other models", "tiny")
    given = ["bundle", small_checkpoint, "--models", small_world, "--out", out, "--graphs", "decode_context"]
    refused(command(*given, "--data", nowhere), "nowhere")
    refused(command(*given, "--data", small_checkpoint), str(small_checkpoint))
    refused(command(*given, "--stimuli-root", nowhere), "give --data too")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("one")
    refused(command(*given[:-3], tmp_path / "thesis", *given[-2:]), "exists and is not a bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bundle.lock", "thesis"]  # a lock file stays


def test_a_newer_checkpoint(command: Command, small_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_checkpoint, tmp_path / "checkpoint"))
    content = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**content, "version": 9}))
    refused(command("bundle", folder, "--out", tmp_path / "bundle"), "version 9, this release reads version 2")


def test_plans_that_no_list_can_name_are_reported(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_gpu: None
) -> None:
    """By `bundle --target` as by `build`: without a home there is no place for the list of trusted plans."""
    for name in ("XDG_CONFIG_HOME", "HOME", "APPDATA", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("minddiffuser.export.bundle.assemble.export_bundle", lambda *_given, **_named: None)
    monkeypatch.setattr("minddiffuser.export.tensorrt.build.check_target", lambda *_given: None)
    out = tmp_path / "bundle"
    code, printed, err = command("bundle", tmp_path, "--out", out, "--target", "tensorrt-rtx")
    assert (code, printed) == (0, [str(out)])
    assert "list of trusted plans, which has no folder: set HOME or XDG_CONFIG_HOME" in err[-1]
    assert command("bundle", tmp_path, "--out", out)[2] == []


@pytest.mark.long
def test_a_bundle_with_engines_and_half_precision(
    command: Command,
    small_checkpoint: Path,
    small_world: Path,
    traced_bundle: Path,
    tmp_path: Path,
    no_gpu: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    out = tmp_path / "bundle"
    code, printed, err = command(
        "bundle", small_checkpoint, "--models", small_world, "--out", out, "--graphs", "decode_context", "vae_decode",
        "--graphs-from", traced_bundle,
        "--precision", "fp16", "--verify-trials", "2", "--threads", "1",
        "--target", "tensorrt-rtx", "--optimization-level", "0", "--batch", "1", "1", "2",
    )  # fmt: skip
    assert (code, printed) == (0, [str(out)])
    assert any("building tensorrt-rtx engines" in line for line in err)
    bundle = Bundle.open(out)
    held = {name: [(v.target, v.precision) for v in graph.variants] for name, graph in bundle.graphs.items()}
    both = [("onnx", "fp32"), ("onnx", "fp16")]
    built = [("tensorrt-rtx", "fp32"), ("tensorrt-rtx", "fp16")]
    assert held == {"decode_context": both, "vae_decode": both + built}
    assert bundle.graphs["decode_context"].flops is None
    models = load_models(str(small_world))
    with torch.no_grad():  # building has kept what the export has counted
        decode = flops_of(lambda: models.decode_latent(torch.zeros(1, *models.latent_shape)))
    assert bundle.graphs["vae_decode"].flops == decode
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bundle.lock", "bundle", "config"]
    assert not (out / ".lock").exists()
    trusted = read_trusted(tmp_path / "config" / "minddiffuser" / "trusted_plans.json")
    assert set(trusted) == {bundle.files[f"engines/tensorrt-rtx/{v.file.name}"].sha256 for v in plans_of(bundle)}
    # Both stages ran once in PyTorch, and what the VAE was given there is what its graph is verified on.
    variant = bundle.graphs["vae_decode"].variants[0]
    assert set(variant.parity["inputs"]) == {"random", "decoded"}
    assert variant.data == (bundle.folder / "engines" / "weights.bin",)
    reference = load_file(out / "parity.safetensors")
    assert reference["vae_decode/in/latent"].shape == (2, 4, 4, 4)
    assert reference["vae_decode/out/image"].std() > 0
    plain = [line for line in check_bundle(out, threads=1) if line.target == "onnx"]
    assert len(plain) == 4
    assert {line.verdict for line in plain} == {OK}


def test_a_killed_command_says_what_to_do(command: Command, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minddiffuser.export.verify.check.check_bundle", interrupt)
    code, _, err = command("check", copied)
    assert (code, err) == (130, ["md-export: interrupted: nothing was changed; run the same command again"])


def test_out_of_memory_says_what_to_do(command: Command, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("minddiffuser.export.verify.check.check_bundle", exhaust)
    refused(command("check", copied), "out of memory: export fewer graphs at a time with --graphs")


def test_a_strangers_words_have_no_power_over_the_terminal(command: Command, copied: Path, reseal: Edit) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["versions"]["minddiffuser"] = "1\x1b[2J\n2\r\ud800"
        content["lineage"]["verified_on"] = {"trials": "\x1b]0;", "origin": "\x07"}
        for graph in content["graphs"].values():
            graph["variants"][0]["builder"]["gpu"] = "\x1b[31m"

    reseal(copied, edit)
    code, out, err = command("inspect", copied)
    assert (code, err) == (0, [])
    assert all(letter.isprintable() for line in out for letter in line)


@pytest.mark.parametrize(
    ("library", "arguments", "extra"),
    [
        ("onnx", ["bundle", "{checkpoint}", "--out", "x"], "export"),
        ("onnx_ir", ["bundle", "{checkpoint}", "--out", "x"], "export"),
        ("torch", ["bundle", "{checkpoint}", "--out", "x"], "export"),
        ("ml_dtypes", ["bundle", "{checkpoint}", "--out", "x"], "export"),
        ("onnxruntime", ["check", "{bundle}"], "edge"),
        ("tensorrt_rtx", ["build", "{bundle}", "--target", "tensorrt-rtx", "--graphs", "decode_context"], "rtx"),
    ],
)
def test_a_missing_library_names_its_extra(
    library: str, arguments: list[str], extra: str, copied: Path, small_checkpoint: Path, tmp_path: Path
) -> None:
    given = [a.format(checkpoint=small_checkpoint, bundle=copied) for a in arguments]
    script = f"import sys; sys.modules[{library!r}] = None; from minddiffuser.export.cli import main; sys.exit(main())"
    printed = subprocess.run([sys.executable, "-c", script, *given], capture_output=True, text=True, cwd=tmp_path)
    refused((printed.returncode, printed.stdout.splitlines(), printed.stderr.splitlines()), f"minddiffuser[{extra}]")
    assert list(tmp_path.iterdir()) == [copied]


def test_asking_for_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from minddiffuser.export.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([n for n in ('torch', 'onnx', 'onnxruntime', 'onnxscript', 'tensorrt_rtx') if n in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines()[-1] == "[]"


def test_the_targets_are_the_schemas() -> None:
    assert set(cli.BUILD_TARGETS) == set(TARGETS)
    bundle = next(action for action in parser()._actions if action.dest == "command").choices["bundle"]  # type: ignore[index,call-overload]
    (precision,) = [action for action in bundle._actions if action.dest == "precision"]
    assert tuple(precision.choices) == PRECISIONS


def on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Gpu(0, "NVIDIA GeForce RTX 4090", "8.9", "13.0")
    monkeypatch.setattr("minddiffuser.runtime.engines.cuda.gpu.find_gpu", lambda: card)


def test_plans_of_another_user_run_once_they_are_trusted(
    command: Command, copied: Path, no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built by one, sent to another, who trusts the one."""
    pytest.importorskip("tensorrt_rtx")
    for user in ("one", "another"):
        (tmp_path / user).mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "one"))
    built = ["build", copied, "--target", "tensorrt-rtx", "--optimization-level", "0", "--graphs"]
    assert command(*built, "decode_context", "decode_structure")[0] == 0
    on_a_card(monkeypatch)

    def printed() -> str:
        code, out, _ = command("inspect", copied)
        assert code == 0
        return next(line.strip() for line in out if line.startswith("  tensorrt-rtx:"))

    assert printed() == "tensorrt-rtx: yes"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))
    assert "is not trusted: if you trust who made it, md-export trust bundle" in printed()
    code, out, _ = command("check", copied, "--threads", "1")
    assert (code, [line.split()[3] for line in out[:4]]) == (0, ["ok", "not", "ok", "not"])
    assert sum("is not trusted" in line for line in out) == 2
    code, out, err = command("trust", copied)
    plans = [v.file.name for v in plans_of(Bundle.open(copied))]
    assert (code, err, len(out)) == (0, [], 3)
    assert all(name in line for name, line in zip(plans, out, strict=False))
    assert out[-1] == f"2 of 2 added to {tmp_path / 'another' / 'minddiffuser' / 'trusted_plans.json'}"
    assert printed() == "tensorrt-rtx: yes"
    assert command("trust", copied)[1][-1].startswith("all 2 are in ")


def test_trusting_needs_something_to_trust_and_a_whole_bundle(command: Command, copied: Path, tmp_path: Path) -> None:
    code, out, _ = command("trust", copied)
    assert (code, out) == (0, [f"{copied} holds no built engines: there is nothing to trust"])
    (copied / "arrays.safetensors").write_bytes(b"x")
    refused(command("trust", copied), "arrays.safetensors has 1 bytes")
    refused(command("trust", tmp_path / "nowhere"), "is not a folder")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--graphs", "decode_semantic"], "has no decoder for decode_semantic"),
        (["--data", "{data}"], "data"),
        (["--out", "{thesis}"], "exists and is not a bundle"),
        (["--out", "{bundle}"], "holds a bundle already: give --force to replace it"),
        (["--keep-failed", "{thesis}"], "holds chapter.txt and is not a --keep-failed folder"),
        (["--graphs", "decode_context", "--target", "tensorrt-rtx"], "names decoders alone, which the CPU runs"),
        (["--target", "tensorrt-rtx", "--timing-cache", "{file}"], "timing_cache is for tensorrt"),
    ],
)
def test_what_is_given_is_looked_at_before_models_are_opened(
    command: Command,
    small_checkpoint: Path,
    copied: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    """Which may be a download of gigabytes."""

    def load(*_given: Any, **_named: Any) -> None:
        raise AssertionError("the models were opened")

    monkeypatch.setattr("minddiffuser.export.bundle.assemble.load_models", load)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("one")
    places = {"thesis": tmp_path / "thesis", "bundle": copied, "data": tmp_path / "thesis"}
    places["file"] = tmp_path / "thesis" / "chapter.txt"
    given = [a.format(**places) for a in arguments]
    out = [] if "--out" in given else ["--out", tmp_path / "new"]
    before = sorted(tmp_path.rglob("*"))
    refused(command("bundle", small_checkpoint, *out, *given), words)
    assert sorted(tmp_path.rglob("*")) == before
