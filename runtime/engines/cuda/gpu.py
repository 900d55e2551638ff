"""Which GPU this process would use, as reported by whichever library is installed; none is required."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """The process's current CUDA device.

    Attributes
    ----------
    index : int
        Among the devices that the process sees.
    name : str
        Such as "NVIDIA A100-SXM4-80GB".
    compute_capability : str
        Such as "8.0".
    cuda : str or None
        Version of the CUDA runtime that was asked, such as "13.0".
    """

    index: int
    name: str
    compute_capability: str
    cuda: str | None


def find_gpu(index: int | None = None) -> Gpu | None:
    """A CUDA device, or None: no such GPU, no driver, or neither cuda-python nor PyTorch is installed.

    Parameters
    ----------
    index
        Among the devices that the process sees; None: the current one.
    """
    # PyTorch takes seconds to import: it is asked first only where that is paid already.
    probes = [gpu_of_torch, gpu_of_cuda_python] if "torch" in sys.modules else [gpu_of_cuda_python, gpu_of_torch]
    for probe in probes:
        try:
            return probe() if index is None else probe(index)
        except ImportError:
            continue
    return None


def gpu_of_torch(index: int | None = None) -> Gpu | None:
    """Ask PyTorch. Raises ImportError where it is not installed."""
    import torch

    if not torch.cuda.is_available() or (index is not None and index >= torch.cuda.device_count()):
        return None
    index = torch.cuda.current_device() if index is None else index
    found = torch.cuda.get_device_properties(index)
    return Gpu(index, str(found.name), f"{found.major}.{found.minor}", torch.version.cuda)


def gpu_of_cuda_python(index: int | None = None) -> Gpu | None:
    """Ask cuda-python. Raises ImportError where it is not installed."""
    from cuda.bindings import runtime as cudart

    success = cudart.cudaError_t.cudaSuccess
    error, current = cudart.cudaGetDevice()
    if error != success:  # no driver, or no device
        return None
    index = int(current) if index is None else index
    error, found = cudart.cudaGetDeviceProperties(index)
    if error != success:
        return None
    error, version = cudart.cudaRuntimeGetVersion()
    cuda = f"{version // 1000}.{version % 1000 // 10}" if error == success else None
    name = found.name.decode(errors="replace").rstrip("\0")
    return Gpu(index, name, f"{found.major}.{found.minor}", cuda)


def name_of_gpu(device: str) -> dict[str, str]:
    """``{"gpu": name}`` of a device such as "cuda:0", where one computes: another model gives other last bits."""
    if not device.startswith("cuda"):
        return {}
    _, _, index = device.partition(":")
    found = find_gpu(int(index)) if index.isdecimal() else find_gpu()
    return {} if found is None else {"gpu": found.name}
