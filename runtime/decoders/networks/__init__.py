"""The registry of networks' architectures: one file here and one line add another."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ...errors import check_choice

# architecture -> module in this package, with `Config`, a frozen dataclass of its settings, and
# `build(config, response_shape, n_outputs)`, which returns a module whose whole state is in its state_dict, and which
# refuses shapes that it cannot take by InputError. Import PyTorch inside `build`: a bundle's run needs none.
ARCHITECTURES: dict[str, str] = {
    "mlp": ".mlp",
    "transformer": ".transformer",
    "nice": ".nice",
    "eegnet": ".eegnet",
    "atm": ".atm",
    "brain_module": ".brain_module",
}


def architecture_module(name: str) -> Any:
    """The module of a registered architecture.

    Raises
    ------
    InputError
        The name is unknown.
    """
    check_choice("architecture", name, ARCHITECTURES)
    return import_module(ARCHITECTURES[name], __name__)
