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


def _say(line: str) -> None:
    tell(_PROG, line, DONE)


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
