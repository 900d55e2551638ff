"""The demonstration: simulate, fit, reconstruct, export and reconstruct again, by the commands a person would type."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from .batch.identity import alone_in
from .command import DONE, USERS_MISTAKE
from .controls import CONTROLS
from .errors import FileError, InputError
from .files import read_json, sha256_of, write_json
from .images import list_pictures, read_image
from .schedule import N_REVERSE
from .stimuli import stimulus_ids

Execute = Callable[[Sequence[str], Mapping[str, str]], int]
_MODULES = {
    "md-train": "minddiffuser.training.cli",
    "md-export": "minddiffuser.export.cli",
    "md-reconstruct": "minddiffuser.runtime.cli",
}
# A run knows by itself what is left to do, and its page is written anew.
_RUNS = ("run", "engines")


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Sizes of the demonstration, chosen to end in about seven minutes on two cores.

    Attributes
    ----------
    models
        A model folder, or the tiny world.
    n_trials, n_train
        Pictures to reconstruct, and training trials.
    seed
        Of the simulated subject.
    n_structure
        Voxels that each structural dimension is decoded from; the paper's 350 takes longer to fit.
    steps, learning_rate, backprop_steps, controls, batch_size
        Stage 2; the paper's gradients go through all denoising steps.
    threads
        CPU threads, at most as many as there are cores.
    """

    models: str = "tiny"
    n_trials: int = 16
    n_train: int = 1200
    seed: int = 7
    n_structure: int = 150
    steps: int = 60
    learning_rate: float = 0.01
    backprop_steps: int = 4
    controls: str = "both"
    batch_size: int = 16
    threads: int = 2

    def __post_init__(self) -> None:
        n_needed = 2 if "shuffled" in CONTROLS[self.controls] else 1
        if self.n_trials < n_needed:
            raise InputError(
                f"the demonstration was given {self.n_trials} trial(s): its controls need at least {n_needed}"
            )
        if self.seed < 0:
            raise InputError(f"the seed is {self.seed}: give 0 or a positive whole number")

    def note(self) -> str:
        """What the page says about these choices."""
        return (
            f"A demonstration, sized for a few minutes on a laptop: {_pictures(self.n_trials)}, decoders fitted on "
            f"{self.n_train:,} simulated trials with at most {self.n_structure} voxels per structural dimension, and "
            f"{self.steps} iterations of stage 2 with gradients through the last {self.backprop_steps} of {N_REVERSE} "
            "denoising steps (the paper: 60 iterations through all of them, 350 voxels)."
        )


def run_demo(
    out: Path,
    settings: DemoSettings,
    *,
    stimuli: Path | None = None,
    stream: TextIO,
    execute: Execute | None = None,
) -> int:
    """Run the demonstration, or what is left of it, in `out`; made pieces in ``out/work`` are used again.

    Parameters
    ----------
    out
        The run folder.
    settings
        Sizes. With `stimuli`, `n_trials` gives way to the number of pictures; one alone leaves the shuffled control
        out.
    stimuli
        A folder of a person's own pictures to show to the simulated subject.
    stream
        Where each command is told before it runs.
    execute
        Runs a command with an environment and returns its exit code; None for a subprocess.

    Returns
    -------
    The exit code of the last command: 0 done, 1 trials were skipped, 2 a mistake that the command has told.

    Raises
    ------
    FileError
        `out` belongs to a demonstration of other settings, or the pictures cannot be read.
    """
    pictures = None if stimuli is None else list_pictures(stimuli)
    if pictures is not None:
        settings = _for_pictures(settings, pictures)
        for path in pictures:  # one that cannot be decoded is told before anything is made
            read_image(path)
    work = out / "work"
    with alone_in(work):
        _claim(work, settings, pictures)
        for name, command in commands(out, settings, stimuli).items():
            if (work / f"{name}.done").exists():
                continue
            stream.write(f"$ {shlex.join(command)}\n")
            stream.flush()
            if name == "data" and (work / name).exists():
                shutil.rmtree(work / name)  # of a simulation that was killed; ours, under work/
            code = (execute or _execute)(_runnable(command), _environment(settings))
            if code < 0:
                stream.write(f"md-reconstruct: {' '.join(command[:2])} was ended by {_signal(-code)}: run it again\n")
                return USERS_MISTAKE
            if code != DONE:
                return code
            if name not in _RUNS:
                (work / f"{name}.done").touch()
    stream.write(f"the same pictures from the bundle, without PyTorch: {out / 'engines' / 'report.html'}\n")
    return DONE


def _for_pictures(settings: DemoSettings, pictures: Sequence[Path]) -> DemoSettings:
    changes: dict[str, Any] = {"n_trials": len(pictures)}
    if len(set(stimulus_ids(pictures))) == 1:  # there is no other picture to take a shuffled target from
        changes["controls"] = "oracle"
    return replace(settings, **changes)


def _pictures(count: int) -> str:
    return f"{count} {'picture' if count == 1 else 'pictures'}"


def _signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name} (often: no memory left)" if name == "SIGKILL" else name


def commands(out: Path, settings: DemoSettings, stimuli: Path | None) -> dict[str, list[str]]:
    """The demonstration's commands as a person would type them, by the piece they make."""
    data, checkpoint = str(out / "work" / "data"), str(out / "work" / "checkpoint")
    simulate = ["md-train", "simulate", "fmri", "--out", data, "--models", settings.models]
    simulate += ["--seed", str(settings.seed), "--n-train", str(settings.n_train)]
    simulate += ["--n-test", str(settings.n_trials)] if stimuli is None else ["--stimuli", str(stimuli)]
    fit = ["md-train", "fit", data, "--models", settings.models, "--out", checkpoint]
    fit += ["--n-structure", str(settings.n_structure), "--threads", str(_threads(settings))]
    run = ["md-reconstruct", "run", checkpoint, data, "--models", settings.models, "--out", str(out)]
    refinement = ["--steps", str(settings.steps), "--learning-rate", str(settings.learning_rate)]
    refinement += ["--backprop-steps", str(settings.backprop_steps)]
    same = ["--batch-size", str(settings.batch_size), "--threads", str(_threads(settings)), "--note", settings.note()]
    bundle = str(out / "work" / "bundle")
    export = ["md-export", "bundle", checkpoint, "--models", settings.models, "--data", data, "--out", bundle]
    export += ["--threads", str(_threads(settings))]
    engines = ["md-reconstruct", "run", bundle, data, "--out", str(out / "engines"), "--backend", "ort", *refinement]
    return {
        "data": simulate,
        "checkpoint": fit,
        "run": [*run, *refinement, "--controls", settings.controls, *same],
        "bundle": export,
        "engines": [*engines, *same],
    }


def _claim(work: Path, settings: DemoSettings, pictures: Sequence[Path] | None) -> None:
    """Refuse to mix the pieces of two demonstrations."""
    path = work / "demo.json"
    shown = None if pictures is None else _hash(pictures)
    content = {"settings": asdict(settings), "stimuli": shown}
    if not path.exists():
        write_json(path, content)
        return
    there = read_json(path, "the demonstration's settings")
    if there == content:
        return
    before = {**(there.get("settings") or {}), "stimuli": there.get("stimuli")}
    now = {**asdict(settings), "stimuli": shown}
    differing = ", ".join(name for name in now if before.get(name) != now[name]) or "its settings"
    raise FileError(f"{work.parent} holds a demonstration with other choices ({differing}): give another --out folder")


def _hash(pictures: Sequence[Path]) -> str:
    return hashlib.sha256("\n".join(f"{path.name} {sha256_of(path)}" for path in pictures).encode()).hexdigest()


def _runnable(command: Sequence[str]) -> list[str]:
    # By module, so that it works where the scripts are not on the PATH.
    return [sys.executable, "-m", _MODULES[command[0]], *command[1:]]


def _threads(settings: DemoSettings) -> int:
    return min(settings.threads, os.cpu_count() or 1)


def _environment(settings: DemoSettings) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(_threads(settings))}


def _execute(command: Sequence[str], environment: Mapping[str, str]) -> int:
    return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode
