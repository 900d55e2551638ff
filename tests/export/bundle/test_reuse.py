"""Graphs from another bundle: those of the same models, layers and libraries, whole, and verified as all others."""

import ast
import json
import shutil
from pathlib import Path

import onnx
import pytest

from minddiffuser.export.bundle import draft, reuse
from minddiffuser.export.bundle.assemble import export_bundle
from minddiffuser.export.bundle.reuse import Reused
from minddiffuser.export.graphs.base import NETWORK_GRAPHS
from minddiffuser.export.settings import ExportSettings
from minddiffuser.runtime.bundle.manifest import sealed
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.errors import FileError

PACKAGE = Path(reuse.__file__).resolve().parents[2]
GRAPHS = ("vae_decode", "decode_latent")


@pytest.fixture
def bundle(traced_bundle: Path) -> Path:
    return traced_bundle


def test_a_graph_that_is_there_is_not_traced_again(
    bundle: Path, small_checkpoint: Path, small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def traced(*_given: object) -> None:
        raise AssertionError("a graph was traced")

    monkeypatch.setattr(draft, "export_network", traced)
    settings = ExportSettings(graphs=GRAPHS, threads=1, graphs_from=bundle)
    said: list[str] = []
    made = export_bundle(small_checkpoint, tmp_path / "again", settings, models=str(small_world), say=said.append)
    assert said == []
    for name in ("engines/vae_decode.fp32.onnx", "engines/weights.bin"):
        assert made.path(name).read_bytes() == (bundle / name).read_bytes()


def test_the_shipped_graphs_were_made_by_the_code_of_today(tiny_bundle: Path) -> None:
    """Or every demonstration and test run traces them anew: python -m minddiffuser.export.demo_files makes others."""
    shipped = json.loads((tiny_bundle.parent / "shipped" / "bundle" / "manifest.json").read_text())
    assert shipped["lineage"][reuse.EXPORTER] == reuse.exporter_code()


@pytest.mark.slow
def test_the_graphs_of_the_readme_are_traced_again_to_the_byte(
    tiny_bundle: Path, fitted_checkpoint: Path, tmp_path: Path
) -> None:
    """It takes those that ship with the package, where they were traced by the code and the libraries of today."""
    settings = ExportSettings(graphs=(*NETWORK_GRAPHS, "decode_latent"), threads=1)
    export_bundle(fitted_checkpoint, tmp_path / "traced", settings, models="tiny")
    for name in NETWORK_GRAPHS:
        taken, traced = (
            onnx.load(folder / "engines" / f"{name}.fp32.onnx") for folder in (tiny_bundle, tmp_path / "traced")
        )
        assert taken == traced, name


def test_a_wrong_graph_is_refused_by_the_gate(
    bundle: Path, small_checkpoint: Path, small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken or traced, every engine is compared with PyTorch."""
    from minddiffuser.export.verify.parity import GateFailure

    def damaged(self: Reused, name: str) -> onnx.ModelProto:
        model = onnx.load(str(bundle / "engines" / f"{name}.fp32.onnx"))
        largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        largest.raw_data = bytes(len(largest.raw_data))
        return model

    monkeypatch.setattr(Reused, "get", damaged)
    with pytest.raises(GateFailure):
        export_bundle(
            small_checkpoint, tmp_path / "again", ExportSettings(graphs=GRAPHS, threads=1), models=str(small_world)
        )
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("other", ["models", "layers", "semantic term", "torch", "code of the exporter"])
def test_a_bundle_of_something_else_gives_nothing(other: str, bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    held = Bundle.open(bundle)
    same = {"models_hash": held.models_hash, "preset": held.preset, "semantic": "semantic" in held.shapes}
    if other in ("torch", "code of the exporter"):
        manifest = json.loads((copy / "manifest.json").read_text())
        if other == "torch":
            manifest["versions"]["torch"] = "1.0"
        else:
            manifest["lineage"].pop("exporter")
        manifest.pop("seal")
        (copy / "manifest.json").write_text(json.dumps(sealed(manifest)))
    said: list[str] = []
    change = {"models": {"models_hash": "0" * 64}, "layers": {"preset": "paper"}}
    change["semantic term"] = {"semantic": not same["semantic"]}
    found = Reused(copy, **{**same, **change.get(other, {})}, say=said.append)
    assert found.get("vae_decode") is None
    assert said == [f"no graphs are reused from {copy}, which was made with different {other}"]
    whole = Reused(bundle, **same, say=said.append)
    assert whole.get("vae_decode") is not None
    assert whole.get("decode_latent") is None
    assert len(said) == 1


def test_graphs_of_older_code_are_traced_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, said = Bundle.open(bundle), list[str]()
    read = reuse.sha256_of
    monkeypatch.setattr(reuse, "sha256_of", lambda p: "0" if p.match("export/graphs/denoise.py") else read(p))
    reuse.exporter_code.cache_clear()
    same = {"models_hash": held.models_hash, "preset": held.preset, "semantic": "semantic" in held.shapes}
    assert Reused(bundle, **same, say=said.append).get("vae_decode") is None
    assert said == [f"no graphs are reused from {bundle}, which was made with different code of the exporter"]
    reuse.exporter_code.cache_clear()


def test_the_exporters_code_is_what_graphs_are_made_with() -> None:
    """Everything that tracing imports, but for what holds no mathematics; decoders' graphs are never taken."""
    known = set(reuse.sources())
    plain = {
        PACKAGE / "runtime" / name
        for name in ("errors.py", "features.py", "fields.py", "files.py", "data/json_types.py")
    }
    seen, left = set[Path](), [PACKAGE / "export" / "graphs" / "base.py", PACKAGE / "export" / "onnx" / "convert.py"]
    left += [(PACKAGE / "export" / "graphs" / f"{name.lstrip('.')}.py") for name in NETWORK_GRAPHS.values()]
    while left:
        path = left.pop()
        if path not in seen | plain:
            assert path in known, path
            seen.add(path)
            left += imported(path)
    assert len(seen) > 20


def imported(path: Path) -> set[Path]:
    """The files of this package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            place = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            found |= {place.with_suffix(".py"), *(place / f"{alias.name}.py" for alias in node.names)}
    return {path for path in found if path.is_file()}


def test_without_a_bundle_there_is_nothing() -> None:
    assert Reused(None, models_hash="", preset="", semantic=False, say=print).get("denoise") is None


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        Reused(tmp_path, models_hash="", preset="", semantic=False, say=print)
