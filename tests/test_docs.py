"""What the documents say a person can type works, and what they point at is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in {"build", "runs"} for part in path.relative_to(ROOT).parts)
)
COMMANDS = {
    "md-train": "minddiffuser.training.cli",
    "md-export": "minddiffuser.export.cli",
    "md-reconstruct": "minddiffuser.runtime.cli",
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def typed(page: Path) -> list[list[str]]:
    lines = [line.split("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.split(" ")[0] in COMMANDS]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_the_documents_parses(page: Path) -> None:
    from minddiffuser.export.cli import parser as export
    from minddiffuser.runtime.cli import parser as reconstruct
    from minddiffuser.training.cli import parser as train

    for program, *arguments in typed(page):
        {"md-train": train, "md-export": export, "md-reconstruct": reconstruct}[program]().parse_args(arguments)


@pytest.mark.timeout(1200)
def test_the_readme_runs(tmp_path: Path) -> None:
    """Its commands and its Python, in order, on a smaller subject."""
    smaller = {
        "simulate": ["--n-train", "60", "--n-test", "2"],
        "fit": ["--n-structure", "20", "--n-selection", "20", "--percent", "5", "--threads", "1"],
        "run": ["--steps", "2", "--threads", "1"],
        "bundle": ["--verify-trials", "1", "--threads", "1"],
        "check": ["--threads", "1"],
    }
    commands = typed(ROOT / "README.md")
    assert [command[1] for command in commands] == ["simulate", "fit", "run", "bundle", "check", "run"]
    for program, *arguments in commands:
        line = [sys.executable, "-m", COMMANDS[program], *arguments, *smaller[arguments[0]]]
        subprocess.run(line, cwd=tmp_path, check=True, capture_output=True, text=True)
    for run in ("run", "run2"):
        assert (tmp_path / run / "report.html").stat().st_size > 10_000
    (code,) = blocks(ROOT / "README.md", "python")
    code = code.replace("RefineSettings(", "RefineSettings(steps=2, ") + "print(stage1.shape, stage2.shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.strip().endswith("torch.Size([2, 3, 64, 64]) torch.Size([2, 3, 64, 64])")
