"""Where a network is trained, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...runtime.errors import InputError

if TYPE_CHECKING:
    import torch

_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Hardware:
    """The device, and what the network computes in there: "float32", "bf16" or "fp16"."""

    device: torch.device
    precision: str

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def autocast(self) -> Any:
        """The context of a forward pass."""
        import torch

        mixed = self.precision in _DTYPES
        dtype = getattr(torch, _DTYPES.get(self.precision, "bfloat16"))
        return torch.autocast(self.device.type, dtype=dtype, enabled=mixed)

    def scaler(self) -> Any:
        """What keeps small gradients of fp16 from becoming 0; of other precisions it does nothing."""
        import torch

        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Random numbers from `seed`, and kernels that give the same again; what was before comes back."""
        import torch

        devices = [self.device] if self.is_cuda else []
        with (
            torch.random.fork_rng(devices=devices),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            torch.manual_seed(seed)
            yield


def open_hardware(device: str, precision: str) -> Hardware:
    """The hardware by its name, "auto", "cpu", "cuda" or "cuda:1".

    "auto" is a CUDA GPU where there is one. Networks are small beside the models: on anything else, such as "mps", they
    are trained on the CPU.

    Raises
    ------
    InputError
        The machine has no such GPU.
    """
    import torch

    if not (device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())):
        return Hardware(torch.device("cpu"), "float32")
    try:
        place = torch.device("cuda" if device == "auto" else device)
    except RuntimeError as error:
        raise InputError(f"device {device!r:.40} is unknown: give auto, cpu, cuda or cuda:1") from error
    n_found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = place.index or 0
    if index >= n_found:
        raise InputError(
            f"device {device!r:.40} was asked for, and PyTorch finds {n_found} CUDA GPUs: give --device cpu"
        )
    place = torch.device("cuda", index)
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return Hardware(place, precision)
