"""A page for each command line, made from its parser: what ``--help`` says, in the same words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

PROGRAMS = {
    "md-train": "minddiffuser.training.cli",
    "md-reconstruct": "minddiffuser.runtime.cli",
    "md-export": "minddiffuser.export.cli",
    "md-stream": "minddiffuser.streaming.cli",
}


def pages() -> Iterator[tuple[str, str]]:
    """Name and Markdown of each page, and of the one that lists them."""
    for program, module in PROGRAMS.items():
        yield program, page(program, import_module(module).parser())
    listed = "\n".join(PROGRAMS)
    yield "commands", f"# Commands\n\n```{{toctree}}\n:maxdepth: 2\n\n{listed}\n```\n"


def page(program: str, parser: argparse.ArgumentParser) -> str:
    """The page of a program: its commands, each with its arguments."""
    parts = [f"# {program}", _text(parser.description)]
    for name, command in commands(parser).items():
        parts += [f"## {program} {name}", _text(command.description), f"```text\n{_usage(command)}\n```"]
        for group in command._action_groups:
            actions = [action for action in group._group_actions if action.help is not argparse.SUPPRESS]
            if actions:
                title = group.title or ""
                parts += [f"**{title[:1].upper()}{title[1:]}**", *([_text(group.description)])]
                parts += [_entry(command, action) for action in actions]
        parts += [f"```text\n{command.epilog.strip()}\n```"] if command.epilog else []
    return "\n\n".join(part for part in parts if part) + "\n"


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Commands by name, those of a command too ("prepare nsd")."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                below = commands(command)
                found |= {f"{name} {inner}": one for inner, one in below.items()} or {name: command}
    return found


def _usage(command: argparse.ArgumentParser) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", command.format_usage()).removeprefix("usage: ").strip()


def _entry(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = argparse.HelpFormatter(command.prog, width=10_000)
    names = formatter._format_action_invocation(action)
    text = formatter._expand_help(action) if action.help else ""
    return f"`{names}`\n: {_escaped(text) or 'see above'}"


def _text(text: str | None) -> str:
    """A description: paragraphs, and indented lines as they stand."""
    if not text:
        return ""
    blocks = []
    for block in text.strip().split("\n\n"):
        indented = all(line.startswith("  ") for line in block.splitlines() if line)
        blocks.append(f"```text\n{block}\n```" if indented and block.strip() else _escaped(block))
    return "\n\n".join(blocks)


def _escaped(text: str) -> str:
    """No Markdown in it: an asterisk is an asterisk."""
    return re.sub(r"([\\`*_{}\[\]<>#$|])", r"\\\1", " ".join(text.split()))


def _write(app: Any) -> None:
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for name, text in pages():
        target = folder / f"{name}.md"
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Write the pages before they are looked for."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
