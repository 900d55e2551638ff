"""What all commands share, as a shell sees it."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from minddiffuser.runtime.command import guarded

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
    told = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")


def test_another_broken_pipe_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise BrokenPipeError(32, "Broken pipe")

    assert guarded("it", command, interrupted="", out_of_memory="") == 2
    assert capsys.readouterr().err == "it: Broken pipe: mend that and run the same command again\n"


def test_a_reader_that_stays_gets_everything() -> None:
    told = subprocess.run([sys.executable, "-c", SPEAKS, "3"], capture_output=True, text=True, check=True)
    assert told.stdout == "a line of the output\n" * 3
