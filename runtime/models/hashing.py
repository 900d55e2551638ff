"""One name for exactly these weights and configs: what is fitted for them refuses to run on others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..files import sha256_of


def hash_files(files: Mapping[str, Path | bytes]) -> str:
    """SHA-256 over the sorted (relative name, SHA-256 of the content) pairs.

    Parameters
    ----------
    files
        Relative name in the model folder -> the file, or its content when it does not come from a file (a CLIP
        architecture that open_clip knows by name). Where the folder lies does not matter, what it holds does.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    total = hashlib.sha256()
    for name in sorted(files):
        content = files[name]
        digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_of(content)
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()
