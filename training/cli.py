"""Make what reconstruction needs: simulated subjects, fitted decoders, the tiny world's models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..runtime.command import DONE, Parser, guarded, tell, version
from ..runtime.errors import MissingExtra

PROG = "md-train"
_EXTRA = ("torch", "torchvision", "diffusers", "transformers", "open_clip", "scipy", "tokenizers")
TARGETS = ("context", "latent", "structure", "semantic")
_SIMULATE_EXAMPLE = """
example (offline, on the tiny world that comes with the package):
  md-train simulate fmri --out data --seed 7
  md-train simulate fmri --out mine --seed 7 --stimuli my_drawings
"""
_FIT_EXAMPLE = """
example (offline):
  md-train simulate fmri --out data --seed 7
  md-train fit data --models tiny --out checkpoint

a fit that was stopped goes on when the same command is given again.
"""
_WORLD_EXAMPLE = """
example (offline; hours on two CPU cores, an hour on a GPU):
  md-train world --out world
  md-train world --out poor_world --effort 0.01

a training that was stopped goes on when the same command is given again.
"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``md-train``."""
    top = Parser(
        prog=PROG,
        description=__doc__,
        epilog=_FIT_EXAMPLE.strip("\n"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"{PROG} {version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    simulate = commands.add_parser("simulate", help="simulate a subject", epilog=_SIMULATE_EXAMPLE, **_RAW)
    _add_fmri(simulate.add_subparsers(dest="modality", required=True, metavar="MODALITY", parser_class=Parser))
    _add_fit(commands)
    _add_world(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""

    def run() -> int:
        args = parser().parse_args(argv)
        command: Callable[[argparse.Namespace], Path] = args.function
        try:
            print(command(args))
        except ModuleNotFoundError as error:
            if error.name not in _EXTRA:
                raise
            raise MissingExtra(f"this needs {error.name}: pip install 'minddiffuser[train]'") from error
        return DONE

    return guarded(PROG, run, interrupted="give the same command again", out_of_memory="give a smaller --batch-size")


_RAW: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}


def _add_fmri(modalities: Any) -> None:
    fmri = modalities.add_parser(
        "fmri",
        help="two thousand voxels in eleven visual areas",
        description="Simulate the fMRI responses of one subject to pictures and write a data folder.",
        epilog=_SIMULATE_EXAMPLE,
        **_RAW,
    )
    fmri.set_defaults(function=_simulate_fmri)
    fmri.add_argument("--out", type=Path, required=True, metavar="DATA", help="data folder to write")
    fmri.add_argument("--seed", type=int, default=0, metavar="S", help="of pictures, brain and noise (default: 0)")
    fmri.add_argument("--n-train", type=int, metavar="N", help="training pictures (default: 1200)")
    fmri.add_argument("--n-test", type=int, metavar="N", help="test pictures (default: 128)")
    fmri.add_argument("--stimuli", type=Path, metavar="DIR", help="your own PNG or JPEG pictures as the test split")
    fmri.add_argument("--snr", type=float, metavar="X", help="signal over noise of one showing (default: 1)")
    fmri.add_argument(
        "--repetitions", type=int, metavar="R", help="showings that a test trial averages, 1 to 3 (default: 3)"
    )
    fmri.add_argument(
        "--train-repetitions", type=int, metavar="R", help="showings of a training picture, each a trial (default: 1)"
    )
    fmri.add_argument("--force", action="store_true", help="replace an existing data folder")
    _add_models(fmri)


def _add_fit(commands: Any) -> None:
    fit = commands.add_parser(
        "fit",
        help="fit decoders to a subject",
        description="Fit normalisers, decoders and the mask of trusted structure, and write a checkpoint.",
        epilog=_FIT_EXAMPLE,
        **_RAW,
    )
    fit.set_defaults(function=_fit)
    fit.add_argument("data", type=Path, metavar="DATA", help="data folder")
    fit.add_argument("--out", type=Path, required=True, metavar="CHECKPOINT", help="checkpoint folder to write")
    fit.add_argument("--dataset", default="folder", metavar="KIND", help="what DATA is (default: %(default)s)")
    fit.add_argument("--preset", choices=("reference", "paper"), default="reference", help="layers of the structure")
    fit.add_argument("--cache", type=Path, metavar="DIR", help="where features are kept (default: beside CHECKPOINT)")
    fit.add_argument("--threads", type=_count, metavar="N", help="CPU threads (default: all)")
    _add_models(fit)
    decoders = fit.add_argument_group("decoders (defaults from the paper)")
    decoders.add_argument("--decoder", default="ridge", metavar="KIND", help="of all targets (default: %(default)s)")
    for target in TARGETS:
        decoders.add_argument(f"--n-{target}", type=_count, metavar="N", help=f"voxels per {target} dimension")
        decoders.add_argument(f"--alpha-{target}", type=float, metavar="A", help=f"ridge penalty of {target}")
    selection = fit.add_argument_group("selection of trusted structure (Algorithm 1)")
    selection.add_argument("--percent", type=float, metavar="K", help="share of each layer that is kept (default: 25)")
    selection.add_argument("--absolute", action="store_true", help="rank by absolute correlation, as the reference")
    selection.add_argument("--n-folds", type=int, metavar="N", help="of the cross-validation (default: 5)")
    selection.add_argument("--n-selection", type=_count, metavar="N", help="voxels per dimension in the folds")


def _add_models(command: Any) -> None:
    command.add_argument("--models", default="tiny", help="tiny, a model folder, or a hub id (default: %(default)s)")
    command.add_argument(
        "--clip", help="open_clip folder, ARCHITECTURE:PRETRAINED or hf-hub:ID (default: the models' own)"
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    command.add_argument("--batch-size", type=_count, default=32, metavar="N", help="pictures at a time (default: 32)")


def _add_world(commands: Any) -> None:
    world = commands.add_parser(
        "world",
        help="train the tiny world's models",
        description="Draw the tiny world's pictures and train its models into a model folder.",
        epilog=_WORLD_EXAMPLE,
        **_RAW,
    )
    world.set_defaults(function=_world)
    world.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="model folder to write")
    world.add_argument("--work", type=Path, metavar="DIR", help="pictures and training states (default: FOLDER.work)")
    world.add_argument("--part", action="append", metavar="PART", help="train this part only; repeatable")
    world.add_argument("--effort", type=float, default=1.0, metavar="X", help="share of the training (default: 1)")
    world.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")


def _simulate_fmri(args: argparse.Namespace) -> Path:
    from ..runtime.data.target import check_target
    from ..runtime.progress import Phases
    from .simulate import FmriSettings
    from .subject import Showing, simulate_subject

    given = {"snr": args.snr, "test_repetitions": args.repetitions, "train_repetitions": args.train_repetitions}
    settings = FmriSettings(**_without_none(given))
    showing = Showing(**_without_none({"n_train": args.n_train, "n_test": args.n_test, "stimuli": args.stimuli}))
    check_target(args.out, replace=args.force)  # said before the models take their seconds to load
    models = _open_models(args, "reference")
    with Phases() as progress:
        data = simulate_subject(
            args.out,
            models,
            settings,
            showing,
            seed=args.seed,
            batch_size=args.batch_size,
            replace=args.force,
            progress=progress,
        )
    _tell_ceilings(data)
    return data.folder


def _tell_ceilings(data: Any) -> None:
    ceilings = ", ".join(f"{float(median(data.noise_ceiling(split))):.2f} in {split}" for split in ("train", "test"))
    tell(PROG, f"median noise ceiling, the share of a trial's variance that the picture explains: {ceilings}", DONE)


def _fit(args: argparse.Namespace) -> Path:
    from ..runtime.progress import Phases
    from .datasets.base import open_dataset
    from .fit import check_out, fit

    settings = fit_settings(args)
    data = open_dataset(args.dataset, args.data)
    check_out(args.out, settings)
    models = _open_models(args, args.preset)
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    with Phases() as progress:
        return fit(data, models, args.out, settings, progress=progress)


def fit_settings(args: argparse.Namespace) -> Any:
    """The settings of ``md-train fit``: the defaults, with what the user gave."""
    from .decoders.base import make_decoder
    from .fit import FitSettings
    from .selection import SelectionSettings

    decoders: dict[str, Any] = {}
    for target in TARGETS:
        options = {"n_selected": getattr(args, f"n_{target}"), "alpha": getattr(args, f"alpha_{target}")}
        decoders[target] = make_decoder(args.decoder, target, **_without_none(options))
    options = {"percent": args.percent, "n_folds": args.n_folds, "n_selected": args.n_selection}
    selection = SelectionSettings(absolute=args.absolute, **_without_none(options))
    return FitSettings(
        **decoders, selection=selection, cache_dir=args.cache, batch_size=args.batch_size, n_threads=args.threads
    )


def _world(args: argparse.Namespace) -> Path:
    from ..runtime.progress import Phases
    from .tinyworld.world import make_world

    with Phases() as progress:
        return make_world(
            args.out, work=args.work, device=args.device, parts=args.part, effort=args.effort, progress=progress
        )


def _open_models(args: argparse.Namespace, preset: str) -> Any:
    from ..runtime.models.open import load_models
    from ..runtime.opening import choose_device

    models = load_models(args.models, clip=args.clip, preset=preset, device=choose_device(args.device))
    for note in models.notes:
        tell(PROG, note, DONE)
    return models


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
