"""The device that networks in PyTorch compute on."""

from __future__ import annotations

import torch


def choose_device(name: str) -> str:
    """`name`, or for "auto" the fastest that this machine has."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
