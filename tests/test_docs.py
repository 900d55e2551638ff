"""What the documents say a person can type works, and what they point at is there."""

import contextlib
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOT_OURS = {"build", "runs", *(path.parent.name for path in ROOT.glob("*/pyvenv.cfg"))}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in NOT_OURS for part in path.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_the_documents_parses(page: Path, readme: ModuleType) -> None:
    for program, *arguments in readme.typed(page):
        readme.COMMANDS[program].parser().parse_args(arguments)


def test_the_readme_runs(readme_story: Any, readme: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands and its Python, in order, on a smaller subject."""
    assert readme_story.names == ["simulate", "fit", "run", "bundle", "check", "run", "simulate", "run"]
    folder = readme_story.until(None)
    for run in ("run", "run2", "mine_run"):
        assert (folder / run / "report.html").stat().st_size > 10_000
    (code,) = readme.blocks(ROOT / "README.md", "python")
    code = code.replace("RefineSettings(", "RefineSettings(steps=2, ") + "print(stage1.shape, stage2.shape)"
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as told:
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert told.getvalue().strip().endswith("torch.Size([2, 3, 64, 64]) torch.Size([2, 3, 64, 64])")
