"""What the documents say a person can type works, and what they point at is there."""

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


def test_the_readme_runs_as_far_as_its_bundle(readme_story: Any) -> None:
    """Its commands, in order, on a smaller subject."""
    assert readme_story.names == ["simulate", "fit", "run", "bundle", "check", "run", "simulate", "run"]
    folder = readme_story.until("bundle")
    assert (folder / "run" / "report.html").stat().st_size > 10_000
    assert (folder / "bundle" / "manifest.json").is_file()


@pytest.mark.long
def test_the_readme_runs_to_its_end(readme_story: Any) -> None:
    folder = readme_story.until(None)
    for run in ("run2", "drawings_run"):
        assert (folder / run / "report.html").stat().st_size > 10_000


def test_the_readmes_python_runs(
    readme: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = readme.blocks(ROOT / "README.md", "python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    quick = "threads=1, candidates=1, start_steps=2, n_steps=4, strength=0.5, finish_steps=2"
    code = code.replace("reconstruct(candidates=2", f"reconstruct({quick}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "README.md", "exec"), names)
    assert set(names["pictures"].pictures) == {"stage1", "stage2"}
    assert len(list(tmp_path.glob("pictures/stage2/*.png"))) == len(names["pictures"].trials) == 8
    assert names["pictures"].grid().size[0] > 1000
    assert "8/8 images (100 %)" in capsys.readouterr().err


def test_the_parts_underneath_run(readme: ModuleType, readme_story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = readme.blocks(ROOT / "README.md", "python")[1]
    monkeypatch.chdir(readme_story.until("fit"))
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code.replace("backprop_steps=4", "backprop_steps=1, steps=1"), "README.md", "exec"), names)
    assert names["stage1"].shape == names["stage2"].shape == (len(names["responses"]), 3, 64, 64)


def test_the_readme_lists_what_the_tiny_world_knows() -> None:
    from minddiffuser.training.tinyworld.scenes import BACKGROUNDS, COLOURS, CONCEPTS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for kind, words in (("things", CONCEPTS), ("colours", COLOURS), ("places", BACKGROUNDS)):
        assert f"| {len(words)} {kind} | {', '.join(words)} |" in text


def test_the_citation_is_of_this_release() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {project['version']}" in lines
    assert f"license: {project['license']}" in lines
    assert sum(line.startswith("    doi: ") for line in lines) == 1
