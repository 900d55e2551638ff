"""What runs here: opening, checking and inspecting a bundle say the same, whatever the machine and the bundle."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file

from minddiffuser.export.bundle.inspect import describe
from minddiffuser.export.verify import check
from minddiffuser.export.verify.check import NOT_RUN, check_bundle
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.engines.cuda import gpu as cuda_gpu
from minddiffuser.runtime.engines.cuda.gpu import Gpu
from minddiffuser.runtime.engines.here import BACKENDS, Machine, ort_identity, why_not_backend
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings, choose_backend
from minddiffuser.runtime.engines.tensorrt import identity as trt_identity
from minddiffuser.runtime.engines.trust import Trust, trust_plans
from minddiffuser.runtime.errors import MindDiffuserError

ADA, AMPERE = Gpu(0, "NVIDIA GeForce RTX 4090", "8.9", "13.0"), Gpu(0, "NVIDIA A100", "8.0", "13.0")
NETWORKS = ("denoise", "vae_decode", "clip_structure", "structure_gradient", "denoise_gradient")
TARGETS = ("tensorrt", "tensorrt-rtx", "ort-tensorrt")
EVERY = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def add_engines(folder: Path, target: str, graphs: tuple[str, ...] = NETWORKS, **changes: Any) -> None:
    """Engines for the machine with ADA, by their description: their content is no plan."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    for graph in graphs:
        plain = content["graphs"][graph]["variants"][0]
        source = {"sha256": content["files"][plain["file"]]["sha256"], "data": {}}
        if target == "ort-tensorrt":
            cache = f"engines/ort-tensorrt/{graph}.fp32.0123456789ab"
            name, file, builder = f"{cache}/x.engine", plain["file"], {"cache": cache, "profile": {"batch": [1, 2, 4]}}
            builder |= {"graph": source, **ort_identity(ADA)}
        else:
            name = file = f"engines/{target}/{graph}.fp32.0123456789ab.plan"
            builder = {**trt_identity.this_machine(target, ADA), "library": "1.0", "options": {}, "graph": source}
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"{graph} for {target}".encode())
        data = (folder / name).read_bytes()
        content["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        added = {**plain, "target": target, "file": file, "batch_sizes": [1, 4], "builder": builder | changes}
        content["graphs"][graph]["variants"].append(added)
    path.write_text(json.dumps(content))


def trusted_by(folder: Path, file: Path, *targets: str) -> Trust:
    listed = Bundle.open(folder).files
    plans = {f.sha256: name for name, f in listed.items() if name.startswith(tuple(f"engines/{t}/" for t in targets))}
    trust_plans(file, plans)
    return Trust(file=file)


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the toy bundle with reference outputs of one trial, as they come out."""
    import shutil

    folder = Path(shutil.copytree(toy_bundle, tmp_path / "bundle"))
    parity = load_file(folder / "parity.safetensors")
    opened = Bundle.open(folder)
    rng = np.random.default_rng(0)
    with EngineSet(opened, EngineSettings(backend="ort", threads=1)) as engines:
        for name, graph in opened.graphs.items():
            shapes = {n: tuple(1 if isinstance(d, str) else d for d in s.shape) for n, s in graph.inputs.items()}
            feeds = {n: rng.random(shape, np.float32) for n, shape in shapes.items()}
            parity |= {f"{name}/in/{n}": array for n, array in feeds.items()}
            parity |= {f"{name}/out/{n}": np.ascontiguousarray(a) for n, a in engines[name].run(feeds).items()}
    del parity["responses"]
    save_file(parity, folder / "parity.safetensors")
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    data = (folder / "parity.safetensors").read_bytes()
    content["files"]["parity.safetensors"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    path.write_text(json.dumps(content))
    return folder


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what this machine is said to have: everything, if nothing else is said."""

    def has(*, gpu: Gpu | None = ADA, providers: list[str] = EVERY, library: str | None = "1.0") -> None:
        monkeypatch.setattr(cuda_gpu, "find_gpu", lambda: gpu)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
        monkeypatch.setattr(trt_identity, "library_version", lambda _target: library)

    return has


# name: what the bundle holds, the machine, whose plans are trusted, and the backends that run
CASES: dict[str, tuple[Callable[[Path], object], dict[str, Any], tuple[str, ...], set[str]]] = {
    "everything": (lambda b: [add_engines(b, t) for t in TARGETS], {}, TARGETS, set(BACKENDS)),
    "nobody is trusted": (lambda b: [add_engines(b, t) for t in TARGETS], {}, (), {"ort-cuda", "ort"}),
    "one is trusted": (
        lambda b: [add_engines(b, t) for t in TARGETS],
        {},
        ("ort-tensorrt",),
        {"ort-tensorrt", "ort-cuda", "ort"},
    ),
    "no GPU": (lambda b: [add_engines(b, t) for t in TARGETS], {"gpu": None}, TARGETS, {"ort"}),
    "another GPU": (
        lambda b: [add_engines(b, t) for t in TARGETS],
        {"gpu": AMPERE},
        TARGETS,
        {"tensorrt-rtx", "ort-cuda", "ort"},  # whose plans are for 8.0 and later
    ),
    "another release": (
        lambda b: [add_engines(b, t) for t in TARGETS],
        {"library": "2.0"},
        TARGETS,
        {"ort-tensorrt", "ort-cuda", "ort"},
    ),
    "no library": (
        lambda b: [add_engines(b, t) for t in TARGETS],
        {"library": None},
        TARGETS,
        {"ort-tensorrt", "ort-cuda", "ort"},
    ),
    "no provider": (
        lambda b: [add_engines(b, t) for t in TARGETS],
        {"providers": ["CPUExecutionProvider"]},
        TARGETS,
        {"tensorrt", "tensorrt-rtx", "ort"},
    ),
    "CUDA alone": (lambda b: add_engines(b, "ort-tensorrt"), {"providers": EVERY[1:]}, TARGETS, {"ort-cuda", "ort"}),
    "plans of some graphs": (
        lambda b: [add_engines(b, t, NETWORKS[:2]) for t in TARGETS],
        {},
        TARGETS,
        {"ort-cuda", "ort"},
    ),
    "plans of another graph": (
        lambda b: [add_engines(b, t, graph={"sha256": "0" * 64, "data": {}}) for t in TARGETS],
        {},
        TARGETS,
        {"ort-cuda", "ort"},
    ),
    "a description of no use": (
        lambda b: [add_engines(b, t, options=[], profile=None) for t in TARGETS],
        {},
        TARGETS,
        {"ort-cuda", "ort"},
    ),
    "another bundle's cache": (
        lambda b: add_engines(b, "ort-tensorrt", cache="engines/ort-tensorrt/vae_decode.fp16.0123456789ab"),
        {},
        TARGETS,
        {"ort-cuda", "ort"},
    ),
    "graphs alone": (lambda b: None, {}, TARGETS, {"ort-cuda", "ort"}),
}


@pytest.mark.parametrize("name", CASES)
def test_open_inspect_and_check_agree(
    name: str, bundle: Path, machine: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, there, targets, expected = CASES[name]
    write(bundle)
    machine(**there)
    trust = trusted_by(bundle, tmp_path / "trusted.json", *targets)
    opened = Bundle.open(bundle)

    lines = list(describe(bundle, trust))
    message = dict(line.strip().split(": ", 1) for line in lines[lines.index("runs on") + 1 :])
    assert {backend for backend in BACKENDS if message[backend] == "yes"} == expected

    for backend in BACKENDS:
        if backend in expected:
            assert choose_backend(opened, backend, Machine(trust)).backend == backend
            continue
        with pytest.raises(MindDiffuserError) as caught:
            choose_backend(opened, backend, Machine(trust))
        assert "\n" not in str(caught.value)
    assert choose_backend(opened, "auto", Machine(trust)).backend == next(b for b in BACKENDS if b in expected)
    assert message["auto"].split(" ")[0] == next(b for b in BACKENDS if b in expected)

    ran: list[tuple[str, str]] = []

    def running(_bundle: Any, variant: Any, backend: str, *_given: Any) -> Any:
        ran.append((variant.graph, backend))
        raise MindDiffuserError("a stand-in")

    monkeypatch.setattr(check, "running", running)
    verdicts = check_bundle(bundle, trust=trust)
    for line in verdicts:
        runs = {backend for backend, target in BACKENDS.items() if target == line.target} & expected
        if name != "plans of some graphs":  # of which check runs those that are there
            assert (line.verdict != NOT_RUN) == bool(runs), line
    assert {backend for _, backend in ran} <= (expected if name != "plans of some graphs" else set(BACKENDS))


def test_inspect_tells_what_each_stage_runs_on(
    bundle: Path, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans of what stage 1 needs run it, though the bundle holds graphs that have none."""
    add_engines(bundle, "tensorrt", ("denoise", "vae_decode", "clip_structure"))
    machine()
    lines = list(describe(bundle, Trust(everything=True)))
    message = dict(line.strip().split(": ", 1) for line in lines[lines.index("runs on") + 1 :])
    assert message["tensorrt"].startswith("no, the bundle has no structure_gradient")
    assert message["md-reconstruct run --stage 1"].startswith("tensorrt (")
    assert message["md-reconstruct run"].startswith("ort-cuda (the fastest that runs here; tensorrt: the bundle has no")


@pytest.mark.parametrize(("built", "here", "runs"), [("10.1", "10.1", True), ("10.1", "10.2", False),
                                                      (None, "10.1", True), ("10.1", None, True)])  # fmt: skip
def test_onnx_runtimes_engines_are_for_one_release_of_tensorrt(
    bundle: Path, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, built: Any, here: Any, runs: bool
) -> None:
    """Where it is known on both sides."""
    machine()
    monkeypatch.setattr("minddiffuser.runtime.engines.tensorrt.library.library_version", lambda _target: built)
    add_engines(bundle, "ort-tensorrt")
    monkeypatch.setattr("minddiffuser.runtime.engines.tensorrt.library.library_version", lambda _target: here)
    reason = why_not_backend(Bundle.open(bundle), "ort-tensorrt", Machine(Trust(everything=True)))
    assert runs == (reason is None)
    assert runs or "was built with another tensorrt than 10.2: build it here" in str(reason)


def values(rng: random.Random) -> Iterator[Any]:
    yield from (None, "x", -1, 0, 1, 2**63, [], {}, 0.5, True, "../..", [1, 1], {"batch": [4, 2, 1]}, "engines/x.onnx")


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def test_edits_of_a_manifest_end_in_one_sentence_or_a_reason(
    bundle: Path, machine: Callable[..., None], tmp_path: Path
) -> None:
    """Every field of built engines, and a seeded choice of all others."""
    for target in TARGETS:
        add_engines(bundle, target, ("denoise",))
    machine()
    trust = trusted_by(bundle, tmp_path / "trusted.json", *TARGETS)
    path, rng = bundle / "manifest.json", random.Random(8)
    text = path.read_text()
    every = list(places(json.loads(text)))
    built = [p for p in every if p[:3] == ("graphs", "denoise", "variants") and len(p) > 3 and p[3] > 0]
    edits = [(p, v) for p in built for v in rng.sample(list(values(rng)), 4)]
    edits += [(p, rng.choice(list(values(rng)))) for p in rng.sample(every, 150)]
    assert len(built) > 60
    outcomes, said = set[str](), list[str]()
    for place, value in edits:
        content = json.loads(text)
        inner = content
        for part in place[:-1]:
            inner = inner[part]
        inner[place[-1]] = value
        path.write_text(json.dumps(content))
        try:
            opened = Bundle.open(bundle, verify=False)
            reasons = [why_not_backend(opened, backend, Machine(trust)) for backend in BACKENDS]
            assert opened.content_hash([])
            assert list(describe(bundle, trust))
        except MindDiffuserError as error:
            outcomes.add("refused")
            said.append(str(error))
            continue
        outcomes.add("opened")
        said += [reason for reason in reasons if reason is not None]
    assert outcomes == {"refused", "opened"}
    assert not any("\n" in sentence for sentence in said)
