"""What stage 2 asks of a generator: start parameters, and a differentiable way from parameters to a picture."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from ..errors import MissingExtra, ShapeError, check_choice

# name -> (module beside this one, class). To add a generator: one new file, one line here.
GENERATORS: dict[str, tuple[str, str]] = {
    "diffusion": (".diffusion", "DiffusionGenerator"),
    "pixels": (".pixels", "PixelGenerator"),
}


class Generator(Protocol):
    """A batch of pictures as a differentiable function of parameters.

    Trials are rows and never mix: row i of every parameter is all that picture i depends on.
    """

    def initial(self) -> dict[str, Any]:
        """Give the start parameters: fresh float tensors by name, each with one row per trial."""
        ...

    def render(self, params: Mapping[str, Any]) -> Any:
        """Give the pictures, float (n, 3, H, W) in [0, 1], differentiable with respect to every tensor in `params`."""
        ...


def check_start(latent: Any, context: Any, uncond: Any) -> None:
    """Refuse start arrays of stage 1 that do not fit each other. numpy and torch alike.

    Raises
    ------
    ShapeError
    """
    if latent.ndim != 4 or context.ndim != 3 or len(latent) != len(context):
        raise ShapeError(
            f"latent has shape {tuple(latent.shape)} and context {tuple(context.shape)}: "
            "give (n, 4, h, w) and (n, 15, d_text) with the same n"
        )
    if uncond.shape != context.shape[1:]:
        raise ShapeError(
            f"uncond_context has shape {tuple(uncond.shape)}, one trial's context {tuple(context.shape[1:])}: "
            "encode the empty caption with the same text encoder"
        )


def generator_class(name: str) -> type[Any]:
    """Load the class registered as `name`.

    Raises
    ------
    InputError
        No such generator.
    MissingExtra
        A library that it needs is not installed.
    """
    check_choice("generator", name, GENERATORS)
    module, attribute = GENERATORS[name]
    try:
        loaded: type[Any] = getattr(import_module(module, __package__), attribute)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"generator {name!r} needs {error.name}: pip install 'minddiffuser[torch]'") from error
    return loaded
