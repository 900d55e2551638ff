"""Make what ``md-stream demo`` ships with: a simulated EEG and MEG subject's bundle and a live session of it, packed.

    python -m minddiffuser.export.demo_sessions

Run again after an interruption, it goes on after the last finished step. The networks' graphs are those of the
demonstration of fMRI (demo_files.py, to be made before), traced again only if the exporter's code has changed since.
Run it after a change of the tiny world or of a format: a test says when.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..runtime.command import guarded
from ..runtime.data.destination import claimed
from ..runtime.decoders import files as checkpoints
from ..runtime.demo.packed import unpack
from ..runtime.demo.quick import SHIPPED, WORLD
from ..runtime.demo.session import VERSION, DemoSession, write_session
from ..runtime.images import write_png
from ..runtime.progress import Phases
from ..training.simulate.base import TARGET, Run
from ..training.simulate.brains import DEFAULT_BRAIN
from ..training.simulate.brains.base import Sources, brain_class
from ..training.simulate.eeg import EEG
from ..training.simulate.eeg import sensors as eeg_sensors
from ..training.simulate.epochs import EpochSettings, write_epochs
from ..training.simulate.meg import MEG
from ..training.simulate.recording import Sensed, sensor_subject
from ..training.simulate.sensors import meg_sensors
from ..training.simulate.shown import Shown
from ..training.simulate.subject import Showing
from .bundle.pack import pack
from .demo_files import key, round_weights, run_command, work_name

PROG = "demo_sessions"


@dataclass(frozen=True, kw_only=True)
class LiveSubject:
    """The subject that is shipped, its session, and how its decoders are fitted.

    Attributes
    ----------
    modality
        "eeg", of the whole cap, or "meg".
    seed, session_seed
        Of the subject and its training; and of the session, its pictures, their order and the noise. Every setting
        below was chosen before this session was drawn, some on an earlier one: nothing may be chosen by its results.
    n_train, n_shown, n_repetitions
        Training pictures, shown once each; pictures of the session, and how often each is shown there.
    strength
        Of the brain's answers, times a realistic one. With a realistic one, pictures can be distinguished in averages
        over hundreds of showings; the demonstration has two minutes.
    soa_s, jitter_s
        From one picture to the next.
    recorded_hz, epoch_hz, band
        Rates of the recording and of the epochs, and what the chain keeps. The filters have settled after
        three seconds, and the session's first picture is shown after four.
    epoch_s
        From the picture on.
    alpha
        The ridge's penalty.
    n_embedding, n_latent, n_structure
        Values of a trial from which a dimension of the embedding and of the semantic feature, of the latent and of the
        structure is decoded: as many as there are, when there are fewer.
    n_selection
        The same in the folds that select the trusted structure.
    """

    modality: str
    brain: str = DEFAULT_BRAIN
    seed: int = 7
    session_seed: int = 1
    n_train: int = 4000
    n_shown: int = 8
    n_repetitions: int = 12
    strength: float = 6.0
    soa_s: float = 1.5
    jitter_s: float = 0.2
    recorded_hz: float = 200.0
    epoch_hz: float = 50.0
    band: tuple[float, float] = (0.7, 16.0)
    epoch_s: float = 0.7
    alpha: float = 100.0
    n_embedding: int = 100_000
    n_latent: int = 400
    n_structure: int = 60
    n_selection: int = 30


SUBJECTS = {"eeg": LiveSubject(modality="eeg"), "meg": LiveSubject(modality="meg", n_train=2400, n_embedding=2000)}


def live_key(subject: LiveSubject) -> str:
    """SHA-256 of what decides the shipped files of a subject."""
    return key(subject, VERSION)


def make(work: Path, out: Path, subject: LiveSubject) -> None:
    """Simulate, fit, export and pack, or only the steps that are not finished.

    Parameters
    ----------
    work
        A folder for what is made on the way; what is finished there is not made again.
    out
        Folder of packed.json and packed.bin.

    Raises
    ------
    InputError
        A command failed, which has given its reason.
    FileError
        The shipped files of the demonstration of fMRI are missing or damaged.
    """
    data, session, fitted, rounded, bundle, whole = (
        work / name for name in ("data", "session", "checkpoint", "rounded", "bundle", "whole")
    )
    if not (data / "data.json").exists() or not (session / "session.json").exists():
        simulate(subject, data, session)
    if not (fitted / checkpoints.DESCRIPTION).exists():
        run_command("md-train", [*fit_command(subject, data, fitted), "--cache", str(work / "features")])
    if not (rounded / checkpoints.DESCRIPTION).exists():
        round_weights(fitted, rounded)
    if not (bundle / "manifest.json").exists():
        graphs = unpack(SHIPPED, work / "shipped", WORLD) / "bundle"
        export = ["bundle", str(rounded), "--models", "tiny", "--data", str(data), "--graphs-from", str(graphs)]
        run_command("md-export", [*export, "--out", str(bundle)])
    shutil.rmtree(whole, ignore_errors=True)
    shutil.copytree(bundle, whole / "bundle")
    shutil.copytree(session, whole / "session")
    pack(whole, out, WORLD, {"key": live_key(subject), "subject": asdict(subject)})


def fit_command(subject: LiveSubject, data: Path, out: Path) -> list[str]:
    """``md-train fit`` with the subject's options."""
    n_embedding = str(subject.n_embedding)
    command = ["fit", str(data), "--models", "tiny", "--out", str(out), "--decoder-option", f"alpha={subject.alpha:g}"]
    command += ["--n-embedding", n_embedding, "--n-semantic", n_embedding, "--n-latent", str(subject.n_latent)]
    command += ["--n-structure", str(subject.n_structure), "--n-selection", str(subject.n_selection)]
    return [*command, "--n-folds", "2", "--concept-prototypes", "images"]


def simulate(subject: LiveSubject, data: Path, session: Path) -> None:
    """Write the subject's data folder, for the fit, and the session whose pictures are its test split."""
    sensed = sense(subject)
    recorded: list[Run] = []

    def runs() -> Iterator[Run]:
        for run in sensed.subject.runs():
            if run.split == "test":
                recorded.append(run)
            yield run

    heard = replace(sensed, subject=replace(sensed.subject, runs=runs))
    epochs = EpochSettings(
        sfreq=subject.epoch_hz,
        tmin=0.0,
        length_s=subject.epoch_s,
        baseline=(-0.1, 0.0),
        band=subject.band,
        single_trials=True,
    )
    with Phases() as progress, claimed(data, replace=True):
        write_epochs(data, heard, epochs, progress=progress)
    shown = sensed.subject.pictures["test"]
    (run,) = recorded
    session.mkdir(exist_ok=True)
    for number, image in enumerate(shown.images):
        write_png(session / "shown" / f"{number}.png", image)
    write_session(session, session_of(subject.modality, run, shown))


def sense(subject: LiveSubject) -> Sensed:
    """The subject under its sensors."""
    settings = replace(
        EEG if subject.modality == "eeg" else MEG,
        recorded_hz=subject.recorded_hz,
        train_repetitions=1,
        test_repetitions=subject.n_repetitions,
        soa_s=subject.soa_s,
        jitter_s=subject.jitter_s,
        sequence=10,
        pause_s=0.0,
        sessions=1,
        run_s=300.0,
        strength=subject.strength,
    )

    def no_models() -> Any:
        raise AssertionError("this brain looks at pictures without the networks that are decoded")

    brain = brain_class(subject.brain).open(Sources(open_models=no_models), own_pictures=False)
    with Phases() as progress:
        return sensor_subject(
            eeg_sensors(63) if subject.modality == "eeg" else meg_sensors(),
            brain,
            settings,
            Showing(n_train=subject.n_train, n_test=subject.n_shown),
            seed=subject.seed,
            test_seed=subject.session_seed,
            progress=progress,
        )


def session_of(modality: str, run: Run, shown: Shown) -> DemoSession:
    """A recorded run as a session.

    A marker says what was shown, "picture/3/boat/a red boat in the forest", or "target".
    """
    names = [f"{concept}/{caption}" for concept, (caption,) in zip(shown.concepts, shown.captions, strict=True)]
    markers = tuple(
        (event.sample, TARGET if event.stimulus < 0 else f"picture/{event.stimulus}/{names[event.stimulus]}")
        for event in run.events
    )
    return DemoSession(modality=modality, channels=run.channels, sfreq=run.sfreq, data=run.data, markers=markers)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the files."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--modality", choices=SUBJECTS, action="append", help="one of them alone (default: both)")
    parser.add_argument("--work", type=Path, help="folder for what is made on the way (default: beside this checkout)")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where they go (default: into this checkout)")
    args = parser.parse_args(argv)

    def run() -> int:
        for modality in args.modality or SUBJECTS:
            subject = SUBJECTS[modality]
            work = (args.work or SHIPPED.parents[1] / "runs") / work_name(subject)
            work.mkdir(parents=True, exist_ok=True)
            make(work, args.out / modality, subject)
        return 0

    return guarded(PROG, run, interrupted="run the same command again", out_of_memory="close something", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
