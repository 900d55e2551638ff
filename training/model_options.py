"""The options of md-train's commands that say which models, and where they compute."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..runtime.command import count

# Unless the user gives others.
DEFAULTS: dict[str, str | None] = {"models": "tiny", "clip": None, "device": "auto"}


def add_models(command: Any) -> None:
    """Add --models, --clip, --device and --batch-size to a command."""
    command.add_argument(
        "--models", default=DEFAULTS["models"], help="tiny, a model folder, or a hub id (default: %(default)s)"
    )
    command.add_argument(
        "--clip", help="open_clip folder, ARCHITECTURE:PRETRAINED or hf-hub:ID (default: the models' own)"
    )
    command.add_argument(
        "--device", default=DEFAULTS["device"], help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)"
    )
    command.add_argument("--batch-size", type=count, default=32, metavar="N", help="pictures at a time (default: 32)")


def open_models(args: argparse.Namespace, preset: str, say: Callable[[str], object]) -> Any:
    """Open the models that the options name, with a preset of layers; `say` receives each note about them."""
    from ..runtime.models.device import choose_device
    from ..runtime.models.open import load_models

    models = load_models(args.models, clip=args.clip, preset=preset, device=choose_device(args.device))
    for note in models.notes:
        say(note)
    return models


def model_folder(models: str) -> Path | None:
    """Where models lie that are not a hub id."""
    from ..runtime.models.locate import TINY, locate

    # os.path, not Path: a name that is too long, or may not be looked at, is no folder here; opening models says why.
    return locate(models) if models == TINY or os.path.isdir(models) else None
