"""The first minute: what ships is whole and of today, the commands, and what is said where something is missing."""

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime import cli
from minddiffuser.runtime.demo import quick as demo_quick
from minddiffuser.runtime.demo.packed import read_index
from minddiffuser.runtime.demo.quick import SHIPPED, SIZES, commands, open_shipped, run_quick
from minddiffuser.runtime.errors import FileError, InputError, MissingExtra
from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.refine.settings import PRESETS


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "minddiffuser"
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: folder)
    return folder


class Shell:
    """Stands for the subprocesses: remembers the commands and makes what they would."""

    def __init__(self, codes: Mapping[str, int] | None = None) -> None:
        self.ran: list[list[str]] = []
        self.codes = dict(codes or {})

    def __call__(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        self.ran.append(list(command[3:]))
        out = Path(command[command.index("--out") + 1])
        out.mkdir(exist_ok=True)
        (out / ("data.json" if command[3] == "simulate" else "report.html")).touch()
        return self.codes.get(out.name, 0)


def run(out: Path, shell: Shell | None = None, **options: Any) -> tuple[int, str]:
    stream = io.StringIO()
    code = run_quick(out, stream=stream, execute=shell or Shell(), **{"stimuli": None, **options})
    return code, stream.getvalue()


def test_pictures_of_stage_1_come_first(tmp_path: Path) -> None:
    shell = Shell()
    code, said = run(tmp_path / "demo", shell)
    assert code == 0
    first, second = shell.ran
    assert first[first.index("--stage") + 1] == "1"
    assert "--stage" not in second
    assert second[second.index("--controls") + 1] == "shuffled"
    assert second[second.index("--candidates") + 1] == str(SIZES.candidates)
    assert first[1:3] == second[1:3]
    assert all(Path(place).is_dir() for place in first[1:3])
    lines = [line for line in said.splitlines() if not line.startswith("$")]
    assert lines[0] == f"the first pictures are there, stage 1 of 2: {tmp_path / 'demo' / 'stage1' / 'report.html'}"
    default = PRESETS["default"].as_dict()["candidates"]
    expected = f"shortened: {SIZES.candidates} candidates per picture in stage 2 (the default: {default}), decoders"
    assert lines[1].startswith(expected)


def test_the_subject_is_written_out_once(tmp_path: Path, cache: Path) -> None:
    run(tmp_path / "one")
    (kept,) = (path for path in cache.iterdir() if path.is_dir())
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    run(tmp_path / "two")
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*")} == before


def test_own_pictures_are_shown_to_the_shipped_subject(tmp_path: Path) -> None:
    """Its seed and training trials, which make it the same; no decoder is fitted and nothing exported."""
    for name in ("boat", "dog"):
        write_png(tmp_path / "mine" / f"{name}.png", np.full((9, 9, 3), len(name), np.uint8))
    shell = Shell()
    code, _ = run(tmp_path / "demo", shell, stimuli=tmp_path / "mine")
    assert code == 0
    simulate, *runs = shell.ran
    subject = read_index(SHIPPED).about["subject"]
    for option in ("seed", "n_train"):
        assert simulate[simulate.index(f"--{option.replace('_', '-')}") + 1] == str(subject[option])
    assert simulate[simulate.index("--brain") + 1] == subject["brain"]
    assert [command[0] for command in runs] == ["run", "run"]
    assert all(command[2] == str(tmp_path / "demo" / "data") for command in runs)


def test_one_picture_has_no_shuffled_control(tmp_path: Path) -> None:
    write_png(tmp_path / "mine" / "0.png", np.zeros((9, 9, 3), np.uint8))
    shell = Shell()
    run(tmp_path / "demo", shell, stimuli=tmp_path / "mine")
    assert "--controls" not in shell.ran[-1]


@pytest.mark.parametrize(
    ("library", "options", "said"),
    [
        ("onnxruntime", {}, r"onnxruntime is not installed: pip install 'minddiffuser\[edge\]'"),
        ("torch", {"stimuli": "mine"}, r"needs PyTorch: pip install 'minddiffuser\[train\]', or leave --stimuli out"),
    ],
)
def test_a_missing_library_is_one_sentence(
    library: str, options: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    write_png(tmp_path / "mine" / "0.png", np.zeros((9, 9, 3), np.uint8))
    real = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == library else real(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    monkeypatch.setattr(demo_quick, "find_spec", hidden)
    with pytest.raises(MissingExtra, match=said):
        run(tmp_path / "demo", **{name: tmp_path / value for name, value in options.items()})
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("option", ["--trials=3", "--seed=8", "--subject=x"])
def test_what_makes_another_subject_belongs_to_the_whole_path(option: str, tmp_path: Path) -> None:
    args = cli.parser().parse_args(["demo", "--out", str(tmp_path / "demo"), option])
    with pytest.raises(InputError, match=rf"{option.split('=')[0]} belongs to the whole path.*--full.*\[export\]"):
        args.function(args)


def test_a_command_that_fails_ends_it(tmp_path: Path) -> None:
    shell = Shell({"stage1": 2})
    assert run(tmp_path / "demo", shell)[0] == 2
    assert len(shell.ran) == 1
    assert run(tmp_path / "demo", Shell({"run": 1}))[0] == 1


def test_other_pictures_want_another_folder(tmp_path: Path) -> None:
    run(tmp_path / "demo")
    write_png(tmp_path / "mine" / "0.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(FileError, match="other settings \\(stimuli\\)"):
        run(tmp_path / "demo", stimuli=tmp_path / "mine")


def test_after_new_files_were_shipped_another_folder_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "demo")
    again = tmp_path / "packed"
    shutil.copytree(SHIPPED, again)
    index = json.loads((again / "packed.json").read_text())
    (again / "packed.json").write_text(json.dumps({**index, "made": "again"}))
    monkeypatch.setattr(demo_quick, "SHIPPED", again)
    with pytest.raises(FileError, match=r"other settings \(shipped\).* --out FOLDER \(with make: RUN=FOLDER\)"):
        run(tmp_path / "demo")


@pytest.mark.parametrize("subject", [None, {}, {"seed": 7, "n_train": 1, "n_test": 1, "n_structure": 1}])
def test_an_index_without_its_subject_is_one_sentence(
    subject: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = json.loads((SHIPPED / "packed.json").read_text())
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "packed.json").write_text(json.dumps({**index, "subject": subject}))
    monkeypatch.setattr(demo_quick, "SHIPPED", tmp_path / "packed")
    with pytest.raises(FileError, match="nothing of its subject's brain, seed, n_train, n_test, n_structure: install"):
        run(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("stimuli", [None, Path("pictures")])
def test_the_real_commands_take_these_arguments(stimuli: Path | None, tmp_path: Path) -> None:
    from minddiffuser.training import cli as training_cli

    subject = read_index(SHIPPED).about["subject"]
    pictures = None if stimuli is None else []
    for step in commands(tmp_path, tmp_path, subject, stimuli, pictures):
        parsers = {"md-train": training_cli, "md-reconstruct": cli}
        parsers[step.command[0]].parser().parse_args(step.command[1:])


@pytest.mark.long
def test_the_shipped_subject_is_reconstructed(tmp_path: Path) -> None:
    """Both stages on the engines: the pictures resemble their stimuli, and those of other trials less."""
    kept = open_shipped(lambda: tmp_path / "shipped", print)
    command = ["run", str(kept / "bundle"), str(kept / "data"), "--out", str(tmp_path / "run"), "--threads", "1"]
    steps = ["--candidates", "1", "--start-steps", "2", "--n-steps", "6", "--strength", "0.5", "--finish-steps", "2"]
    assert cli.main([*command, *steps, "--controls", "shuffled"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    correlation = summary["metrics"]["pixcorr"]
    assert correlation["stage1"] > 0.3
    assert correlation["stage1"] > correlation["stage1_floor"] + 0.2
