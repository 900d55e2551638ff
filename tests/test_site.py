"""The documentation site's parts that are made from the code say what the code says; `make docs` builds the whole."""

import argparse
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("runtime", "training", "export", "streaming")


def part(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"site_{name}", DOCS / "_site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


commands, docstrings, links, modules = (part(name) for name in ("commands", "docstrings", "links", "modules"))


def test_every_page_is_in_the_contents() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = {
        line.strip() for block in re.findall(r"```\{toctree\}(.*?)```", index, re.DOTALL) for line in block.split("\n")
    }
    pages = {
        str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md") if "reference" not in page.parts
    }
    pages |= {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.glob("notebooks/*.ipynb")}
    assert pages - {"index"} <= listed
    assert {"reference/commands", "reference/functions"} <= listed


def options(parser: argparse.ArgumentParser) -> set[str]:
    shown = (action for action in parser._actions if action.help is not argparse.SUPPRESS)
    return {name for action in shown for name in action.option_strings}


@pytest.mark.parametrize("program", commands.PROGRAMS)
def test_the_page_of_a_program_has_all_its_commands_with_all_their_options(program: str, readme: ModuleType) -> None:
    parser = readme.COMMANDS[program].parser()
    parts = re.split(r"^## ", commands.page(program, parser), flags=re.MULTILINE)
    page = {text.partition("\n")[0]: text for text in parts[1:]}
    found = commands.commands(parser)
    assert set(page) == {f"{program} {name}" for name in found}
    for name, command in found.items():
        text = page[f"{program} {name}"]
        for option in options(command):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{name} {option}"
        if command.epilog:
            assert command.epilog.strip() in text


def test_a_help_text_is_no_markdown() -> None:
    parser = argparse.ArgumentParser(prog="p", description="a *b* of [c]")
    command = parser.add_subparsers().add_parser("do", description="x")
    command.add_argument("--so", metavar="N", default=3, help="up to %(default)s_<of> `them`")
    page = commands.page("p", parser)
    assert r"a \*b\* of \[c\]" in page
    assert "`--so N`\n: up to 3\\_\\<of\\> \\`them\\`" in page


def test_the_pages_of_functions_name_every_module_that_has_one() -> None:
    text = "".join(page for _, page in modules.pages())
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(("minddiffuser", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
            assert (f".. automodule:: {name}\n" in text) == modules.has_public(path), name


def test_links_out_of_the_folder_lead_to_the_page_of_that_file() -> None:
    for file, page in links.PAGES.items():
        assert (ROOT / file).is_file()
        assert (DOCS / page).is_file()
    text = [
        "[a](../CHANGELOG.md) [b](signal.md#steps) [c](https://x.org/../CHANGELOG.md) "
        "[d](../training/tinyworld/world/README.md#x)"
    ]

    class App:
        srcdir = str(DOCS)

    links._rewrite(App, "results", text)
    assert text == ["[a](changelog.md) [b](signal.md#steps) [c](https://x.org/../CHANGELOG.md) [d](tiny_world.md#x)"]


def test_the_errors_that_are_explained_are_in_the_code() -> None:
    """Each quoted beginning of an error stands in a string of the source, adjacent strings joined."""
    joined = re.compile(r'"\s*\n\s*f?"')
    source = "".join(
        joined.sub("", p.read_text(encoding="utf-8")) for name in PACKAGES for p in (ROOT / name).rglob("*.py")
    )
    entries = re.findall(r"^(`.*`)\n: ", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(entries) > 15
    for entry in entries:
        for quoted in re.findall(r"`([^`]+)`", entry):
            assert quoted in source, quoted


@pytest.mark.parametrize("path", sorted(DOCS.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_results_and_its_commands_parse(path: Path, readme: ModuleType) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()]
    typed = [shlex.split(line[1:]) for line in lines if line.startswith("!")]
    assert typed
    for program, *arguments in typed:
        readme.COMMANDS[program].parser().parse_args(arguments)
    code = "\n".join(line for line in lines if not line.startswith("!"))
    compile(code, str(path), "exec")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_python_on_a_page_compiles(page: Path, readme: ModuleType) -> None:
    for code in readme.blocks(page, "python"):
        compile(code, page.name, "exec")


def test_docstrings_keep_what_they_look_like() -> None:
    assert (
        docstrings.plain("(n, *shape) by |g|, ``*args`` and **bold**")
        == r"(n, \*shape) by \|g\|, ``*args`` and **bold**"
    )
    aligned = [
        "One line.",
        "",
        "name    what it means",
        "        and more",
        "a_longer_name",
        "        that",
        "",
        "End  of it.",
    ]
    assert docstrings.readable(aligned) == [
        *(
            "One line.",
            "",
            "::",
            "",
            "    name    what it means",
            "            and more",
            "    a_longer_name",
            "            that",
            "",
            "End  of it.",
        )
    ]


def test_references_are_relative_as_imports_are() -> None:
    line = "see :func:`.fit.fit`, :class:`~..runtime.engines.base.Engine` and :mod:`numpy`"
    assert docstrings.whole(line, "minddiffuser.training") == (
        "see :func:`minddiffuser.training.fit.fit`, :class:`~minddiffuser.runtime.engines.base.Engine` and :mod:`numpy`"
    )
    assert docstrings.package_of("function", "x", docstrings.re.compile) == "re"
    assert docstrings.package_of("module", "json.decoder", json.decoder) == "json"
