"""The drawing of the architecture, kept true: who imports whom, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {"runtime": set(), "training": {"runtime"}, "export": {"training", "runtime"}, "streaming": {"runtime"}}
HEAVY = ("torch", "diffusers", "transformers", "open_clip", "scipy", "PIL", "onnxruntime", "tensorrt", "sklearn")
MODULES = sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))


def imports(path: Path, *, top_level: bool = False) -> list[tuple[str, ...]]:
    """Modules of this project that a file imports, as parts below the root ("runtime", "files")."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    found: list[tuple[str, ...]] = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.relative_to(ROOT).parts[: -node.level]
            target = (*base, *(node.module.split(".") if node.module else ()))
            found.append(target)
            found += [(*target, alias.name) for alias in node.names]
    return found


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
    files = {path.relative_to(ROOT).with_suffix("").parts: path for path in MODULES}
    graph = {
        name: {target for target in imports(path, top_level=True) if target in files and target != name}
        for name, path in files.items()
    }
    done: set[tuple[str, ...]] = set()

    def visit(name: tuple[str, ...], trail: tuple[tuple[str, ...], ...]) -> None:
        assert name not in trail, " -> ".join(".".join(part) for part in (*trail, name))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize(
    "module",
    [
        "export.build",
        "export.check",
        "export.cli",
        "export.inspect",
        "export.settings",
        "runtime",
        "runtime.bundle",
        "runtime.bundle_decode",
        "runtime.cli",
        "runtime.decoders.checkpoint",
        "runtime.decoders.network",
        "runtime.decoders.networks.mlp",
        "runtime.demo",
        "runtime.engines.open",
        "runtime.engines.ort",
        "runtime.generators.engines",
        "runtime.job",
        "runtime.metrics.compare",
        "runtime.networks",
        "runtime.opening",
        "runtime.refine.engines",
        "runtime.refine.loop",
        "runtime.sampling",
    ],
)
def test_what_an_edge_box_imports_is_not_heavy(module: str) -> None:
    code = f"import sys, minddiffuser.{module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_pickle_and_no_eval_anywhere() -> None:
    for path in (*MODULES, *ROOT.glob("benchmarks/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "dill", "joblib", "marshal"} & set(names), path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "torch.load"}, f"{path}: {called}"
                if called in {"np.load", "numpy.load"}:
                    words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    assert words.get("allow_pickle") == "False", f"{path}: np.load without allow_pickle=False"
