import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime import demo
from minddiffuser.runtime.demo import DemoSettings, commands, run_demo
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.images import write_png

SETTINGS = DemoSettings(n_trials=3, n_train=40)


class Shell:
    """Stands for the subprocesses: remembers the commands, fails where told."""

    def __init__(self, fail_at: str = "") -> None:
        self.ran: list[str] = []
        self.fail_at = fail_at

    def __call__(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        name = command[3]
        self.ran.append(name)
        if name == "simulate":
            Path(command[command.index("--out") + 1]).mkdir()
        return 2 if name == self.fail_at else 0


def test_it_runs_the_commands_that_it_tells(tmp_path: Path) -> None:
    shell, stream = Shell(), io.StringIO()
    assert run_demo(tmp_path / "demo", SETTINGS, stream=stream, execute=shell) == 0
    assert shell.ran == ["simulate", "fit", "run", "bundle", "run"]
    *lines, last = stream.getvalue().splitlines()
    told = [line.split()[1] for line in lines]
    assert told == ["md-train", "md-train", "md-reconstruct", "md-export", "md-reconstruct"]
    assert "--n-test 3" in lines[0]
    assert (
        last == f"the same pictures from the bundle, without PyTorch: {tmp_path / 'demo' / 'engines' / 'report.html'}"
    )


def test_the_bundle_is_refined_as_the_checkpoint_is(tmp_path: Path) -> None:
    """The same stage 2, on engines that need no PyTorch, into a folder of its own."""
    made = commands(tmp_path, SETTINGS, None)
    assert made["bundle"][made["bundle"].index("--out") + 1] == made["engines"][2]
    assert made["engines"][made["engines"].index("--backend") + 1] == "ort"
    for option in ("--steps", "--learning-rate", "--backprop-steps", "--batch-size", "--threads"):
        values = [made[name][made[name].index(option) + 1] for name in ("run", "engines")]
        assert values[0] == values[1], option
    assert "--models" not in made["engines"]
    outs = {made[name][made[name].index("--out") + 1] for name in made}
    assert len(outs) == len(made)


def test_finished_pieces_are_used_again_and_a_failed_one_is_made_anew(tmp_path: Path) -> None:
    assert run_demo(tmp_path, SETTINGS, stream=io.StringIO(), execute=Shell("simulate")) == 2
    failing = Shell("fit")
    assert run_demo(tmp_path, SETTINGS, stream=io.StringIO(), execute=failing) == 2
    assert failing.ran == ["simulate", "fit"]
    again = Shell()
    assert run_demo(tmp_path, SETTINGS, stream=io.StringIO(), execute=again) == 0
    assert again.ran == ["fit", "run", "bundle", "run"]
    # Runs know by themselves what is left to do; pieces that were made are not made again.
    done = Shell()
    assert run_demo(tmp_path, SETTINGS, stream=io.StringIO(), execute=done) == 0
    assert done.ran == ["run", "run"]


def test_other_choices_want_another_folder(tmp_path: Path) -> None:
    run_demo(tmp_path, SETTINGS, stream=io.StringIO(), execute=Shell())
    with pytest.raises(FileError, match="seed, steps|steps, seed"):
        run_demo(tmp_path, replace(SETTINGS, seed=8, steps=9), stream=io.StringIO(), execute=Shell())


def test_own_pictures_decide_the_number_of_trials(tmp_path: Path) -> None:
    for index in range(2):
        write_png(tmp_path / "mine" / f"{index}.png", np.full((9, 9, 3), index, np.uint8))
    stream = io.StringIO()
    run_demo(tmp_path / "demo", SETTINGS, stimuli=tmp_path / "mine", stream=stream, execute=Shell())
    assert "--stimuli" in stream.getvalue()
    assert "--n-test" not in stream.getvalue()
    assert json.loads((tmp_path / "demo" / "work" / "demo.json").read_text())["settings"]["n_trials"] == 2
    write_png(tmp_path / "mine" / "1.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(FileError, match="stimuli"):
        run_demo(tmp_path / "demo", SETTINGS, stimuli=tmp_path / "mine", stream=io.StringIO(), execute=Shell())


@pytest.mark.parametrize(("n_files", "said"), [(1, "1 picture,"), (3, "3 pictures,")])
def test_one_picture_has_no_shuffled_control(n_files: int, said: str, tmp_path: Path) -> None:
    """Copies of it do not make it two."""
    for index in range(n_files):
        write_png(tmp_path / "mine" / f"{index}.png", np.zeros((9, 9, 3), np.uint8))
    stream = io.StringIO()
    assert run_demo(tmp_path / "demo", SETTINGS, stimuli=tmp_path / "mine", stream=stream, execute=Shell()) == 0
    assert "--controls oracle" in stream.getvalue()
    assert said in stream.getvalue()


def test_a_picture_that_cannot_be_decoded_leaves_no_demonstration_behind(tmp_path: Path) -> None:
    write_png(tmp_path / "mine" / "0.png", np.zeros((9, 9, 3), np.uint8))
    (tmp_path / "mine" / "1.png").write_bytes(b"no picture")
    shell = Shell()
    with pytest.raises(FileError, match=r"1\.png cannot be decoded"):
        run_demo(tmp_path / "demo", SETTINGS, stimuli=tmp_path / "mine", stream=io.StringIO(), execute=shell)
    assert shell.ran == []
    assert not (tmp_path / "demo").exists()


def test_a_command_that_is_killed_is_told_with_its_signal(tmp_path: Path) -> None:
    stream = io.StringIO()
    killed = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    code = run_demo(tmp_path, SETTINGS, stream=stream, execute=lambda _command, env: demo._execute(killed, env))
    assert code == 2
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("md-reconstruct: md-train simulate was ended by SIGKILL")


@pytest.mark.parametrize("change", [{"n_trials": 1}, {"seed": -1}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError):
        replace(SETTINGS, **change)


@pytest.mark.parametrize("stimuli", [None, Path("pictures")])
def test_the_real_commands_take_these_arguments(stimuli: Path | None, tmp_path: Path) -> None:
    """Each command line is parsed by the command's own parser, so that an option renamed there fails here."""
    from minddiffuser.export import cli as export_cli
    from minddiffuser.runtime import cli as runtime_cli
    from minddiffuser.training import cli as training_cli

    parsers = {"md-train": training_cli, "md-export": export_cli, "md-reconstruct": runtime_cli}
    for command in commands(tmp_path, SETTINGS, stimuli).values():
        parsers[command[0]].parser().parse_args(command[1:])


def test_the_page_says_what_was_chosen() -> None:
    note = DemoSettings(n_trials=5, steps=11, backprop_steps=3).note()
    assert all(part in note for part in ("5 pictures", "11 iterations", "last 3 of 35"))
