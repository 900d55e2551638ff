"""MindDiffuser: pictures reconstructed from brain activity, in two stages.

In a notebook: ``import minddiffuser as md``, then :func:`open`, :func:`demo` and :func:`reconstruct` of
:mod:`minddiffuser.runtime.notebook`. They are loaded when they are asked for: importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime.notebook import Opened as Opened
    from .runtime.notebook import Reconstructed as Reconstructed
    from .runtime.notebook import demo as demo
    from .runtime.notebook import open as open
    from .runtime.notebook import reconstruct as reconstruct

__version__: str
# Not open: `from minddiffuser import *` would take Python's own away.
__all__ = ["Opened", "Reconstructed", "__version__", "demo", "reconstruct"]
_NAMES = (*__all__, "open")
_PACKAGES = ("export", "runtime", "streaming", "training")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from .runtime.command import version

        return version()
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it has {', '.join(_NAMES)}")
    from .runtime import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return [*_NAMES, *_PACKAGES]
