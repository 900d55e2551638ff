"""The page's files fit together, without a browser: what is imported, looked up and said in the documents is there."""

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STATIC = ROOT / "streaming" / "dashboard" / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))


def test_every_file_is_packaged_and_served() -> None:
    from minddiffuser.runtime.web.static import KINDS as SERVED

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["minddiffuser.streaming.dashboard"]
    for path in STATIC.iterdir():
        assert any(fnmatch.fnmatch(f"static/{path.name}", pattern) for pattern in patterns), path
        assert path.suffix in SERVED, path


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_a_script_imports_and_looks_up_is_there(path: Path) -> None:
    text, page = path.read_text(encoding="utf-8"), (STATIC / "index.html").read_text(encoding="utf-8")
    for imported, file in re.findall(r'import \{([^}]*)\} from "\./([\w.]+)"', text):
        exported = set(re.findall(r"export (?:async )?(?:function|const) (\w+)", (STATIC / file).read_text()))
        assert {name.strip() for name in imported.split(",")} <= exported
    for name in re.findall(r'find\("([\w-]+)"\)', text):
        assert f'id="{name}"' in page, name


def test_every_kind_of_message_is_shown() -> None:
    from minddiffuser.streaming.dashboard.messages import MESSAGES

    scripts = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    for kind in MESSAGES:
        assert re.search(rf"^    {kind.kind}\(message\)", scripts, re.MULTILINE), kind.kind


def test_every_state_fault_and_level_has_its_sign() -> None:
    from minddiffuser.streaming.dashboard.messages import LEVELS, STATES
    from minddiffuser.streaming.dashboard.quality import FAULTS

    status, channels = ((STATIC / name).read_text(encoding="utf-8") for name in ("status.js", "channels.js"))
    for state in STATES:
        assert re.search(rf'\b{state}: "|"{state}": "', status), state
    for level in LEVELS:
        assert re.search(rf"\b{level}: \[", status), level
    for fault in FAULTS:
        assert len(re.findall(rf"\b{fault}: ", channels)) == 2, fault


def test_the_keys_in_the_documents_are_those_of_the_page() -> None:
    actions = (STATIC / "app.js").read_text(encoding="utf-8").split("const ACTIONS = {")[1].split("};")[0]
    keys = {quoted or bare for quoted, bare in re.findall(r'^  (?:"([^"]+)"|(\w+)):', actions, re.MULTILINE)}
    names = {"ArrowLeft": "←", "ArrowRight": "→", "-": "−", "=": "+"}
    table = (ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8").split("| key |")[1].split("\n\n")[0]
    assert {names.get(key, key) for key in keys} == set(re.findall(r"`([^`]+)`", table))
