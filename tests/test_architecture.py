"""The drawing of the architecture, kept true: who imports whom, and what an import costs."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {"runtime": set(), "training": {"runtime"}, "export": {"training", "runtime"}, "streaming": {"runtime"}}
HEAVY = ("torch", "diffusers", "transformers", "open_clip", "scipy", "PIL", "onnxruntime", "tensorrt", "sklearn")
MODULES = sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))


@cache
def imports(path: Path) -> list[tuple[str, ...]]:
    """Modules of this project that a file imports, as parts below the root ("runtime", "files").

    Imports inside functions and those for type checkers alone count as any other: both are dependencies.
    """
    found: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.relative_to(ROOT).parts[: -node.level]
            target = (*base, *(node.module.split(".") if node.module else ()))
            found.append(target)
            found += [(*target, alias.name) for alias in node.names]
    return found


def name_of(path: Path) -> tuple[str, ...]:
    """A module's name as parts; a package's is its folder's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def circle_in(graph: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """Modules that lead from one to the next and back to the first; empty where there is no circle."""
    done: set[tuple[str, ...]] = set()

    def visit(name: tuple[str, ...], trail: tuple[tuple[str, ...], ...]) -> list[tuple[str, ...]]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        found = next((circle for target in sorted(graph[name]) if (circle := visit(target, (*trail, name)))), [])
        done.add(name)
        return found

    return next((circle for name in sorted(graph) if (circle := visit(name, ()))), [])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for target in imports(path):
        if target and target[0] != package:
            assert target[0] in ALLOWED[package], f"{package} imports {'.'.join(target)}"


def test_no_absolute_imports_of_ourselves() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            for name in names:
                assert name.split(".")[0] not in {"minddiffuser", *ALLOWED}, f"{path}: {name}"


def test_no_import_circles() -> None:
    files = {name_of(path): path for path in MODULES}
    graph = {name: {t for t in imports(path) if t in files and t != name} for name, path in files.items()}
    circle = circle_in(graph)
    assert not circle, " -> ".join(".".join(part) for part in circle)


def test_no_circles_between_rooms() -> None:
    """A room is a folder of a wing, or a file that stands alone in it."""
    files = {name_of(path) for path in MODULES}
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {name[:2]: set() for name in files}
    for path in MODULES:
        room = name_of(path)[:2]
        graph[room] |= {target[:2] for target in imports(path) if target in files} - {room, room[:1]}
    circle = circle_in(graph)
    assert not circle, " -> ".join(".".join(part) for part in circle)


def test_a_circle_by_an_import_inside_a_function_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.py").write_text("def f():\n    from .two import g\n    return g\n")
    (tmp_path / "two.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import one\ndef g(): ...\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    graph = {name_of(path): set(imports(path)) & {("one",), ("two",)} for path in tmp_path.glob("*.py")}
    assert circle_in(graph) == [("one",), ("two",), ("one",)]


# Imports each module that it is given as a fresh process does, but for what others have made: it forgets all of ours.
IMPORTER = f"""
import importlib, json, sys
for line in sys.stdin:
    for name in [name for name in sys.modules if name.partition(".")[0] == "minddiffuser"]:
        del sys.modules[name]
    importlib.import_module(line.strip())
    print(json.dumps([name for name in {HEAVY} if name in sys.modules]), flush=True)
"""


@pytest.fixture(scope="module")
def importer() -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", IMPORTER], **pipes, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize(
    "module",
    [
        "export.bundle.inspect",
        "export.cli",
        "export.settings",
        "export.tensorrt.build",
        "export.verify.check",
        "export.verify.pictures",
        "runtime",
        "runtime.backends",
        "runtime.backends.bundle",
        "runtime.bundle.graph_specs",
        "runtime.bundle.open",
        "runtime.cli",
        "runtime.decoders.bundle",
        "runtime.decoders.checkpoint",
        "runtime.decoders.network",
        "runtime.decoders.networks.atm",
        "runtime.decoders.networks.brain_module",
        "runtime.decoders.networks.eegnet",
        "runtime.decoders.networks.mlp",
        "runtime.decoders.networks.nice",
        "runtime.decoders.networks.transformer",
        "runtime.demo.full",
        "runtime.demo.packed",
        "runtime.demo.quick",
        "runtime.engines.open",
        "runtime.engines.ort.engine",
        "runtime.generators.engines",
        "runtime.sampling",
        "runtime.metrics.compare",
        "runtime.notebook",
        "runtime.refine.engines",
        "runtime.refine.adam",
        "runtime.refine.guided",
        "runtime.refine.search",
        "runtime.run.budget",
        "runtime.run.execute",
        "streaming.sources.lsl",
    ],
)
def test_what_an_edge_box_imports_is_not_heavy(module: str, importer: subprocess.Popen[str]) -> None:
    assert importer.stdin is not None
    assert importer.stdout is not None
    print(f"minddiffuser.{module}", file=importer.stdin, flush=True)
    assert json.loads(importer.stdout.readline()) == []


def test_no_pickle_and_no_eval_anywhere() -> None:
    for path in (*MODULES, *ROOT.glob("benchmarks/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "dill", "joblib", "marshal"} & set(names), path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "torch.hub.load"}, f"{path}: {called}"
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                if called in {"np.load", "numpy.load"}:
                    assert words.get("allow_pickle") == "False", f"{path}: np.load without allow_pickle=False"
                if called == "torch.load":  # of published weights: tensors and plain containers, no other objects
                    assert words.get("weights_only") == "True", f"{path}: torch.load without weights_only=True"
