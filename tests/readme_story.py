"""The README's commands on a smaller subject, one after the other as a person types them, in this process."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import numpy as np
from filelock import FileLock

from minddiffuser.export import cli as export
from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.demo.packed import unpack
from minddiffuser.runtime.demo.quick import SHIPPED, WORLD
from minddiffuser.runtime.images import write_png
from minddiffuser.streaming import cli as stream
from minddiffuser.training import cli as train

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMANDS = {"md-train": train, "md-export": export, "md-reconstruct": reconstruct, "md-stream": stream}
# What makes each command quick, and the same on every machine: fewer trials, dimensions and steps, and the CPU.
SMALLER = {
    "simulate": ["--n-train", "60", "--n-test", "2"],
    "fit": [
        *("--n-structure", "20", "--n-selection", "20", "--percent", "5", "--n-folds", "2"),
        *("--threads", "1", "--device", "cpu"),
    ],
    "run": [  # a bundle takes no --device
        *("--candidates", "1", "--start-steps", "2", "--n-steps", "4", "--strength", "0.5", "--finish-steps", "2"),
        *("--threads", "1"),
    ],
    "bundle": ["--verify-trials", "2", "--threads", "1"],
    "check": ["--threads", "1"],
}


def blocks(page: Path, language: str) -> list[str]:
    """The code of a language on a page."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def typed(page: Path) -> list[list[str]]:
    """The lines on a page that call one of the package's commands, in words."""
    lines = [line.split("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.split(" ")[0] in COMMANDS]


class Story:
    """Runs the commands in `folder`, each at most once, as far as somebody asks; processes of a test run share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A live session takes its time, and ends when somebody says so: it has tests of its own.
        self._commands = [command for command in typed(README) if command[0] != "md-stream"]
        self.names = [command[1] for command in self._commands]

    def until(self, last: str | None) -> Path:
        """Run what is not done up to the first command of that name, or to the end; give the folder."""
        self._folder.mkdir(exist_ok=True)
        with FileLock(self._folder / ".lock"):
            for name, level in (("boat", 60), ("dog", 200)):
                write_png(self._folder / "my_drawings" / f"{name}.png", np.full((40, 30, 3), level, np.uint8))
            count = len(self.names) if last is None else 1 + self.names.index(last)
            for number, command in enumerate(self._commands[:count]):
                self._run(self._folder / f".done-{number}", *command)
        return self._folder

    def _run(self, done: Path, program: str, *arguments: str) -> None:
        if done.exists():
            return
        more = SMALLER[arguments[0]]
        if arguments[0] == "bundle":
            # What ships was traced by the code and the libraries of today, or the command traces all of it again.
            unpack(SHIPPED, self._folder / "shipped", WORLD)
            more = [*more, "--graphs-from", str(self._folder / "shipped" / "bundle")]
        with contextlib.chdir(self._folder):
            code = COMMANDS[program].main([*arguments, *more])
        assert code == 0, f"{program} {shlex.join(arguments)} ended with {code}; what it said is above"
        done.touch()
