"""The whole path: simulate, fit, reconstruct, export and reconstruct again, by the commands that a user would type.

Of any kind of brain signal; what differs between them is in `signals.py`. Without the export it ends after the first
run.

What does not depend on the pictures to reconstruct (the simulated subject, its decoders and their bundle) is kept in
one place and used by every demonstration: a second one, of the user's own drawings, neither fits nor exports again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

from ..command import version
from ..errors import FileError, InputError, check_choice
from ..files import hash_of_json, read_json, sha256_of, write_json
from ..locks import inside, locked
from ..output import check_output
from ..report.words import counted
from ..run.controls import control_names
from .quick import open_shipped
from .signals import FMRI, SIGNALS, check_libraries
from .steps import (
    DEFAULT_CANDIDATES,
    VERSION,
    Ended,
    Execute,
    Shell,
    Sizes,
    Step,
    begin,
    claim,
    in_subprocess,
    is_lone,
    kept_in,
    usable_threads,
)

SUBJECT_MARKER, SUBJECT_KIND = "subject.json", "demo-subject"
# Test pictures of the kept subject: a demonstration of as many needs no data folder of its own.
KEPT_TRIALS = 8
# What decides the simulated subject and its decoders.
_OF_THE_SUBJECT = ("modality", "models", "n_train", "seed", "n_structure")


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Sizes):
    """Sizes of the demonstration, chosen to end in a few minutes on two cores.

    Attributes
    ----------
    modality
        Kind of brain signal.
    models
        A model folder, or the tiny world.
    n_trials, n_train
        Pictures to reconstruct, and training pictures.
    seed
        Of the simulated subject.
    n_structure
        Voxels (values of a trial) that each structural dimension is decoded from; the paper's 350 takes longer to fit.
    controls
        Of the first of the two runs.
    """

    modality: str = FMRI
    models: str = "tiny"
    n_trials: int = KEPT_TRIALS
    n_train: int = SIGNALS[FMRI].n_train
    seed: int = 7
    n_structure: int = 150
    controls: str = "both"

    def __post_init__(self) -> None:
        check_choice("modality", self.modality, SIGNALS)
        n_needed = 2 if "shuffled" in control_names(self.controls) else 1
        if self.n_trials < n_needed:
            raise InputError(
                f"the demonstration was given {self.n_trials} trial(s): its controls need at least {n_needed}"
            )
        if self.seed < 0:
            raise InputError(f"the seed is {self.seed}: give 0 or a positive whole number")

    def note(self) -> str:
        """What the page says about these choices."""
        n_candidates, signal = self.candidates or DEFAULT_CANDIDATES, SIGNALS[self.modality]
        return (
            f"A demonstration, sized for a few minutes on a laptop: {counted(self.n_trials, 'picture')}, decoders "
            f"fitted on {signal.fitted.format(n_train=self.n_train)}, with at most {self.n_structure} {signal.values} "
            "per structural dimension (the paper: 350 voxels), and stage 2 as it is by default: guided, the best of "
            f"{n_candidates} start noises per picture by the loss."
        )


def settings_of(modality: str) -> DemoSettings:
    """The sizes of the demonstration of a kind of brain signal.

    Raises
    ------
    InputError
        It is unknown.
    """
    check_choice("modality", modality, SIGNALS)
    return DemoSettings(modality=modality, n_train=SIGNALS[modality].n_train)


def run_demo(
    out: Path,
    settings: DemoSettings,
    *,
    exports: bool = True,
    stimuli: Path | None = None,
    subject: Path | None = None,
    stream: TextIO,
    execute: Execute = in_subprocess,
) -> int:
    """Run the demonstration, or what is left of it, in `out`.

    Parameters
    ----------
    out
        A folder for this demonstration: new, empty, or of the same one. Nobody's files in it are ever deleted.
    settings
        Sizes. With `stimuli`, `n_trials` gives way to the number of pictures; one alone leaves the shuffled control
        out.
    exports
        Whether to export, and to reconstruct from the bundle too. A demonstration without may go on with it later.
    stimuli
        A folder of a person's own pictures to show to the simulated subject.
    subject
        Where the simulated subject, its decoders and their bundle are kept; None: see :func:`.steps.kept_in`.
    stream
        Where each command is written before it runs.
    execute
        Runs a command with an environment and returns its exit code.

    Returns
    -------
    0 done, 1 done but some trials were skipped or failed, else the exit code of the command that ended the
    demonstration, which has given its reason.

    Raises
    ------
    MissingExtra
        A library is not installed.
    FileError
        `out` holds something else or a demonstration of other settings, a folder cannot be written, or the pictures
        cannot be read.
    """
    check_libraries(settings.modality, exports=exports)
    pictures = begin(out, stimuli)
    if subject is not None:
        _check_subject(subject)
    if pictures is not None:
        controls = "oracle" if is_lone(pictures) else settings.controls
        settings = replace(settings, n_trials=len(pictures), controls=controls)
    shell = Shell(usable_threads(settings.threads), stream, execute)
    key = subject_key(settings)
    with locked(inside(out), out):
        claim(out, asdict(settings), pictures)
        kept = kept_in(f"demo-{key[:16]}", lambda: out / "subject", shell.say) if subject is None else subject
        shipped = _shipped_bundle(out, settings.models, shell.say) if exports else None
        steps = commands(out, kept, settings, stimuli, shipped)
        try:
            with _subject(kept, key, shell):
                shell.run(steps["subject"])
                shell.run(steps["checkpoint"])
                _drop_features(kept / "features")
            if "data" in steps:
                shell.run(steps["data"])
            codes = [shell.run(steps["run"])]
            if exports:
                with _subject(kept, key, shell):
                    shell.run(steps["bundle"])
                codes.append(shell.run(steps["engines"], label="md-reconstruct run, from the bundle"))
        except Ended as ended:
            return int(ended.args[0])
    shell.say_seconds()
    if exports:
        shell.say(f"the same pictures from the bundle, without PyTorch: {steps['engines'].made}")
    else:
        shell.say("to export a bundle too, and to reconstruct from it without PyTorch: the same command with --full")
    return max(codes)


def _shipped_bundle(out: Path, models: str, say: Callable[[str], None]) -> Path | None:
    """The bundle that ships with the package, whose graphs of the tiny world need not be traced again; None without."""
    if models != DemoSettings.models:
        return None
    try:
        return open_shipped(lambda: out / "shipped", say) / "bundle"
    except FileError as error:
        say(f"every graph is traced: {error}")
        return None


def subject_key(settings: DemoSettings) -> str:
    """A hash of everything that decides the subject, this package's code included: a newer release makes its own."""
    decides = {name: value for name, value in asdict(settings).items() if name in _OF_THE_SUBJECT}
    return hash_of_json([VERSION, version(), decides, code_digests()])


def code_digests() -> dict[str, str]:
    """SHA-256 of each file of code and weights of this package, by path."""
    package = Path(__file__).parents[2]
    parts = [package / name for name in ("runtime", "training", "export")]
    code = [path for part in parts for path in sorted(part.rglob("*")) if path.suffix in (".py", ".safetensors")]
    return {path.relative_to(package).as_posix(): sha256_of(path) for path in code}


def _check_subject(kept: Path) -> None:
    check_output(kept, what="folder of a demonstration's subject", marker=SUBJECT_MARKER, kind=SUBJECT_KIND)


def _drop_features(cache: Path) -> None:
    """Take away hundreds of megabytes that nothing needs again, where they are all that lies there."""
    found = sorted(cache.glob("*")) + sorted(cache.glob(".*"))
    if all((path / "features.json").is_file() or path.name.endswith(".lock") for path in found):
        shutil.rmtree(cache, ignore_errors=True)


@contextmanager
def _subject(kept: Path, key: str, shell: Shell) -> Iterator[None]:
    """Hold the kept subject's folder; another demonstration that is making it is waited for."""
    _check_subject(kept)
    with locked(inside(kept), kept, wait=True, on_wait=shell.say):
        content = {"format": f"minddiffuser-{SUBJECT_KIND}", "version": VERSION, "key": key}
        path = kept / SUBJECT_MARKER
        if not path.exists():
            write_json(path, content)
        elif read_json(path, "the kept subject's description") != content:
            raise FileError(
                f"{kept} keeps the subject of another release or with other settings: give another --subject, or "
                "delete that folder"
            )
        yield


def commands(
    out: Path, kept: Path, settings: DemoSettings, stimuli: Path | None, shipped: Path | None
) -> dict[str, Step]:
    """The demonstration's commands by the piece they make; "data" only where the kept subject's own will not do.

    The export takes graphs from the bundle `shipped`, where there is one and it was made for the same models.
    """
    kept_data, checkpoint, bundle = str(kept / "data"), str(kept / "checkpoint"), str(kept / "bundle")
    threads, refinement = settings.with_threads(), settings.refinement()
    models = ["--models", settings.models]
    signal = SIGNALS[settings.modality]
    simulate = ["md-train", "simulate", settings.modality, "--seed", str(settings.seed)]
    simulate += ["--n-train", str(settings.n_train), *signal.simulate]
    # The default brain is of the tiny world: its pictures' size, its labels. The clip brain is of any models.
    simulate += [] if settings.models == DemoSettings.models else ["--brain", "clip", *models]
    fit = ["md-train", "fit", kept_data, *models, "--out", checkpoint, "--cache", str(kept / "features")]
    fit += ["--n-structure", str(settings.n_structure), *signal.fit, *threads]
    export = ["md-export", "bundle", checkpoint, *models, "--data", kept_data, "--out", bundle, *threads]
    export += [] if shipped is None else ["--graphs-from", str(shipped)]
    same = [*settings.computing(), "--note", settings.note()]
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
