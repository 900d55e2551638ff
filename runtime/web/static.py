"""A page's own files, read once: nothing that a request names is ever a path."""

from __future__ import annotations

from importlib import resources

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def static_files(package: str) -> dict[str, tuple[bytes, str]]:
    """Content and media type of each file in a package's folder `static`, by its name."""
    found = {file.name: file for file in resources.files(package).joinpath("static").iterdir()}
    kinds = {name: KINDS.get(name[name.rfind(".") :]) for name in found}
    return {name: (found[name].read_bytes(), kind) for name, kind in kinds.items() if kind is not None}
