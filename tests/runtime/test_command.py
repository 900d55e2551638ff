"""What all commands share, as a shell sees it."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from minddiffuser.runtime.command import Parser, guarded
from minddiffuser.runtime.errors import FileError

SPEAKS = """
import sys
from minddiffuser.runtime.command import guarded

def command():
    for _ in range(int(sys.argv[1])):
        print("a line of the output")
    return 0

sys.exit(guarded("speaks", command, interrupted="", out_of_memory=""))
"""


@pytest.mark.parametrize("n_lines", [2, 100_000], ids=["less than a buffer", "more"])
def test_a_reader_that_has_seen_enough_is_no_mistake(n_lines: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SPEAKS, str(n_lines)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait() == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_no_output_at_all_is_no_mistake() -> None:
    """As a daemon starts it: standard output is closed before Python begins."""
    line = f"{shlex.join([sys.executable, '-c', SPEAKS, '3'])} >&-"
    message = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert (message.returncode, message.stderr) == (0, "")


def test_another_broken_pipe_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise BrokenPipeError(32, "Broken pipe")

    assert guarded("it", command, interrupted="", out_of_memory="") == 2
    assert (
        capsys.readouterr().err
        == "it: Broken pipe: fix that and run the same command again (--debug shows where it happened)\n"
    )


def test_a_reader_that_stays_gets_everything() -> None:
    message = subprocess.run([sys.executable, "-c", SPEAKS, "3"], capture_output=True, text=True, check=True)
    assert message.stdout == "a line of the output\n" * 3


def broken() -> int:
    raise error_of_ours


error_of_ours: Exception = OSError(13, "Permission denied", "some/file")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(13, "Permission denied", "some/file"), "some/file: Permission denied"),
        (MemoryError(), "out of memory: give less (--debug"),
        (FileError("the file is damaged: make it again"), "the file is damaged: make it again"),
    ],
)
def test_debug_shows_where_an_error_arose_before_the_same_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(globals(), "error_of_ours", error)
    message = {}
    for argv in (["fit"], ["fit", "--debug"]):
        assert guarded("it", broken, interrupted="", out_of_memory="give less", argv=argv) == 2
        message[len(argv)] = capsys.readouterr().err
    assert message[1].count("\n") == 1
    assert message[1].startswith(f"it: {line}")
    assert message[2].endswith(message[1])
    assert "Traceback" in message[2]
    assert "in broken" in message[2]


def test_what_nobody_has_explained_names_the_way_to_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the system may be a fault of ours; our own sentences need no such hint."""
    for error, hint in ((OSError("odd"), True), (FileError("damaged"), False)):
        monkeypatch.setitem(globals(), "error_of_ours", error)
        guarded("it", broken, interrupted="", out_of_memory="", argv=[])
        assert ("(--debug shows where it happened)" in capsys.readouterr().err) == hint


@pytest.mark.parametrize("arguments", [["--debug", "some"], ["some", "--debug"], ["--debug", "some", "--debug"]])
def test_every_command_of_a_parser_takes_debug(arguments: list[str]) -> None:
    parser = Parser(prog="it")
    commands = parser.add_subparsers(dest="command", parser_class=Parser)
    commands.add_parser("some")
    assert parser.parse_args(arguments).debug is True
    assert not hasattr(parser.parse_args(["some"]), "debug")


COMMANDS = {
    "md-train": (["fit", "absent", "--out", "absent"], "training"),
    "md-export": (["inspect", "absent"], "export"),
    "md-reconstruct": (["report", "absent"], "runtime"),
}


@pytest.mark.parametrize("prog", COMMANDS)
def test_all_three_programs_take_debug(
    prog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, package = COMMANDS[prog]
    main = importlib.import_module(f"minddiffuser.{package}.cli").main
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert main([*arguments, "--debug"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert printed.endswith(line)
