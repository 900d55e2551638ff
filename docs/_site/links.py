"""Links out of this folder, which work in the repository: on the site they lead to the page that shows the file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Files outside this folder, and the page that shows each.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "training/tinyworld/world/README.md": "tiny_world.md",
}
_LINK = re.compile(r"\]\((?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def _rewrite(app: Any, docname: str, source: list[str]) -> None:
    folder = Path(app.srcdir, docname).parent

    def replaced(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / match["path"]))
        page = PAGES.get(str(target.relative_to(ROOT))) if target.is_relative_to(ROOT) else None
        if page is None:
            return match[0]
        return f"]({os.path.relpath(Path(app.srcdir, page), folder)}{match['anchor'] or ''})"

    source[0] = _LINK.sub(replaced, source[0])


def setup(app: Any) -> dict[str, Any]:
    """Rewrite each page before it is read."""
    app.connect("source-read", _rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
