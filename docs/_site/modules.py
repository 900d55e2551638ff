"""A page for each package with every public function and class of its modules, made from their docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "training", "export", "streaming")


def pages() -> Iterator[tuple[str, str]]:
    """Name and reStructuredText of each page, and of the one that lists them."""
    names = []
    for package in PACKAGES:
        for folder in sorted({path.parent for path in (ROOT / package).rglob("*.py")}):
            modules = [path for path in sorted(folder.glob("*.py")) if has_public(path)]
            if modules:
                names.append(".".join(folder.relative_to(ROOT).parts))
                yield f"minddiffuser.{names[-1]}", _page(names[-1], modules)
    listed = "\n".join(f"   minddiffuser.{name}" for name in names)
    yield "functions", _title("Functions and classes") + _NOTEBOOK + f".. toctree::\n   :maxdepth: 1\n\n{listed}\n"


_NOTEBOOK = """
What a notebook needs is in the package itself:

.. automodule:: minddiffuser
   :members: open, demo, reconstruct, Opened, Reconstructed
   :no-index:

Everything below is public where its name does not begin with an underscore; before 1.0 it may change with a release.

"""


def has_public(path: Path) -> bool:
    """Whether a module defines a public function, class or constant with a docstring of its own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") for node in tree.body)


def _page(name: str, modules: list[Path]) -> str:
    parts = [_title(f"minddiffuser.{name}")]
    for path in modules:
        module = ".".join(("minddiffuser", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        short = module.removeprefix(f"minddiffuser.{name}").removeprefix(".") or "the package itself"
        parts.append(f"{short}\n{'-' * len(short)}\n\n.. automodule:: {module}\n   :members:\n")
    return "\n".join(parts)


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"


def _write(app: Any) -> None:
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    made = dict(pages())
    for old in folder.glob("*.rst"):
        if old.stem not in made:
            old.unlink()
    for name, text in made.items():
        target = folder / f"{name}.rst"
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Write the pages before they are looked for."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
