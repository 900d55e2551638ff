"""Which pictures are trained on: the options of ``md-train fit``, and the settings that they make."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..runtime.command import count
from ..runtime.errors import InputError
from ..runtime.split import CLUSTERS

if TYPE_CHECKING:
    from .datasets.base import Data
    from .split import ClusterSettings

OWN = "data"
_OPTIONS = ("n_clusters", "held_out", "split_seed")


def add_split_options(fit: argparse.ArgumentParser) -> None:
    """Add the options to the command's parser."""
    group = fit.add_argument_group("which pictures are held out of training")
    group.add_argument(
        "--split",
        choices=(OWN, CLUSTERS),
        default=OWN,
        help="data: the test split of DATA; clusters: of that, the pictures of some clusters of similar pictures (by "
        "CLIP's image embedding), and training takes none of these clusters. Runs then reconstruct those test trials "
        "alone (default: %(default)s)",
    )
    group.add_argument("--n-clusters", type=count, metavar="K", help="clusters of all pictures (default: 20)")
    group.add_argument(
        "--held-out",
        type=float,
        metavar="SHARE",
        help="clusters are held out until this share of the test pictures lies in them (default: 0.25)",
    )
    group.add_argument("--split-seed", type=int, metavar="S", help="seed of the clusters and the draw (default: 0)")


def cluster_settings(args: argparse.Namespace, data: Data) -> ClusterSettings | None:
    """The settings of ``--split clusters``, checked against the data; None for the data's own split.

    Raises
    ------
    InputError
        An option belongs to another split, a value is out of its range, or the data are too small.
    """
    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    if args.split == OWN:
        if given:
            listed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{listed} belong to --split clusters: give that too, or leave out")
        return None
    if args.allow_leak is not None:
        raise InputError(
            f"--allow-leak {args.allow_leak} compares two fits of its own, and --split clusters makes another: leave "
            "one of them out"
        )
    from .split import ClusterSettings, check_split

    names = {"split_seed": "seed"}
    settings = ClusterSettings(**{names.get(name, name): value for name, value in given.items()})
    check_split(data, settings)
    return settings
