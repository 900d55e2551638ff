"""What a person may say of the context's route: the options of ``md-train fit``, and the settings that they make."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.candidates import PROTOTYPES
from ..runtime.errors import InputError
from ..runtime.features import TARGETS

if TYPE_CHECKING:
    from .datasets.base import Data
    from .settings import FitSettings


def add_concept_options(fit: argparse.ArgumentParser) -> None:
    """Add the options to the command's parser."""
    group = fit.add_argument_group("the context's route (for EEG and MEG the paper goes by way of concepts)")
    group.add_argument(
        "--context",
        choices=("direct", "concepts"),
        help="decode the context itself, or CLIP's image embedding and take the context of the nearest of a list of "
        "concepts (default: concepts for EEG and MEG where the data folder names concepts, else direct)",
    )
    group.add_argument(
        "--concepts",
        type=Path,
        metavar="FILE",
        help="the candidates, one name a line (default: the concepts of all training and test pictures)",
    )
    group.add_argument(
        "--concept-prompt",
        metavar="TEXT",
        help="whose context is taken, {} for the concept (default: a picture of a {})",
    )
    group.add_argument(
        "--concept-prototypes",
        choices=PROTOTYPES,
        help="a candidate's embedding: that of the prompt by CLIP's text tower, or the mean over its training pictures "
        "(default: text)",
    )


def with_concepts(settings: FitSettings, args: argparse.Namespace, data: Data) -> FitSettings:
    """The settings with the route that was asked for, or that the data suggest.

    Raises
    ------
    InputError
        There is no candidate, or an option belongs to the other route.
    """
    from .candidates import concept_settings

    concepts = concept_settings(
        data,
        route=args.context,
        names=args.concepts,
        prompt=args.concept_prompt,
        prototypes=args.concept_prototypes,
    )
    settings = replace(settings, concepts=concepts)
    (other,) = set(TARGETS) - set(settings.targets)
    given = _given_for(args, other)
    if given is not None:
        route = "directly" if concepts is None else "by way of concepts"
        raise InputError(
            f"{given} is for a decoder of the {other}, and there is none where the context is decoded {route}: leave "
            f"it out, or give --context {'concepts' if concepts is None else 'direct'}"
        )
    return settings


def _given_for(args: argparse.Namespace, feature: str) -> str | None:
    """An option that was given for this feature alone."""
    for text in args.decoder:
        if text.rpartition("=")[0] == feature:
            return f"--decoder {text}"
    options: list[tuple[str, str, Any]] = args.decoder_option
    for only, name, value in options:
        if only == feature:
            return f"--decoder-option {only}.{name}={value}"
    flags = [f"{name}_{feature}" for name in ("n", "alpha") if getattr(args, f"{name}_{feature}") is not None]
    return f"--{flags[0].replace('_', '-')}" if flags else None
