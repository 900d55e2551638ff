"""``md-train simulate``: its options, and what they run."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

from ...runtime.command import DONE, Parser, add_command, tell
from ...runtime.errors import InputError
from ..model_options import DEFAULTS, add_models, model_folder, open_models
from .brains import BRAINS, DEFAULT_BRAIN
from .brains.base import MODEL_OPTIONS, Sources, brain_class
from .formats import FORMATS, NATIVE, formats_of

_PROG = "md-train"
_EXAMPLE = """
example (offline, on the tiny world that comes with the package):
  md-train simulate fmri --out data --seed 7
  md-train simulate fmri --out mine --seed 7 --stimuli my_drawings
  md-train simulate fmri --out other --seed 7 --brain clip
  md-train simulate eeg --out eeg --seed 7
  md-train simulate eeg --out cap --seed 7 --channels 63 --sfreq 250
  md-train simulate meg --out meg --seed 7
"""


def add_simulate(commands: Any) -> None:
    """Add the command, with one command of its own per modality."""
    simulate = commands.add_parser(
        "simulate",
        help="simulate a subject",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    modalities = simulate.add_subparsers(dest="modality", required=True, metavar="MODALITY", parser_class=Parser)
    _add_fmri(modalities)
    _add_eeg(modalities)
    _add_meg(modalities)


def _add_fmri(modalities: Any) -> None:
    fmri = add_command(
        modalities,
        "fmri",
        _simulate_fmri,
        help="two thousand voxels in eleven visual areas",
        description="Simulate the fMRI responses of one subject to pictures and write a data folder.",
        epilog=_EXAMPLE,
    )
    _add_subject(fmri, "fmri", n_train=1200, n_test=128)
    fmri.add_argument(
        "--snr", type=float, metavar="X", help="signal-to-noise ratio of a single presentation (default: 1)"
    )
    fmri.add_argument(
        "--repetitions", type=int, metavar="R", help="presentations averaged in a test trial, 1 to 3 (default: 3)"
    )
    fmri.add_argument(
        "--train-repetitions",
        type=int,
        metavar="R",
        help="presentations of a training picture, each its own trial (default: 1)",
    )
    add_models(fmri)


def _add_eeg(modalities: Any) -> None:
    eeg = add_command(
        modalities,
        "eeg",
        _simulate_eeg,
        help="electrodes of the THINGS-EEG2 cap",
        description="Simulate the EEG of one subject who looks at pictures, in rapid sequences as in THINGS-EEG2, and "
        "write the epochs as a data folder.",
        epilog=_EXAMPLE,
    )
    _add_subject(eeg, "eeg", n_train=1200, n_test=128)
    eeg.add_argument(
        "--channels",
        type=int,
        choices=(17, 63),
        help="the 17 occipital and parietal electrodes, or all 63 (default: 17 in native format)",
    )
    _add_sensors(eeg, sfreq=100, soa=0.2, train=4, test=80)


def _add_meg(modalities: Any) -> None:
    meg = add_command(
        modalities,
        "meg",
        _simulate_meg,
        help="271 gradiometers of a CTF 275",
        description="Simulate the MEG of one subject who looks at pictures, as in THINGS-MEG, and write the epochs as "
        "a data folder.",
        epilog=_EXAMPLE,
    )
    _add_subject(meg, "meg", n_train=1200, n_test=128)
    _add_sensors(meg, sfreq=200, soa=1.5, train=1, test=12)


def _add_sensors(command: Any, *, sfreq: float, soa: float, train: int, test: int) -> None:
    """What EEG and MEG are asked."""
    command.add_argument(
        "--sfreq", type=float, metavar="HZ", help=f"samples per second of the epochs (default: {sfreq})"
    )
    command.add_argument(
        "--soa", type=float, metavar="S", help=f"seconds from one picture to the next (default: {soa})"
    )
    command.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="X",
        help="how strong the brain answers to pictures, times a realistic strength (default: %(default)g)",
    )
    command.add_argument(
        "--repetitions", type=int, metavar="R", help=f"presentations averaged in a test trial (default: {test})"
    )
    command.add_argument(
        "--train-repetitions",
        type=int,
        metavar="R",
        help=f"presentations of a training picture, each its own trial (default: {train})",
    )
    command.add_argument(
        "--single-trials", action="store_true", help="keep every presentation of a test picture as a trial"
    )
    command.add_argument(
        "--zero-phase",
        action="store_true",
        help="filter without delay, forward and backward; what is trained on it cannot run live",
    )
    add_models(command)


def _add_subject(command: Any, modality: str, *, n_train: int, n_test: int) -> None:
    """What every modality is asked."""
    command.add_argument("--out", type=Path, required=True, metavar="DATA", help="data folder to write")
    command.add_argument(
        "--seed", type=int, default=0, metavar="S", help="random seed of pictures, brain and noise (default: 0)"
    )
    formats = "; ".join(f"{name}: {FORMATS[name].made_of}" for name in formats_of(modality) if name != NATIVE)
    command.add_argument(
        "--format",
        choices=formats_of(modality),
        default=NATIVE,
        help="how it is written. native: the data folder that md-train fit reads"
        + (f"; {formats}" if formats else "")
        + " (default: %(default)s)",
    )
    kinds = "; ".join(f"{name}: {brain_class(name).made_of}" for name in BRAINS)
    command.add_argument(
        "--brain",
        choices=tuple(BRAINS),
        default=DEFAULT_BRAIN,
        help=f"what drives the visual areas. {kinds}. --models, --clip and --device are for clip; gabor reads --models "
        "alone, for the labels of --stimuli (default: %(default)s)",
    )
    command.add_argument("--n-train", type=int, metavar="N", help=f"training pictures (default: {n_train})")
    command.add_argument("--n-test", type=int, metavar="N", help=f"test pictures (default: {n_test})")
    command.add_argument(
        "--stimuli", type=Path, metavar="DIR", help="your own pictures (PNG, JPEG, WebP, TIFF, BMP) as the test split"
    )
    command.add_argument("--force", action="store_true", help="replace an existing data folder")


def _simulate_fmri(args: argparse.Namespace) -> int:
    from ...runtime.progress import Phases
    from .fmri import FmriSettings
    from .subject import Showing, check_subject, fmri_subject, simulate_subject

    _check_models_are_read(args)
    given = {"snr": args.snr, "test_repetitions": args.repetitions, "train_repetitions": args.train_repetitions}
    settings = FmriSettings(**_without_none(given))
    showing = Showing(**_without_none({"n_train": args.n_train, "n_test": args.n_test, "stimuli": args.stimuli}))
    if args.format != NATIVE:

        def make(progress: Any) -> Any:
            return fmri_subject(_brain(args), settings, showing, seed=args.seed, single_trials=True, progress=progress)

        return _write_format(args, showing, make)
    # Before the models, which take seconds to load or an hour to download.
    check_subject(args.out, showing, seed=args.seed, replace=args.force)
    brain = _brain(args)
    with Phases() as progress:
        data = simulate_subject(
            args.out, brain, settings, showing, seed=args.seed, replace=args.force, progress=progress
        )
    _tell_note(data.provenance)
    _tell_ceilings(data)
    print(data.folder)
    return DONE


def _simulate_eeg(args: argparse.Namespace) -> int:
    from .eeg import EEG, EPOCHS, sensors

    n_channels = (17 if args.format == NATIVE else 63) if args.channels is None else args.channels
    return _simulate_sensors(args, lambda: sensors(n_channels), EEG, EPOCHS)


def _simulate_meg(args: argparse.Namespace) -> int:
    from .meg import EPOCHS, MEG
    from .sensors import meg_sensors

    return _simulate_sensors(args, meg_sensors, MEG, EPOCHS)


def _simulate_sensors(args: argparse.Namespace, sensors: Any, recording: Any, epochs: Any) -> int:
    """Simulate with what was given in place of the modality's own settings; `sensors` makes them."""
    from dataclasses import replace

    from ...runtime.data.destination import check_target, claimed
    from ...runtime.progress import Phases
    from .epochs import recorded_hz, write_epochs
    from .recording import sensor_subject
    from .subject import Showing, check_pictures, check_seed

    _check_models_are_read(args)
    showing = Showing(**_without_none({"n_train": args.n_train, "n_test": args.n_test, "stimuli": args.stimuli}))
    given = {"soa_s": args.soa, "test_repetitions": args.repetitions, "train_repetitions": args.train_repetitions}
    recording = replace(recording, strength=args.strength, **_without_none(given))
    chosen = {"sfreq": args.sfreq, "causal": not args.zero_phase, "single_trials": args.single_trials}
    epochs = replace(epochs, **_without_none(chosen))
    if args.format == NATIVE:
        recording = replace(recording, recorded_hz=recorded_hz(epochs.sfreq))

    def make(progress: Any) -> Any:
        return sensor_subject(sensors(), _brain(args), recording, showing, seed=args.seed, progress=progress)

    if args.format != NATIVE:
        _refuse_epochs(args)
        return _write_format(args, showing, lambda progress: make(progress).subject)
    check_seed(args.seed)
    check_target(args.out, replace=args.force)
    check_pictures(showing)
    with Phases() as progress, claimed(args.out, replace=args.force):
        data = write_epochs(args.out, make(progress), epochs, progress=progress)
    _tell_note(data.provenance)
    _tell_best(data)
    print(data.folder)
    return DONE


def _refuse_epochs(args: argparse.Namespace) -> None:
    """Other formats hold the recording: what only changes epochs has no part in it."""
    given = {"--sfreq": args.sfreq is not None, "--single-trials": args.single_trials, "--zero-phase": args.zero_phase}
    for option in (name for name, is_given in given.items() if is_given):
        raise InputError(f"{option} is about epochs, and {args.format} holds the recording: leave it out")


def _write_format(args: argparse.Namespace, showing: Any, make: Any) -> int:
    """Write in a format that is not native; `make` makes the subject, from a progress."""
    from ...runtime.progress import Phases
    from .formats.write import check_target, write_subject
    from .subject import check_pictures, check_seed

    if args.force:
        raise InputError("--force replaces a data folder alone: give --out a new or empty folder, or --format native")
    check_seed(args.seed)
    check_target(args.out)
    check_pictures(showing)
    with Phases() as progress:
        out = write_subject(args.format, args.out, make, progress=progress)
    print(out)
    return DONE


def _brain(args: argparse.Namespace) -> Any:
    sources = Sources(
        open_models=lambda: open_models(args, "reference", _say),
        model_folder=model_folder(args.models),
        batch_size=args.batch_size,
    )
    return brain_class(args.brain).open(sources, own_pictures=args.stimuli is not None)


def _check_models_are_read(args: argparse.Namespace) -> None:
    """Refuse options about models that would change nothing."""
    reads = brain_class(args.brain).reads(own_pictures=args.stimuli is not None)
    given = [name for name in MODEL_OPTIONS if getattr(args, name) != DEFAULTS[name]]
    unread = " and ".join(f"--{name}" for name in given if name not in reads)
    if unread:
        raise InputError(f"the {args.brain} brain does not read {unread} here: leave it out, or give --brain clip")


def _tell_note(provenance: Any) -> None:
    note = provenance["stimuli"]["note"]
    if note is not None:
        _say(note)


def _tell_ceilings(data: Any) -> None:
    ceilings = ", ".join(f"{float(median(data.noise_ceiling(split))):.2f} in {split}" for split in ("train", "test"))
    _say(f"median noise ceiling (share of a trial's variance that the stimulus explains): {ceilings}")


def _tell_best(data: Any) -> None:
    """Of sensors: most of their times and places hold nothing of a picture, and the median says little."""
    best = ", ".join(f"{float(data.noise_ceiling(split).max()):.2f} in {split}" for split in ("train", "test"))
    _say(
        f"highest noise ceiling of a channel and time (share of a trial's variance that the stimulus explains): {best}"
    )


def _say(line: str) -> None:
    tell(_PROG, line, DONE)


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
