"""The demonstration: simulate, fit, reconstruct, export and reconstruct again, by the commands a person would type.

What does not depend on the pictures to reconstruct (the simulated subject, its decoders and their bundle) is kept in
one place and used by every demonstration: a second one, of a person's own drawings, neither fits nor exports again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from .command import DONE, SOME_SKIPPED, USERS_MISTAKE, version
from .controls import CONTROLS
from .environment import usable_cores
from .errors import FileError, InputError
from .files import read_json, sha256_of, write_json
from .images import list_pictures, read_image
from .locks import inside, locked
from .output import check_output
from .sampling import Sampling
from .stimuli import stimulus_ids

Execute = Callable[[Sequence[str], Mapping[str, str]], int]
MARKER, KIND = "demo.json", "demo"
SUBJECT_MARKER, SUBJECT_KIND = "subject.json", "demo-subject"
VERSION = 1
# Test pictures of the kept subject: a demonstration of as many needs no data folder of its own.
KEPT_TRIALS = 16
_MODULES = {
    "md-train": "minddiffuser.training.cli",
    "md-export": "minddiffuser.export.cli",
    "md-reconstruct": "minddiffuser.runtime.cli",
}


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
    n_trials: int = KEPT_TRIALS
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
            f"{self.steps} iterations of stage 2 with gradients through the last {self.backprop_steps} of "
            f"{Sampling.n_reverse} denoising steps (the paper: 60 iterations through all of them, 350 voxels)."
        )


@dataclass(frozen=True)
class Step:
    """One command as a person would type it, and the file that is there once it has ended well.

    A run (`is_run`) knows by itself what is left to do and is given again, and may end with some trials left out.
    """

    command: tuple[str, ...]
    made: Path
    is_run: bool = False


class _Ended(Exception):
    """A command that did not end well, with the code that the demonstration ends with."""


def run_demo(
    out: Path,
    settings: DemoSettings,
    *,
    stimuli: Path | None = None,
    subject: Path | None = None,
    stream: TextIO,
    execute: Execute | None = None,
) -> int:
    """Run the demonstration, or what is left of it, in `out`.

    Parameters
    ----------
    out
        A folder for this demonstration: new, empty, or of the same one. Nobody's files in it are ever deleted.
    settings
        Sizes. With `stimuli`, `n_trials` gives way to the number of pictures; one alone leaves the shuffled control
        out.
    stimuli
        A folder of a person's own pictures to show to the simulated subject.
    subject
        Where the simulated subject, its decoders and their bundle are kept; None: see :func:`kept_in`.
    stream
        Where each command is written before it runs.
    execute
        Runs a command with an environment and returns its exit code; None for a subprocess.

    Returns
    -------
    0 done, 1 done but some trials were skipped or failed, else the exit code of the command that ended the
    demonstration, which has given its reason.

    Raises
    ------
    FileError
        `out` holds something else or a demonstration of other settings, a folder cannot be written, or the pictures
        cannot be read.
    """
    check_output(out, what="folder of a demonstration", marker=MARKER, kind=KIND)
    if subject is not None:
        _check_subject(subject)
    pictures = None if stimuli is None else list_pictures(stimuli)
    if pictures is not None:
        settings = _for_pictures(settings, pictures)
        for path in pictures:  # one that cannot be decoded is named before anything is made
            read_image(path)
    run = partial(_run, execute=execute or _execute, environment=_environment(settings), stream=stream)
    key = subject_key(settings)
    with locked(inside(out), out):
        _claim(out, settings, pictures)
        kept = kept_in(out, key, stream) if subject is None else subject
        steps = commands(out, kept, settings, stimuli)
        try:
            with _subject(kept, key, stream):
                run(steps["subject"])
                run(steps["checkpoint"])
                _drop_features(kept / "features")
            if "data" in steps:
                run(steps["data"])
            codes = [run(steps["run"])]
            with _subject(kept, key, stream):
                run(steps["bundle"])
            codes.append(run(steps["engines"]))
        except _Ended as ended:
            return int(ended.args[0])
    _say(stream, f"the same pictures from the bundle, without PyTorch: {steps['engines'].made}")
    return max(codes)


def kept_in(out: Path, key: str, stream: TextIO) -> Path:
    """The folder of the kept subject: in the user's cache, or in `out` where that cannot be written."""
    from platformdirs import user_cache_path

    cache = user_cache_path("minddiffuser", appauthor=False)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK | os.X_OK):
            raise PermissionError(f"no permission to write to {cache}")
    except OSError as error:
        stream.write(f"the subject is kept in {out / 'subject'}, not for other demonstrations ({error})\n")
        return out / "subject"
    return cache / f"demo-{key[:16]}"


def subject_key(settings: DemoSettings) -> str:
    """A hash of everything that decides the subject, this package's code included: a newer release makes its own."""
    package = Path(__file__).parents[1]
    parts = [package / name for name in ("runtime", "training", "export")]
    code = [path for part in parts for path in sorted(part.rglob("*")) if path.suffix in (".py", ".safetensors")]
    decides = {
        name: value for name, value in asdict(settings).items() if name in ("models", "n_train", "seed", "n_structure")
    }
    digests = {path.relative_to(package).as_posix(): sha256_of(path) for path in code}
    return hashlib.sha256(json.dumps([VERSION, version(), decides, digests], sort_keys=True).encode()).hexdigest()


def _check_subject(kept: Path) -> None:
    check_output(kept, what="folder of a demonstration's subject", marker=SUBJECT_MARKER, kind=SUBJECT_KIND)


def _drop_features(cache: Path) -> None:
    """Take away hundreds of megabytes that nothing needs again, where they are all that lies there."""
    found = sorted(cache.glob("*")) + sorted(cache.glob(".*"))
    if all((path / "features.json").is_file() or path.name.endswith(".lock") for path in found):
        shutil.rmtree(cache, ignore_errors=True)


@contextmanager
def _subject(kept: Path, key: str, stream: TextIO) -> Iterator[None]:
    """Hold the kept subject's folder; another demonstration that is making it is waited for."""
    _check_subject(kept)
    with locked(inside(kept), kept, wait=True, on_wait=lambda line: _say(stream, line)):
        content = {"format": f"minddiffuser-{SUBJECT_KIND}", "version": VERSION, "key": key}
        path = kept / SUBJECT_MARKER
        if not path.exists():
            write_json(path, content)
        elif read_json(path, "the kept subject's description") != content:
            raise FileError(
                f"{kept} keeps the subject of another release or of other choices: give another --subject, or delete "
                "that folder"
            )
        yield


def _run(step: Step, *, execute: Execute, environment: Mapping[str, str], stream: TextIO) -> int:
    """Run a step that is not done; returns 0, or 1 where a run left some trials out.

    Raises
    ------
    _Ended
        The command ended in any other way, which it has given its reason for.
    """
    if step.made.exists() and not step.is_run:
        return DONE
    _say(stream, f"$ {shlex.join(step.command)}")
    code = execute(_runnable(step.command), environment)
    if code < 0:
        _say(stream, f"md-reconstruct: {' '.join(step.command[:2])} was ended by {_signal(-code)}: run it again")
        raise _Ended(USERS_MISTAKE)
    good = (DONE, SOME_SKIPPED) if step.is_run and step.made.exists() else (DONE,)
    if code not in good:  # Python's own code for an error that nobody caught is that of skipped trials
        raise _Ended(USERS_MISTAKE if code == SOME_SKIPPED else code)
    return code


def _say(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


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


def commands(out: Path, kept: Path, settings: DemoSettings, stimuli: Path | None) -> dict[str, Step]:
    """The demonstration's commands by the piece they make; "data" only where the kept subject's own will not do."""
    kept_data, checkpoint, bundle = str(kept / "data"), str(kept / "checkpoint"), str(kept / "bundle")
    threads = ["--threads", str(_threads(settings))]
    models = ["--models", settings.models]
    simulate = ["md-train", "simulate", "fmri", *models, "--seed", str(settings.seed)]
    simulate += ["--n-train", str(settings.n_train)]
    fit = ["md-train", "fit", kept_data, *models, "--out", checkpoint, "--cache", str(kept / "features")]
    fit += ["--n-structure", str(settings.n_structure), *threads]
    export = ["md-export", "bundle", checkpoint, *models, "--data", kept_data, "--out", bundle, *threads]
    refinement = ["--steps", str(settings.steps), "--learning-rate", str(settings.learning_rate)]
    refinement += ["--backprop-steps", str(settings.backprop_steps)]
    same = ["--batch-size", str(settings.batch_size), *threads, "--note", settings.note()]
    own = stimuli is not None or settings.n_trials != KEPT_TRIALS
    data = str(out / "data") if own else kept_data
    run = ["md-reconstruct", "run", checkpoint, data, *models, "--out", str(out / "run"), *refinement]
    engines = ["md-reconstruct", "run", bundle, data, "--out", str(out / "engines"), "--backend", "ort", *refinement]
    shown = ["--n-test", str(settings.n_trials)] if stimuli is None else ["--stimuli", str(stimuli)]
    steps = {
        "subject": Step((*simulate, "--n-test", str(KEPT_TRIALS), "--out", kept_data), kept / "data" / "data.json"),
        "checkpoint": Step(tuple(fit), kept / "checkpoint" / "checkpoint.json"),
        "run": Step((*run, "--controls", settings.controls, *same), out / "run" / "report.html", is_run=True),
        "bundle": Step(tuple(export), kept / "bundle" / "manifest.json"),
        "engines": Step((*engines, *same), out / "engines" / "report.html", is_run=True),
    }
    if own:
        steps["data"] = Step((*simulate, *shown, "--out", data), out / "data" / "data.json")
    return steps


def _claim(out: Path, settings: DemoSettings, pictures: Sequence[Path] | None) -> None:
    """Refuse to mix the pieces of two demonstrations."""
    path = out / MARKER
    shown = None if pictures is None else _hash(pictures)
    content = {
        "format": f"minddiffuser-{KIND}",
        "version": VERSION,
        "settings": asdict(settings),
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
    now = {**asdict(settings), "stimuli": shown}
    differing = ", ".join(name for name in now if before.get(name) != now[name]) or "its settings"
    raise FileError(f"{out} holds a demonstration with other choices ({differing}): give another --out folder")


def _hash(pictures: Sequence[Path]) -> str:
    return hashlib.sha256("\n".join(f"{path.name} {sha256_of(path)}" for path in pictures).encode()).hexdigest()


def _runnable(command: Sequence[str]) -> list[str]:
    # By module, so that it works where the scripts are not on the PATH.
    return [sys.executable, "-m", _MODULES[command[0]], *command[1:]]


def _threads(settings: DemoSettings) -> int:
    return min(settings.threads, usable_cores())


def _environment(settings: DemoSettings) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(_threads(settings))}


def _execute(command: Sequence[str], environment: Mapping[str, str]) -> int:
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
