"""MindDiffuser: pictures reconstructed from brain activity, in two stages.

In a notebook: ``import minddiffuser as md``, then :func:`open`, :func:`demo` and :func:`reconstruct` of
:mod:`minddiffuser.runtime.notebook`. They are loaded when they are asked for: importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime.notebook import Opened as Opened
    from .runtime.notebook import Reconstructed as Reconstructed
    from .runtime.notebook import demo as demo
    from .runtime.notebook import open as open
    from .runtime.notebook import reconstruct as reconstruct

__version__: str
__all__ = ["Opened", "Reconstructed", "__version__", "demo", "open", "reconstruct"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from .runtime.command import version

        return version()
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it has {', '.join(__all__)}")
    from .runtime import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return [*__all__, "export", "runtime", "training"]
