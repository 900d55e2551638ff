"""The current GPU, opened through whichever library is installed."""

from __future__ import annotations

import importlib.util

from ...errors import MissingExtra, check_choice
from .device import Device
from .python import CudaPythonDevice
from .torch import TorchDevice

# Library -> the module that is looked for; the first one that is installed is taken.
_KINDS = {"torch": "torch", "cuda-python": "cuda.bindings"}


def open_device(kind: str | None = None) -> Device:
    """Open the current GPU through PyTorch or cuda-python.

    Parameters
    ----------
    kind : "torch", "cuda-python" or None
        None: PyTorch where it is installed, else cuda-python.

    Raises
    ------
    InputError
        There is no GPU.
    MissingExtra
        The library (or, for None, both) is not installed.
    """
    if kind is not None:
        check_choice("CUDA library", kind, _KINDS)
    candidates = [name for name in _KINDS if kind in (None, name) and _installed(_KINDS[name])]
    if not candidates:
        raise MissingExtra(
            f"{kind or 'PyTorch or cuda-python'} is not installed, which hands memory of the GPU to TensorRT: "
            "pip install 'minddiffuser[torch]', or cuda-python"
        )
    if candidates[0] == "torch":
        return TorchDevice()
    return CudaPythonDevice()


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is not there
        return False
