"""What both demonstrations are made of: commands that a user would type, each run once, and the time they took."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ..command import DONE, SOME_SKIPPED, USERS_MISTAKE
from ..data.stimuli import stimulus_ids
from ..environment import usable_cores
from ..errors import FileError
from ..files import read_json, sha256_of, write_json
from ..images import list_pictures, read_image
from ..output import check_output
from ..progress import duration
from ..refine.choose import DEFAULT
from ..refine.settings import PRESETS

Execute = Callable[[Sequence[str], Mapping[str, str]], int]
MARKER, KIND = "demo.json", "demo"
VERSION = 1
DEFAULT_CANDIDATES = PRESETS[DEFAULT].as_dict()["candidates"]
_MODULES = {
    "md-train": "minddiffuser.training.cli",
    "md-export": "minddiffuser.export.cli",
    "md-reconstruct": "minddiffuser.runtime.cli",
}


@dataclass(frozen=True)
class Step:
    """One command as a user would type it, and the file that exists once it has succeeded.

    A run (`is_run`) knows by itself what is left to do and is given again, and may end with some trials left out.
    """

    command: tuple[str, ...]
    made: Path
    is_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much a demonstration computes.

    Attributes
    ----------
    candidates
        Start noises per picture in stage 2; None: the default's.
    batch_size
        Pictures computed together.
    threads
        CPU threads, at most as many as there are cores.
    """

    candidates: int | None = None
    batch_size: int = 16
    threads: int = 2

    def refinement(self) -> list[str]:
        """The options of stage 2."""
        return [] if self.candidates is None else ["--candidates", str(self.candidates)]

    def computing(self) -> list[str]:
        """The options of a run that say nothing of its pictures."""
        return ["--batch-size", str(self.batch_size), *self.with_threads()]

    def with_threads(self) -> list[str]:
        """The option of every command that computes."""
        return ["--threads", str(usable_threads(self.threads))]


class Ended(Exception):
    """A command that failed, with the exit code of the demonstration."""


@dataclass(eq=False)
class Shell:
    """Runs steps, prints each command before it runs, and keeps its duration.

    Attributes
    ----------
    threads
        Of each command.
    stream
        Where commands are written.
    execute
        Runs a command with an environment and returns its exit code.
    seconds
        What was run, and the seconds that it took.
    """

    threads: int
    stream: TextIO
    execute: Execute
    seconds: list[tuple[str, float]] = field(default_factory=list)

    def run(self, step: Step, *, label: str | None = None) -> int:
        """Run a step that is not done; returns 0, or 1 where a run left some trials out.

        Raises
        ------
        Ended
            The command ended in any other way, which it has given its reason for.
        """
        if step.made.exists() and not step.is_run:
            return DONE
        self.say(f"$ {shlex.join(step.command)}")
        start = time.perf_counter()
        code = self.execute(_runnable(step.command), {**os.environ, "OMP_NUM_THREADS": str(self.threads)})
        self.seconds.append((label or " ".join(step.command[:2]), time.perf_counter() - start))
        if code < 0:
            self.say(f"md-reconstruct: {' '.join(step.command[:2])} was ended by {_signal(-code)}: run it again")
            raise Ended(USERS_MISTAKE)
        good = (DONE, SOME_SKIPPED) if step.is_run and step.made.exists() else (DONE,)
        if code not in good:  # Python's own code for an error that nobody caught is that of skipped trials
            raise Ended(USERS_MISTAKE if code == SOME_SKIPPED else code)
        return code

    def say(self, line: str) -> None:
        """Write one line."""
        self.stream.write(f"{line}\n")
        self.stream.flush()

    def say_seconds(self) -> None:
        """A small table of where the time went."""
        if not self.seconds:
            return
        width = max(len(label) for label, _ in self.seconds)
        self.say("where the time went:")
        for label, seconds in (*self.seconds, ("together", sum(seconds for _, seconds in self.seconds))):
            self.say(f"  {label:<{width}}  {duration(seconds)}")


def _signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name} (often: no memory left)" if name == "SIGKILL" else name


def begin(out: Path, stimuli: Path | None) -> list[Path] | None:
    """Look at what was given before anything is made; returns a person's own pictures, if any.

    Raises
    ------
    FileError
        `out` holds something else than a demonstration, or a picture cannot be read.
    """
    check_output(out, what="folder of a demonstration", marker=MARKER, kind=KIND)
    pictures = None if stimuli is None else list_pictures(stimuli)
    for path in pictures or ():
        read_image(path)
    return pictures


def is_lone(pictures: Sequence[Path]) -> bool:
    """Whether there is no other picture to take a shuffled target from."""
    return len(set(stimulus_ids(pictures))) == 1


def claim(out: Path, settings: Mapping[str, Any], pictures: Sequence[Path] | None) -> None:
    """Write what a demonstration's folder is of; refuse to mix the pieces of two demonstrations.

    Raises
    ------
    FileError
        The folder is of other settings or pictures.
    """
    path = out / MARKER
    shown = None
    if pictures is not None:
        names = "\n".join(f"{path.name} {sha256_of(path)}" for path in pictures)
        shown = hashlib.sha256(names.encode()).hexdigest()
    content = {
        "format": f"minddiffuser-{KIND}",
        "version": VERSION,
        "settings": dict(settings),
        "stimuli": shown,
    }
    if not path.exists():
        write_json(path, content)
        return
    there = read_json(path, "the demonstration's settings")
    if there == content:
        return
    settings_there = there.get("settings")
    before = {**(settings_there if isinstance(settings_there, dict) else {}), "stimuli": there.get("stimuli")}
    now = {**settings, "stimuli": shown}
    differing = ", ".join(name for name in now if before.get(name) != now[name]) or "its settings"
    raise FileError(
        f"{out} holds a demonstration with other settings ({differing}): give another folder with --out FOLDER (with "
        "make: RUN=FOLDER)"
    )


def kept_in(name: str, instead: Callable[[], Path], say: Callable[[str], None]) -> Path:
    """The folder `name` in the user's cache for what demonstrations share; `instead` where that cannot be written."""
    from platformdirs import user_cache_path

    try:
        cache = user_cache_path("minddiffuser", appauthor=False)
        if not cache.is_absolute():  # "~/.cache", of a user without a home
            raise FileNotFoundError(f"there is no home folder for {cache}")
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK | os.X_OK):
            raise PermissionError(f"no permission to write to {cache}")
    except (OSError, RuntimeError) as error:
        place = instead()
        say(f"the subject is kept in {place}, not for other demonstrations ({error})")
        return place
    return cache / name


def usable_threads(most: int) -> int:
    """So many, or as many as there are cores."""
    return min(most, usable_cores())


def _runnable(command: Sequence[str]) -> list[str]:
    # By module, so that it works where the scripts are not on the PATH.
    return [sys.executable, "-m", _MODULES[command[0]], *command[1:]]


def in_subprocess(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command without its output, and give its exit code (negative: minus the signal that ended it)."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()  # it was interrupted too, and saves what it has; a second interruption ends it at once
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
