"""Engines added to a bundle: real ones of TensorRT-RTX, whose builder needs no GPU."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.export.bundle.assemble import export_bundle
from minddiffuser.export.bundle.describe import list_files
from minddiffuser.export.bundle.keeping import keep_built
from minddiffuser.export.graphs import NETWORK_GRAPHS
from minddiffuser.export.settings import ExportSettings
from minddiffuser.export.tensorrt import build
from minddiffuser.export.tensorrt import plan as to_trt
from minddiffuser.export.tensorrt.build import build_engines
from minddiffuser.export.tensorrt.settings import TrtSettings
from minddiffuser.runtime.bundle.manifest import Variant, native_files
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.engines.cuda import gpu as cuda_gpu
from minddiffuser.runtime.engines.cuda.gpu import Gpu
from minddiffuser.runtime.engines.here import Machine
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings, choose_backend
from minddiffuser.runtime.engines.ort.engine import OrtSettings
from minddiffuser.runtime.engines.tensorrt.identity import check_plan, this_machine
from minddiffuser.runtime.engines.tensorrt.library import messages_of
from minddiffuser.runtime.engines.trust import Trust, read_trusted, trust_plans
from minddiffuser.runtime.errors import FileError, InputError, MindDiffuserError
from minddiffuser.runtime.locks import beside, locked

trt = pytest.importorskip("tensorrt_rtx")

RTX = TrtSettings(target="tensorrt-rtx", optimization_level=0, profile={"batch": (1, 2, 4)})
CARD = Gpu(0, "NVIDIA GeForce RTX 4090", "8.9", "13.0")
DECODERS = ["decode_context", "decode_structure"]
Command = Callable[..., tuple[int, list[str], list[str]]]
Edit = Callable[..., None]
KILLED = """
import sys
from pathlib import Path
from minddiffuser.export.bundle.assemble import export_bundle
from minddiffuser.export.tensorrt.build import build_engines
from minddiffuser.export.tensorrt.settings import TrtSettings

def hang(label, done, total):
    if done == 1 and label.startswith("building tensorrt"):
        print("half way", flush=True)
        sys.stdin.read()  # until it is killed, or the test is

graphs = ["decode_context", "decode_structure"]
build_engines(Path(sys.argv[1]), "tensorrt-rtx", TrtSettings(target="tensorrt-rtx"), graphs=graphs, progress=hang)
"""


def plans(folder: Path) -> list[Path]:
    return sorted((folder / "engines" / "tensorrt-rtx").glob("*"))


def plan_of(bundle: Bundle, graph: str, precision: str = "fp32") -> Variant:
    (found,) = [v for v in bundle.graphs[graph].variants if (v.target, v.precision) == ("tensorrt-rtx", precision)]
    return found


def is_a_plan(path: Path) -> bool:
    """TensorRT-RTX's own opinion of a file's header; without a GPU it cannot say more."""
    _, diagnostics = trt.Runtime(messages_of(trt)).get_engine_validity(path.read_bytes())
    return not diagnostics & trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE.value


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_gpu, "find_gpu", lambda: None)
    monkeypatch.setattr(to_trt, "find_gpu", lambda: None)


@pytest.fixture
def built(copied: Path, no_gpu: None) -> Bundle:
    return build_engines(copied, "tensorrt-rtx", RTX, graphs=DECODERS)


def test_every_network_is_taken_by_the_parser(tiny_bundle: Path) -> None:
    """Both gradients among them."""
    logger = messages_of(trt)
    for graph in NETWORK_GRAPHS:
        builder = trt.Builder(logger)
        network = builder.create_network()
        parser = trt.OnnxParser(network, logger)
        path = tiny_bundle / "engines" / f"{graph}.fp32.onnx"
        assert parser.parse_from_file(str(path)), [str(parser.get_error(n)) for n in range(parser.num_errors)]
        assert network.num_outputs == len(Bundle.open(tiny_bundle).graphs[graph].outputs)


@pytest.mark.parametrize(
    "networks",
    [("vae_decode",), pytest.param(tuple(NETWORK_GRAPHS), marks=pytest.mark.slow)],
    ids=["one", "all"],
)
def test_networks_of_the_tiny_world_are_built_here(
    networks: tuple[str, ...], tiny_bundle: Path, tmp_path: Path, command: Command, no_gpu: None, reseal: Edit
) -> None:
    """Every network that a bundle holds. What cannot be run without a GPU is never chosen, and said."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    left_out = set(NETWORK_GRAPHS) - set(networks)
    reseal(folder, lambda content: [content["graphs"].pop(name) for name in left_out])
    code, out, err = command(
        "build", folder, "--target", "tensorrt-rtx", "--optimization-level", "0", "--batch", *"124"
    )
    assert (code, out) == (0, [str(folder)])
    assert not any("Traceback" in line for line in err)
    bundle = Bundle.open(folder)
    for graph in networks:
        plan = plan_of(bundle, graph)
        assert is_a_plan(plan.file)
        assert plan.batch_sizes == (1, 2, 4)
        assert plan.builder["library"] == trt.__version__
        assert plan.builder["options"]["optimization_level"] == 0
        assert set(plan.builder["profile"]["inputs"]) == set(bundle.graphs[graph].inputs)
        graph_file = next(v for v in bundle.graphs[graph].variants if v.target == "onnx")
        relative = graph_file.file.relative_to(folder).as_posix()
        assert plan.builder["graph"]["sha256"] == bundle.files[relative].sha256
    assert len(plans(folder)) == len(networks)
    assert not any(v.target == "tensorrt-rtx" for v in bundle.graphs["decode_context"].variants)
    with pytest.raises(
        InputError, match="the backend 'tensorrt-rtx' does not run here: no NVIDIA GPU was found"
    ) as error:
        choose_backend(bundle, "tensorrt-rtx", Machine(gpu=lambda: None))
    assert "\n" not in str(error.value)
    chosen = choose_backend(bundle, "auto", Machine(gpu=lambda: None))
    assert chosen.backend == "ort"
    assert "tensorrt-rtx: no NVIDIA GPU was found" in chosen.reason
    trusting = Machine(Trust(everything=True), lambda: CARD)
    assert choose_backend(bundle, "auto", trusting).backend == "tensorrt-rtx"
    untrusted = choose_backend(bundle, "auto", Machine(gpu=lambda: CARD))
    assert untrusted.backend != "tensorrt-rtx"
    assert "is not trusted: if you trust who made it, md-export trust bundle" in untrusted.reason
    with EngineSet(bundle, EngineSettings(threads=1)) as engines:  # the machine's own choice, whatever it is
        engine = engines[networks[-1]]
        shapes = {name: [n if isinstance(n, int) else 1 for n in spec.shape] for name, spec in engine.inputs.items()}
        made = engine.run({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    assert {name: array.shape[1:] for name, array in made.items()} == {
        name: tuple(spec.shape[1:]) for name, spec in engine.outputs.items()
    }


def test_a_plan_is_listed_with_its_identity(built: Bundle) -> None:
    for graph in DECODERS:
        plan = plan_of(built, graph)
        assert is_a_plan(plan.file)
        assert plan.batch_sizes == (1, 2, 4)
        assert plan.parity["verified"] == "the graph that it was built from"
        identity = plan.builder
        assert (identity["target"], identity["library"]) == ("tensorrt-rtx", trt.__version__)
        assert (identity["gpu"], identity["compute_capability"]) == (None, None)
        onnx_file = f"engines/{graph}.fp32.onnx"
        assert identity["graph"]["sha256"] == built.files[onnx_file].sha256
        assert identity["graph"]["data"] == {"weights.bin": built.files["engines/weights.bin"].sha256}
    assert set(list_files(built.folder)) == set(built.files)


def test_building_again_replaces_the_plans(built: Bundle, no_gpu: None) -> None:
    other = TrtSettings(target="tensorrt-rtx", optimization_level=0, profile={"batch": (1, 1, 8)})
    before = {path.name for path in plans(built.folder)}
    again = build_engines(built.folder, "tensorrt-rtx", other, graphs=DECODERS[:1])
    assert plan_of(again, "decode_context").batch_sizes == (1, 8)
    assert plan_of(again, "decode_structure").batch_sizes == (1, 2, 4)
    after = {path.name for path in plans(built.folder)}
    assert len(before) == len(after) == 2
    assert len(before & after) == 1
    assert set(list_files(built.folder)) == set(again.files)


def test_progress_names_the_graph(copied: Path, no_gpu: None) -> None:
    seen: list[tuple[str, int, int]] = []
    build_engines(copied, "tensorrt-rtx", RTX, graphs=DECODERS, progress=lambda *now: seen.append(now))
    whole = [now for now in seen if now[0] == "building tensorrt-rtx engines"]
    assert whole == [("building tensorrt-rtx engines", done, 2) for done in range(3)]
    assert {label for label, _, _ in seen} == {whole[0][0], *(f"building {graph} fp32" for graph in DECODERS)}


def test_a_plan_that_does_not_fit_is_refused_in_one_sentence(
    built: Bundle, reseal: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another library, for another GPU, from another graph or other weights."""
    plan, here = plan_of(built, "decode_context"), this_machine("tensorrt-rtx", CARD)
    graph = plan.builder["graph"]
    assert check_plan(plan.builder, here, graph_sha256=graph["sha256"], data=graph["data"]) is None
    printed = [
        check_plan({**plan.builder, "library": "0.9.9"}, here),
        check_plan(plan.builder, {**here, "compute_capability": "7.5"}),
        check_plan(plan.builder, here, graph_sha256="00" * 32),
        check_plan(plan.builder, here, graph_sha256=graph["sha256"], data={"weights.bin": "00" * 32}),
    ]
    for sentence, words in zip(
        printed, ["0.9.9", "compute capability 7.5", "another version of its ONNX graph", "other weights"], strict=True
    ):
        assert sentence is not None
        assert words in sentence
        assert "md-export build BUNDLE --target tensorrt-rtx" in sentence

    def edit(content: dict[str, Any]) -> None:
        for entry in content["graphs"].values():
            entry["variants"][-1]["builder"]["library"] = "0.9.9"

    reseal(built.folder, edit)
    chosen = choose_backend(Bundle.open(built.folder), "auto", Machine(gpu=lambda: CARD))
    assert chosen.backend.startswith("ort")
    assert f"the plan was built by TensorRT-RTX 0.9.9, this machine has {trt.__version__}" in chosen.reason


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_build_leaves_the_bundle_as_it_was(copied: Path, no_gpu: None) -> None:
    before = {p.relative_to(copied): p.read_bytes() for p in copied.rglob("*") if p.is_file()}
    command = [sys.executable, "-c", KILLED, str(copied)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "half way\n"
            with pytest.raises(FileError, match="another process is working"):
                build_engines(copied, "tensorrt-rtx", RTX, graphs=DECODERS)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    left = plans(copied)
    assert len(left) == 1  # whole, and not in the manifest
    bundle = Bundle.open(copied)
    assert all(v.target == "onnx" for graph in bundle.graphs.values() for v in graph.variants)
    assert {name: (copied / name).read_bytes() for name in before} == before
    (left[0].parent / ".decode_context.fp32.1.draft").write_bytes(b"half a plan")
    finished = build_engines(copied, "tensorrt-rtx", RTX, graphs=DECODERS)
    assert set(plans(copied)) == {plan_of(finished, graph).file for graph in DECODERS}  # and nothing else


def test_a_build_that_fails_leaves_the_bundle_as_it_was(
    built: Bundle, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.relative_to(built.folder): p.read_bytes() for p in built.folder.rglob("*") if p.is_file()}
    real, count = build.build_plan, iter(range(9))

    def second_fails(*given: Any, **named: Any) -> Any:
        if next(count) == 1:
            raise InputError("the parser refuses it")
        return real(*given, **named)

    monkeypatch.setattr(build, "build_plan", second_fails)
    other = TrtSettings(target="tensorrt-rtx", optimization_level=0, profile={"batch": (1, 1, 3)})
    with pytest.raises(InputError, match="the parser refuses it"):
        build_engines(built.folder, "tensorrt-rtx", other, graphs=DECODERS)
    assert {p.relative_to(built.folder): p.read_bytes() for p in before_files(built.folder, before)} == before
    assert Bundle.open(built.folder).hash == built.hash


def before_files(folder: Path, names: Any) -> list[Path]:
    return [folder / name for name in names]


def test_an_engine_that_runs_here_and_is_wrong_is_taken_back(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU, where the runner's numbers come from somewhere else here."""
    manifest = (copied / "manifest.json").read_bytes()
    monkeypatch.setattr(build, "backend_for", lambda *_: ("tensorrt-rtx", None))
    real = build.running

    @contextmanager
    def running(bundle: Bundle, variant: Variant, *_given: Any) -> Iterator[Any]:
        plain = next(v for v in bundle.graphs[variant.graph].variants if v.target == "onnx")
        wrong = 1.01 if variant.graph == "decode_structure" and biased else 1.0
        with real(bundle, plain, "ort", 1) as run:
            yield lambda feeds: {name: wrong * array for name, array in run(feeds).items()}

    monkeypatch.setattr(build, "running", running)
    biased = True
    words = r"decode_structure \(tensorrt-rtx\) in fp32 is not exported: structure is off by"
    with pytest.raises(MindDiffuserError, match=words):
        build_engines(copied, "tensorrt-rtx", RTX, graphs=DECODERS)
    assert (copied / "manifest.json").read_bytes() == manifest
    biased = False
    bundle = build_engines(copied, "tensorrt-rtx", RTX, graphs=DECODERS)
    printed = plan_of(bundle, "decode_structure").parity
    assert printed["verified"] == "run"
    assert printed["inputs"]["decoded"]["structure"]["worst"] < 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"graphs": ["denoise"]}, "lacks the graph denoise: export it with them"),
        ({"graphs": ["decode_context"], "precisions": ["fp16"]}, "holds no graph to build from in fp16 .it has fp32."),
        ({}, "holds no graph to build from in fp32 .it has none."),  # only decoders, which the CPU runs
    ],
)
def test_what_is_not_there_cannot_be_built(copied: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(MindDiffuserError, match=words) as error:
        build_engines(copied, "tensorrt-rtx", RTX, **options)
    assert "\n" not in str(error.value)
    assert not (copied / "engines" / "tensorrt-rtx").exists()


def test_int8_graphs_are_not_built_from(copied: Path, reseal: Edit, no_gpu: None) -> None:
    """They are quantised for the CPU."""

    def edit(content: dict[str, Any]) -> None:
        variants = content["graphs"]["decode_context"]["variants"]
        variants.append({**variants[0], "precision": "int8"})

    reseal(copied, edit)
    bundle = build_engines(copied, "tensorrt-rtx", RTX, graphs=["decode_context"])
    assert [(v.target, v.precision) for v in bundle.graphs["decode_context"].variants] == [
        ("onnx", "fp32"),
        ("onnx", "int8"),
        ("tensorrt-rtx", "fp32"),
    ]


class FakeOrt:
    """ONNX Runtime with its TensorRT provider: keeps an engine in its cache, named as the real one names it."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str, tuple[int, ...]]] = []
        self.found: list[list[str]] = []

    def __call__(
        self, graph: str, path: Path, inputs: Any, outputs: Any, settings: OrtSettings, *, precision: str
    ) -> Any:
        cache = settings.cache
        assert (settings.provider, settings.profile) == ("tensorrt", (1, 2, 8))
        assert cache is not None
        self.found.append(sorted(path.name for path in cache.iterdir()))

        class Session:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None: ...

            @staticmethod
            def run(feeds: Any) -> None:
                self.ran.append((graph, precision, feeds["responses"].shape))
                (cache / f"{graph}.{precision}_123_sm89.engine").write_bytes(f"code of {graph}".encode())

        return Session()


@pytest.fixture
def ort_tensorrt(monkeypatch: pytest.MonkeyPatch) -> FakeOrt:
    fake = FakeOrt()
    monkeypatch.setattr(build, "open_ort", fake)
    monkeypatch.setattr(build, "why_no_provider", lambda _backend: None)
    monkeypatch.setattr(cuda_gpu, "find_gpu", lambda: None)
    return fake


def test_onnx_runtimes_tensorrt_is_run_once_for_a_range_of_batches(
    copied: Path, tmp_path: Path, ort_tensorrt: FakeOrt
) -> None:
    """What it keeps is part of the bundle, hashes and all, in a folder for each graph and precision."""
    strangers = copied / "engines" / "ort-tensorrt" / "decode_context.fp32_123_sm89.engine"
    strangers.parent.mkdir()
    strangers.write_bytes(b"a stranger's code")
    trusted = tmp_path / "trusted_plans.json"
    bundle = build_engines(copied, "ort-tensorrt", (1, 2, 8), graphs=DECODERS, trust_list=trusted)
    assert ort_tensorrt.ran == [(graph, "fp32", (2, 24)) for graph in DECODERS]
    assert ort_tensorrt.found == [[], []]  # nothing that it might load
    hashes = set()
    for graph in DECODERS:
        plain, added = bundle.graphs[graph].variants
        assert (added.target, added.file, added.data) == ("ort-tensorrt", plain.file, plain.data)
        assert (added.batch_sizes, added.builder["profile"]) == ((1, 2, 8), {"batch": [1, 2, 8]})
        (name,) = native_files(added, bundle.folder, bundle.files)
        assert (bundle.folder / name).read_bytes() == f"code of {graph}".encode()
        hashes.add(bundle.files[name].sha256)
    assert set(read_trusted(trusted)) == hashes
    (copied / name).write_bytes(b"tampered")
    with pytest.raises(FileError, match="fp32_123_sm89.engine"):
        Bundle.open(copied)


def test_two_builds_do_not_meet(copied: Path) -> None:
    with locked(beside(copied), copied), pytest.raises(FileError, match="another process is working"):
        build_engines(copied, "tensorrt-rtx", RTX, graphs=DECODERS)


def test_what_is_built_here_is_trusted_here_and_nothing_else(copied: Path, tmp_path: Path, no_gpu: None) -> None:
    trusted = tmp_path / "config" / "trusted_plans.json"
    trust_plans(trusted, {"0" * 64: "of another bundle"})
    bundle = build_engines(copied, "tensorrt-rtx", RTX, graphs=["decode_context"], trust_list=trusted)
    (name,) = native_files(plan_of(bundle, "decode_context"), bundle.folder, bundle.files)
    assert set(read_trusted(trusted)) == {"0" * 64, bundle.files[name].sha256}
    machine = Machine(Trust(file=trusted), lambda: CARD)
    assert choose_backend(bundle, "auto", machine, graphs=["decode_context"]).backend == "tensorrt-rtx"


def test_a_damaged_list_of_trusted_plans_is_said_before_anything_is_built(copied: Path, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted_plans.json"
    trusted.write_text("{")
    with pytest.raises(FileError, match="the list of trusted plans at"):
        build_engines(copied, "tensorrt-rtx", RTX, graphs=DECODERS, trust_list=trusted)
    assert not (copied / "engines" / "tensorrt-rtx").exists()


@pytest.mark.parametrize("damage", ["changed", "cut off", "gone", "a link"])
def test_a_damaged_plan_is_built_again(built: Bundle, tmp_path: Path, damage: str) -> None:
    """And said so; one that is not built again is taken out, so that the bundle opens."""
    said: list[str] = []
    for graph in DECODERS:
        path = plan_of(built, graph).file
        data = path.read_bytes()
        path.unlink()
        if damage == "a link":
            (tmp_path / path.name).write_bytes(data)
            path.symlink_to(tmp_path / path.name)
        elif damage != "gone":
            path.write_bytes(data[:-9] + (b"x" * 9 if damage == "changed" else b""))
    with pytest.raises(FileError):
        Bundle.open(built.folder)
    bundle = build_engines(built.folder, "tensorrt-rtx", RTX, graphs=DECODERS[:1], say=said.append)
    assert [v.target for v in bundle.graphs[DECODERS[0]].variants] == ["onnx", "tensorrt-rtx"]
    assert [v.target for v in bundle.graphs[DECODERS[1]].variants] == ["onnx"]
    assert [line.partition(":")[0] for line in said] == ["it is built again", "it is removed from the bundle"]
    assert all("decode_" in line for line in said)
    assert is_a_plan(plan_of(bundle, DECODERS[0]).file)


def test_a_plan_of_someones_in_the_bundle_is_not_tidied_away(copied: Path, no_gpu: None) -> None:
    mine = copied / "engines" / "tensorrt-rtx" / "mine.plan"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    build_engines(copied, "tensorrt-rtx", RTX, graphs=["decode_context"])
    assert mine.read_bytes() == b"mine"


def test_plans_of_unchanged_graphs_survive_an_export(built: Bundle, small_checkpoint: Path, small_world: Path) -> None:
    """Bit for bit; those whose graphs are gone, or other ones now, are named."""
    said: list[str] = []
    old = {graph: plan_of(built, graph).file.read_bytes() for graph in DECODERS}
    again = ExportSettings(graphs=("decode_context", "decode_latent"), n_verify=2, threads=1)

    def export(settings: ExportSettings) -> Bundle:
        return export_bundle(
            small_checkpoint, built.folder, settings, models=str(small_world), force=True, say=said.append
        )

    with pytest.raises(FileError, match=r"with engines built for tensorrt-rtx \(kept where their graphs stay the same"):
        export_bundle(small_checkpoint, built.folder, again, models=str(small_world))
    weights = (built.folder / "engines" / "weights.bin").exists()
    bundle = export(ExportSettings(graphs=tuple(DECODERS), n_verify=2, threads=1))
    assert {graph: plan_of(bundle, graph).file.read_bytes() for graph in DECODERS} == old
    assert said == [
        f"kept the engines whose graphs are the same: {', '.join(f'{g} tensorrt-rtx fp32' for g in DECODERS)}"
    ]
    said.clear()
    plan_of(bundle, "decode_structure").file.write_bytes(b"x" * len(old["decode_structure"]))  # the size alone fits
    bundle = export(again)
    kept = [(v.graph, v.target) for g in bundle.graphs.values() for v in g.variants if v.target != "onnx"]
    assert kept == ([] if weights else [("decode_context", "tensorrt-rtx")])
    assert "these engines are removed" in said[-1]
    assert "decode_structure tensorrt-rtx fp32; build those" in said[-1]
    assert said[-1].endswith(f"wanted with md-export build {built.folder} --target tensorrt-rtx")


@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_plans_that_go_are_named_unless_they_are_built_anyway(built: Bundle, damage: str) -> None:
    draft = Path(shutil.copytree(built.folder, built.folder.parent / "draft"))
    old = Bundle.open(built.folder)
    for graph in DECODERS:
        path = plan_of(built, graph).file
        path.unlink() if damage == "gone" else path.write_bytes(b"x")
    said: list[str] = []
    keep_built(old, draft, said.append, out=built.folder, rebuilt=["tensorrt-rtx"])
    assert said == []
    keep_built(old, draft, said.append, out=built.folder)
    (line,) = said
    assert all(f"{graph} tensorrt-rtx fp32" in line for graph in DECODERS)


def test_a_file_of_someones_beside_engines_is_kept(copied: Path, ort_tensorrt: FakeOrt) -> None:
    """In a folder that a build names itself: its own files go, what it did not write stays."""
    cache = copied / "engines" / "ort-tensorrt" / "decode_context.fp32.0123456789ab"
    cache.mkdir(parents=True)
    for name in ("a.engine", "notes.txt"):
        (cache / name).write_text("mine")
    build_engines(copied, "ort-tensorrt", (1, 2, 8), graphs=["decode_context"])
    assert [path.name for path in cache.iterdir()] == ["notes.txt"]
    (cache / "notes.txt").unlink()
    build_engines(copied, "ort-tensorrt", (1, 2, 8), graphs=["decode_context"])
    assert not cache.exists()


def test_a_bundle_is_read_once_it_is_locked(copied: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another build adds until then is not lost."""
    real = build.locked

    @contextmanager
    def late(*given: Any, **named: Any) -> Iterator[None]:
        monkeypatch.setattr(build, "locked", real)
        build_engines(copied, "tensorrt-rtx", RTX, graphs=["decode_structure"])
        with real(*given, **named):
            yield

    monkeypatch.setattr(build, "locked", late)
    bundle = build_engines(copied, "tensorrt-rtx", RTX, graphs=["decode_context"])
    assert {graph for graph in DECODERS if plan_of(bundle, graph)} == set(DECODERS)
    assert (copied.parent / ".bundle.lock").exists()  # taken away, it could have two holders


def test_a_bundle_that_cannot_be_written_is_one_sentence(
    copied: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.mkdir

    def mkdir(path: Path, *given: Any, **named: Any) -> None:
        if path.name == "tensorrt-rtx":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        real(path, *given, **named)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(FileError, match="bundle cannot be written .Permission denied.: change its permissions or"):
        build_engines(copied, "tensorrt-rtx", RTX, graphs=DECODERS)
