"""What computes a run: a checkpoint with PyTorch, or a bundle with its engines, behind one door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..bundle.manifest import MANIFEST
from ..errors import InputError, MissingExtra
from .base import Backend, Options


def open(folder: Path | str, options: Options | None = None) -> Backend[Any]:
    """Open a checkpoint or a bundle as far as is quick: its decoder is known, its networks are opened when first used.

    Close it, or use it as a context manager.

    Parameters
    ----------
    folder : Path or str
        Of ``md-train fit``, or of ``md-export bundle``.
    options : Options, optional

    Returns
    -------
    Backend
        Of PyTorch's tensors for a checkpoint and for the backend "pytorch" of a bundle, of numpy arrays for engines.

    Raises
    ------
    MindDiffuserError
        See :func:`~minddiffuser.runtime.decoders.checkpoint.open_checkpoint`,
        :meth:`~minddiffuser.runtime.bundle.open.Bundle.open` and
        :func:`~minddiffuser.runtime.engines.open.choose_backend`; options that do not belong to the kind of folder, or
        more threads than there are cores.
    """
    folder, chosen = Path(folder), Options() if options is None else options
    if not is_bundle(folder):
        return _checkpoint(folder, chosen)
    from .bundle import open_bundle, open_decoders

    if chosen.backend != "pytorch":
        return open_bundle(folder, chosen)
    given = chosen.of_engines()
    if given:
        raise InputError(
            f"{', '.join(given)} choose among a bundle's engines, and the backend is pytorch: leave them out, or "
            "choose another backend"
        )
    _needs_torch()
    from .torch import TorchBackend

    decoder, engines, provenance = open_decoders(folder, chosen)
    return TorchBackend(decoder, chosen, provenance, engines=engines)


def is_bundle(folder: Path | str) -> bool:
    """Whether a folder is a bundle and no checkpoint."""
    return (Path(folder) / MANIFEST).is_file()


def _checkpoint(folder: Path, options: Options) -> Backend[Any]:
    given = [*(["--backend"] if options.backend is not None else []), *options.of_engines()]
    if given:
        raise InputError(
            f"{folder} is a checkpoint, and {', '.join(given)} choose among a bundle's engines: make a bundle "
            "with md-export bundle, or leave them out"
        )
    _needs_torch()
    from ..decoders.checkpoint import open_checkpoint
    from .torch import TorchBackend

    decoder = open_checkpoint(folder)
    decoder.prepare()
    return TorchBackend(decoder, options, decoder.description["provenance"])


def _needs_torch() -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "reconstruction from a checkpoint needs torch: pip install 'minddiffuser[torch]', or run a bundle"
        ) from error
