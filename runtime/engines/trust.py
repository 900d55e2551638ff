"""Which native code of a bundle may run: what was built here or what the user trusts, whatever the bundle claims.

A TensorRT plan, and what ONNX Runtime's TensorRT provider caches, is code for the machine. Whoever made a bundle wrote
its manifest too, so a hash in there says nothing about where the code comes from. The list of trusted plans is a file
of the user's, filled by ``md-export build`` and ``md-export trust``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError
from ..fields import SHA256, Field
from ..files import check_format, read_json, write_json
from ..locks import beside, locked

KIND, VERSION = "trusted-plans", 1


def trust_list(environment: Mapping[str, str], platform: str = sys.platform) -> Path | None:
    """Where this user's list of trusted plans lies, which need not be there yet; None for a user without a home.

    Parameters
    ----------
    environment
        XDG_CONFIG_HOME or HOME, on Windows APPDATA; a path that is not absolute does not count.
    """
    names = (("APPDATA", ""),) if platform == "win32" else (("XDG_CONFIG_HOME", ""), ("HOME", ".config"))
    for name, below in names:
        folder = Path(environment.get(name, ""))
        if folder.is_absolute():
            return folder / below / "minddiffuser" / "trusted_plans.json"
    return None


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What a user trusts.

    Attributes
    ----------
    file : Path or None
        The list; None: nothing is listed.
    everything : bool
        Run any plan of the bundle, as the user said of it by name.
    """

    file: Path | None = None
    everything: bool = False

    def allows(self, hashes: Iterable[str]) -> bool:
        """Whether code with all these SHA-256 may run; of no code at all nothing is known.

        Raises
        ------
        FileError
            The list is damaged.
        """
        wanted = set(hashes)
        return self.everything or (bool(wanted) and wanted <= self.listed().keys())

    def listed(self) -> dict[str, str]:
        """SHA-256 of what is in the list -> what it is; see :func:`read_trusted`."""
        return {} if self.file is None else read_trusted(self.file)


def read_trusted(file: Path) -> dict[str, str]:
    """SHA-256 of what is trusted -> what it is; nothing where there is no list.

    Raises
    ------
    FileError
        The file is damaged, or of another kind.
    """
    if not file.exists():
        return {}
    content = read_json(file, "the list of trusted plans")
    check_format(content, file, KIND, VERSION)
    field = Field(file, "plans", content.get("plans"), "remove the file, and run md-export trust again")
    for plan in field.members(SHA256, 1 << 20, "plans, each by its SHA-256").values():
        if not isinstance(plan.value, str):
            plan.refuse("a text")
    return field.object()


def trust_plans(file: Path | None, plans: Mapping[str, str]) -> int:
    """Add to the list, waiting for another process that is adding to it.

    Parameters
    ----------
    plans
        SHA-256 -> what it is, for people.

    Returns
    -------
    How many were not in it before.

    Raises
    ------
    FileError
        The list cannot be read or written, or the user has no place for one.
    """
    if file is None:
        raise FileError(
            "plans that are trusted are listed in a file of yours, and there is no place for it: set HOME, or "
            "XDG_CONFIG_HOME to a folder (APPDATA on Windows)"
        )
    with locked(beside(file), file, wait=True):
        before = read_trusted(file)
        added = {name: label for name, label in plans.items() if name not in before}
        if added:
            content = {"format": f"minddiffuser-{KIND}", "version": VERSION, "plans": {**before, **added}}
            write_json(file, content)
    return len(added)
