"""Engines that were built for the old bundle and still fit the new one are carried over, not built again."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ...runtime.bundle.manifest import MANIFEST, Variant, native_files, sealed
from ...runtime.bundle.open import Bundle, check_files
from ...runtime.engines.here import hashes_of, source_of
from ...runtime.errors import FileError
from ...runtime.files import read_json, write_json


def keep_built(
    old: Bundle, draft: Path, say: Callable[[str], None], *, out: Path, rebuilt: Collection[str] = ()
) -> None:
    """Carry over the built engines whose ONNX graphs are the same, bit for bit; those that are removed are named.

    Parameters
    ----------
    old
        The bundle that is about to be replaced, as its manifest describes it: its files may be damaged.
    draft
        Folder of the new one, whole but for built engines.
    say
        Receives a line on what is kept, and one on what is not.
    out
        Where the new one will lie, for the commands that build what is not kept.
    rebuilt
        Targets whose engines are built for the new one anyway.
    """
    new = Bundle.open(draft, verify=False)
    built = [v for v in old.variants if v.target != "onnx"]
    kept = [variant for variant in built if _fits(new, variant) and _is_whole(old, variant)]
    if kept:
        _add(old, new, kept)
        say(f"kept the engines whose graphs are the same: {_names(kept)}")
    gone = [variant for variant in built if variant not in kept and variant.target not in rebuilt]
    if gone:
        targets = sorted({v.target for v in gone})
        commands = ", and ".join(f"md-export build {shlex.quote(str(out))} --target {target}" for target in targets)
        say(
            f"these engines are removed, because their graphs changed or they are damaged: {_names(gone)}; build "
            f"those that are still wanted with {commands}"
        )


def _names(variants: list[Variant]) -> str:
    return ", ".join(f"{v.graph} {v.target} {v.precision}" for v in variants)


def _fits(new: Bundle, variant: Variant) -> bool:
    onnx = source_of(new, variant) if variant.graph in new.graphs else None
    return onnx is not None and variant.builder.get("graph") == hashes_of(new, onnx)


def _is_whole(old: Bundle, variant: Variant) -> bool:
    files = {name: old.files[name] for name in native_files(variant, old.folder, old.files) if name in old.files}
    try:
        check_files(old.folder, files, hashes=True)
    except FileError:
        return False
    return bool(files)


def _add(old: Bundle, new: Bundle, kept: list[Variant]) -> None:
    before, content = old.manifest, read_json(new.folder / MANIFEST, "the new bundle's manifest")
    for variant in kept:
        for name in native_files(variant, old.folder, old.files):
            _copy(old.folder / name, new.folder / name)
            content["files"][name] = before["files"][name]
        content["graphs"][variant.graph]["variants"].append(_entry(before, variant))
    content["files"] = dict(sorted(content["files"].items()))
    write_json(new.folder / MANIFEST, sealed(content))


def _entry(manifest: dict[str, Any], variant: Variant) -> dict[str, Any]:
    wanted = (variant.target, variant.precision, variant.file.name)
    entries: list[dict[str, Any]] = manifest["graphs"][variant.graph]["variants"]
    return next(e for e in entries if (e["target"], e["precision"], Path(e["file"]).name) == wanted)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)  # a plan has gigabytes, and nothing writes to it again
    except OSError:
        shutil.copyfile(source, target)
