"""The list of packages in pyproject.toml is explicit; a forgotten folder would be missing from the wheel."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = {path.parent.name for path in ROOT.glob("*/pyvenv.cfg")}
NOT_PACKAGED = {"tests", "benchmarks", "docs", "build", "dist", "runs", *ENVIRONMENTS}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_folder_is_listed(project: dict) -> None:
    found = {
        ".".join(("minddiffuser", *path.parent.relative_to(ROOT).parts))
        for path in ROOT.rglob("__init__.py")
        if not (set(path.relative_to(ROOT).parts) & NOT_PACKAGED or path.relative_to(ROOT).parts[0].startswith("."))
    }
    assert found == set(project["tool"]["setuptools"]["packages"])


def modules() -> list[Path]:
    """Every file of the package's code."""
    found = [path for wing in ("runtime", "training", "export") for path in sorted(ROOT.glob(f"{wing}/**/*.py"))]
    assert {path.relative_to(ROOT).parts[0] for path in found} == {"runtime", "training", "export"}
    return [ROOT / "__init__.py", *found]


def test_every_module_lies_in_a_package() -> None:
    for path in modules():
        assert (path.parent / "__init__.py").exists(), path


def test_every_extra_named_in_an_error_message_exists(project: dict) -> None:
    import re

    extras = set(project["project"]["optional-dependencies"])
    named = [
        (path, name)
        for path in modules()
        for names in re.findall(r"minddiffuser\[([^\]{}]+)\]", path.read_text())
        for name in re.split(r"\s*,\s*", names)
    ]
    assert len(named) > 5
    for path, name in named:
        assert name in extras, f"{path} sends the user to an extra that is not there: {name}"


def test_the_demonstrations_files_are_packaged(project: dict) -> None:
    from minddiffuser.runtime.demo.packed import BLOB, INDEX
    from minddiffuser.runtime.demo.quick import SHIPPED

    patterns = project["tool"]["setuptools"]["package-data"]["minddiffuser.runtime"]
    found = {path for pattern in patterns for path in (ROOT / "runtime").glob(pattern)}
    for part in ("", "eeg", "meg"):
        assert {SHIPPED / part / BLOB, SHIPPED / part / INDEX} <= found


def test_shipped_world_stays_small() -> None:
    world = ROOT / "training" / "tinyworld" / "world"
    size = sum(path.stat().st_size for path in world.rglob("*.safetensors"))
    assert 0 < size <= 25_000_000
