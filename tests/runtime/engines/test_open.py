"""Which engine is chosen, what is reported of it, and that no other one runs instead."""

import dataclasses
import gc
import hashlib
import importlib.util
import json
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from minddiffuser.runtime.bundle.graph_specs import TensorSpec
from minddiffuser.runtime.bundle.manifest import Graph, Listed, Noise, Variant
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.layout import ResponseLayout
from minddiffuser.runtime.engines import open as opening
from minddiffuser.runtime.engines.cuda import gpu as cuda_gpu
from minddiffuser.runtime.engines.cuda.gpu import Gpu
from minddiffuser.runtime.engines.here import BACKENDS, Machine, ort_identity
from minddiffuser.runtime.engines.open import Choice, EngineSet, EngineSettings, choose_backend
from minddiffuser.runtime.engines.ort.engine import OrtEngine, OrtSettings
from minddiffuser.runtime.engines.tensorrt import identity as trt_identity
from minddiffuser.runtime.engines.trust import Trust
from minddiffuser.runtime.errors import FileError, InputError, MissingExtra
from minddiffuser.runtime.sampling import Sampling

ADA = Gpu(0, "NVIDIA GeForce RTX 4090", "8.9", "13.0")
PLAN = {
    "target": "tensorrt",
    "library": "10.1.0",
    "platform": f"{sys.platform}-{platform.machine()}".lower(),
    "gpu": ADA.name,
    "compute_capability": "8.9",
    "options": {},
    "graph": {"sha256": "ab" * 32},
}
NETWORKS = ("denoise", "vae_decode")
SPECS = {"x": TensorSpec("float32", ("batch", 4))}
Held = dict[str, Sequence[tuple[str, str]]]


def cached(name: str, precision: str) -> dict[str, Any]:
    """What is said of an engine of ONNX Runtime's TensorRT provider that was built on the machine with ADA."""
    folder = f"engines/ort-tensorrt/{name}.{precision}.0123456789ab"
    graph = {"sha256": "ab" * 32, "data": {}}
    return {"cache": folder, "profile": {"batch": [1, 1, 16]}, "graph": graph, **ort_identity(ADA)}


def identity(name: str, target: str, precision: str) -> dict[str, Any]:
    return PLAN | {"target": target} | (cached(name, precision) if target == "ort-tensorrt" else {})


def bundle_of(held: Held, *, batches: dict[str, tuple[int, ...] | None] | None = None, **plan: Any) -> Bundle:
    """A bundle as far as choosing goes; `held` has (target, precision) of every engine by graph."""
    graphs, files = {}, {"arrays.safetensors": Listed(sha256="ef" * 32, size=1)}
    for name, engines in held.items():
        variants = tuple(
            Variant(
                graph=name,
                target=target,
                precision=precision,
                file=Path(f"/bundle/engines/{name}.{'onnx' if target == 'ort-tensorrt' else target}.{precision}"),
                data=(),
                opset=20,
                batch_sizes=(batches or {}).get(target),
                parity={},
                precision_map=[],
                builder=PLAN
                | {"target": target}
                | (cached(name, precision) if target == "ort-tensorrt" else {})
                | plan,
            )
            for target, precision in engines
        )
        graphs[name] = Graph(name, SPECS, SPECS, variants)
        for variant in variants:
            graph = variant.target in ("onnx", "ort-tensorrt")
            sha256 = "ab" * 32 if graph else hashlib.sha256(str(variant.file).encode()).hexdigest()
            files[variant.file.relative_to("/bundle").as_posix()] = Listed(sha256=sha256, size=1)
            if "cache" in variant.builder:
                files[f"{variant.builder['cache']}/x.engine"] = Listed(sha256="cd" * 32, size=1)
    return Bundle(
        folder=Path("/bundle"),
        manifest={},
        hash="",
        version=1,
        models_name="small",
        models_hash="",
        checkpoint_hash="",
        subject="someone",
        layout=ResponseLayout(modality="fmri", shape=(24,)),
        preset="reference",
        image_size=32,
        shapes={},
        sampling=Sampling(),
        noise=Noise(1, False),
        files=files,
        graphs=graphs,
    )


def everywhere(*engines: tuple[str, str]) -> Held:
    """Networks with ONNX graphs and these engines; a decoder with an ONNX graph alone."""
    return {**{name: [("onnx", "fp32"), *engines] for name in NETWORKS}, "decode_latent": [("onnx", "fp32")]}


EVERY = everywhere(("tensorrt", "fp16"), ("tensorrt-rtx", "fp16"), ("ort-tensorrt", "fp16"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what this machine is said to have."""

    def has(
        *, providers: Sequence[str] = (), libraries: dict[str, str] | None = None, onnxruntime_there: bool = True
    ) -> None:
        names = [f"{name}ExecutionProvider" for name in (*providers, "CPU")]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
        monkeypatch.setattr(trt_identity, "library_version", (libraries or {}).get)
        if not onnxruntime_there:
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    return has


def choose(bundle: Bundle, wanted: str, gpu: Callable[[], Gpu | None], *, trusted: bool = True, **given: Any) -> Choice:
    return choose_backend(bundle, wanted, Machine(Trust(everything=trusted), gpu), **given)


TENSORRT, RTX = {"tensorrt": "10.1.0"}, {"tensorrt-rtx": "10.1.0"}
PROVIDERS = ("Tensorrt", "CUDA")


@pytest.mark.parametrize(
    ("held", "gpu", "there", "chosen", "reports"),
    [
        (EVERY, ADA, {"libraries": TENSORRT, "providers": PROVIDERS}, "tensorrt", ["the fastest that runs here"]),
        (
            EVERY,
            ADA,
            {"libraries": RTX, "providers": PROVIDERS},
            "tensorrt-rtx",
            ["tensorrt: TensorRT does not load here: pip install 'minddiffuser[gpu]'"],
        ),
        (EVERY, ADA, {"providers": PROVIDERS}, "ort-tensorrt", ["tensorrt-rtx: TensorRT-RTX does not load here"]),
        (EVERY, ADA, {"providers": ["CUDA"]}, "ort-cuda", ["ort-tensorrt: onnxruntime is a build without it"]),
        (everywhere(), ADA, {"providers": PROVIDERS}, "ort-cuda", ["the fastest that runs here"]),
        (everywhere(), ADA, {}, "ort", ["ort-cuda: onnxruntime is a build without it"]),
        (
            EVERY,
            None,
            {"libraries": TENSORRT | RTX, "providers": PROVIDERS},
            "ort",
            [f"{name}: no NVIDIA GPU was found" for name in ("tensorrt", "tensorrt-rtx", "ort-tensorrt", "ort-cuda")],
        ),
        (
            EVERY,
            ADA,
            {"libraries": {"tensorrt": "11.0.0"}},
            "ort",
            ["tensorrt: the plan was built by TensorRT 10.1.0, this machine has 11.0.0"],
        ),
        (
            EVERY,
            Gpu(0, "NVIDIA A100", "8.0", "13.0"),
            {"libraries": TENSORRT},
            "ort",
            ["tensorrt: the plan is for NVIDIA GeForce RTX 4090", "this machine has NVIDIA A100"],
        ),
        (
            {**everywhere(("tensorrt", "fp16")), "clip_structure": [("onnx", "fp32")]},
            ADA,
            {"libraries": TENSORRT},
            "ort",
            ["tensorrt: the bundle has no clip_structure for the backend 'tensorrt': md-export build bundle"],
        ),
    ],
)
def test_auto_takes_the_fastest_that_runs_here_and_tells_why_no_other(
    held: Held, gpu: Gpu | None, there: dict[str, Any], chosen: str, reports: list[str], machine: Callable[..., None]
) -> None:
    machine(**there)
    choice = choose(bundle_of(held), "auto", lambda: gpu)
    assert choice.backend == chosen
    for part in reports:
        assert part in choice.reason
    assert "not in the bundle" not in choice.reason


def test_a_cpu_is_not_asked_for_a_gpu_in_vain(machine: Callable[..., None]) -> None:
    """Looking for a GPU may cost PyTorch's import: not for a bundle and an onnxruntime that have no use for one."""
    machine()

    def looked() -> Gpu | None:
        raise AssertionError("looked for a GPU")

    assert choose(bundle_of(everywhere()), "auto", looked).backend == "ort"
    assert choose(bundle_of(everywhere()), "ort", looked).backend == "ort"
    with pytest.raises(InputError, match="does not run here: onnxruntime is a build without it"):
        choose(bundle_of(everywhere()), "ort-cuda", looked)


def test_where_nothing_runs_every_reason_is_reported(machine: Callable[..., None]) -> None:
    machine(onnxruntime_there=False)
    with pytest.raises(InputError) as caught:
        choose(bundle_of(EVERY), "auto", lambda: None)
    for part in (
        "tensorrt: no NVIDIA GPU was found",
        "ort-cuda: onnxruntime is not installed",
        "ort: onnxruntime is not installed",
    ):
        assert part in str(caught.value)
    assert str(caught.value).endswith("): pip install 'minddiffuser[edge]'")


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_asked_for_is_taken_or_refused_but_never_replaced(
    backend: str, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(providers=PROVIDERS, libraries=TENSORRT | RTX)
    choice = choose(bundle_of(EVERY), backend, lambda: ADA)
    assert (choice.backend, choice.reason) == (backend, "as requested")
    target = BACKENDS[backend]
    others: Held = {name: [(t, "fp16") for t in set(BACKENDS.values()) - {target}] for name in NETWORKS}
    with pytest.raises(InputError, match=rf"the backend '{backend}' needs {target}: md-export build bundle --target"):
        choose(bundle_of(others), backend, lambda: ADA)
    if backend == "ort":
        assert choose(bundle_of(EVERY), backend, lambda: None).backend == backend
    else:
        with pytest.raises(InputError, match=f"'{backend}' does not run here: no NVIDIA GPU was found"):
            choose(bundle_of(EVERY), backend, lambda: None)


MIXED: Held = {
    "denoise": [("onnx", p) for p in ("int8", "bf16", "fp16", "fp32")] + [("tensorrt", "fp32"), ("tensorrt", "fp16")],
    "vae_decode": [("onnx", "fp16"), ("onnx", "fp32"), ("tensorrt", "fp16")],
    "decode_latent": [("onnx", "fp16"), ("onnx", "fp32")],
}


@pytest.fixture
def set_of(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Callable[..., EngineSet]:
    """Engines on a machine that has everything, of a bundle that its user trusts."""
    machine(providers=PROVIDERS, libraries=TENSORRT | RTX)
    monkeypatch.setattr(cuda_gpu, "find_gpu", lambda: ADA)
    monkeypatch.setattr(opening, "check_contract", lambda _bundle, _graph: None)  # these graphs are stand-ins

    def run(held: Held, *, batches: Any = None, graphs: Any = None, **choices: Any) -> EngineSet:
        trust = Trust(everything=choices.get("backend", "auto") != "auto")
        return EngineSet(bundle_of(held, batches=batches), EngineSettings(trust=trust, **choices), graphs=graphs)

    return run


@pytest.mark.parametrize(
    ("backend", "precision", "expected"),
    [
        ("ort", "auto", ("onnx fp32", "onnx fp32", "onnx fp32")),
        ("ort-cuda", "auto", ("onnx fp16", "onnx fp16", "onnx fp32")),
        ("tensorrt", "auto", ("tensorrt fp16", "tensorrt fp16", "onnx fp32")),
        # A graph that was left in float32 when the bundle was made stays there.
        ("ort", "int8", ("onnx int8", "onnx fp32", "onnx fp32")),
        ("ort-cuda", "bf16", ("onnx bf16", "onnx fp32", "onnx fp32")),
        ("ort-cuda", "fp16", ("onnx fp16", "onnx fp16", "onnx fp16")),
        ("ort-cuda", "fp32", ("onnx fp32", "onnx fp32", "onnx fp32")),
        ("tensorrt", "fp16", ("tensorrt fp16", "tensorrt fp16", "onnx fp16")),
    ],
)
def test_precisions(backend: str, precision: str, expected: tuple[str, ...], set_of: Callable[..., EngineSet]) -> None:
    engines = set_of(MIXED, backend=backend, precision=precision)
    found = [engines.variant(name) for name in MIXED]
    assert tuple(f"{variant.target} {variant.precision}" for variant in found) == expected


@pytest.mark.parametrize(
    ("held", "choices", "reason"),
    [
        # float32 is there for both, and nobody asked for it.
        (everywhere(), {"backend": "ort", "precision": "fp16"}, "has denoise in fp32, but fp16 was requested"),
        (MIXED, {"backend": "tensorrt", "precision": "bf16"}, "has denoise in fp32, fp16, but bf16 was requested"),
        (MIXED, {"backend": "ort", "precision": "bf16"}, "ONNX Runtime has no bfloat16 kernels on a CPU"),
        (
            {"vae_decode": [("tensorrt", "fp16")], "denoise": [("onnx", "fp32")]},
            {"backend": "tensorrt"},
            "has no denoise for the backend 'tensorrt': md-export build bundle --target tensorrt --graphs denoise",
        ),
        (
            {"denoise": [("ort-tensorrt", "fp16")], "vae_decode": [("tensorrt", "fp16")]},
            {"backend": "tensorrt"},
            "has no denoise",
        ),
    ],
)
def test_a_precision_or_engine_that_is_not_there_is_refused(
    held: Held, choices: dict[str, Any], reason: str, set_of: Callable[..., EngineSet]
) -> None:
    """At once, and not when the graph is first used."""
    with pytest.raises(InputError, match=reason):
        set_of(held, **choices)


def test_the_largest_batch_is_the_smallest_of_the_plans(set_of: Callable[..., EngineSet]) -> None:
    sizes = {"tensorrt": (1, 2, 8), "onnx": None}
    held = {**everywhere(("tensorrt", "fp16")), "clip_structure": [("onnx", "fp32")]}
    assert set_of(held, backend="tensorrt", batches=sizes, graphs=NETWORKS).largest_batch == 8
    assert set_of(held, backend="ort", batches=sizes).largest_batch is None
    both = {"denoise": [("tensorrt", "fp16")], "vae_decode": [("tensorrt", "fp16")]}
    smaller = set_of(both, backend="tensorrt", batches=sizes)
    object.__setattr__(smaller.bundle.graphs["vae_decode"].variants[0], "batch_sizes", (1, 4))
    assert smaller.largest_batch == 4


@pytest.mark.parametrize(
    ("backend", "providers"),
    [
        ("ort", {"decode_latent": "cpu", "denoise": "cpu"}),
        ("ort-cuda", {"decode_latent": "cpu", "denoise": "cuda"}),
        ("ort-tensorrt", {"decode_latent": "cpu", "denoise": "tensorrt"}),
    ],
)
def test_decoders_run_on_the_cpu_where_only_networks_have_gpu_engines(
    backend: str, providers: dict[str, str], set_of: Callable[..., EngineSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, tuple[OrtSettings, str]] = {}

    def fake(name: str, path: Path, _inputs: Any, _outputs: Any, settings: OrtSettings, *, precision: str) -> Any:
        asked[name] = settings, path.name
        return OrtEngine(None, name, SPECS, SPECS, settings, precision)

    monkeypatch.setattr(opening, "open_ort", fake)
    monkeypatch.setattr(EngineSet, "_copied", lambda self, variant, folder: folder)
    held = everywhere(("ort-tensorrt", "fp32"))
    with set_of(held, backend=backend, threads=2, memory="low", memory_limit_bytes=9) as engines:
        for name in providers:
            assert engines[name] is engines[name]
    assert {name: settings.provider for name, (settings, _) in asked.items()} == providers
    assert asked["decode_latent"][1] == "decode_latent.onnx.fp32"
    for settings, _ in asked.values():
        assert (settings.threads, settings.memory, settings.memory_limit_bytes) == (2, "low", 9)


def test_decoders_of_a_bundle_of_plans_run_on_the_cpu(
    set_of: Callable[..., EngineSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str]] = []

    def fake(name: str, path: Path, *_given: Any, **_named: Any) -> Any:
        opened.append((name, path.name))
        return OrtEngine(None, name, SPECS, SPECS, OrtSettings(), "fp32")

    monkeypatch.setattr(opening, "open_ort", fake)
    monkeypatch.setattr(EngineSet, "_plan", lambda self, graph, variant: opened.append((graph, variant.file.name)))
    engines = set_of(everywhere(("tensorrt", "fp16")), backend="tensorrt")
    for name in ("decode_latent", "denoise"):
        engines._engine(engines.variant(name), opening.backend_of(engines.bundle, name, "tensorrt"))
    assert opened == [("decode_latent", "decode_latent.onnx.fp32"), ("denoise", "denoise.tensorrt.fp16")]


def test_engines_of_a_real_bundle(toy_bundle: Path, rng: np.random.Generator) -> None:
    bundle = Bundle.open(toy_bundle)
    latent = rng.standard_normal((2, 4, 4, 4)).astype(np.float32)
    with EngineSet(bundle) as engines:
        assert engines.choice.backend == "ort"
        image = engines["vae_decode"].run({"latent": latent})["image"]
        expected = 1 / (1 + np.exp(-latent[:, :3].repeat(8, 2).repeat(8, 3)))
        np.testing.assert_allclose(image, expected, rtol=1e-5)
        assert engines["vae_decode"] is engines["vae_decode"]
        assert engines.loop() is None
        engine = engines["vae_decode"]
    with pytest.raises(InputError, match="closed"):
        engine.run({"latent": latent})
    settings = EngineSettings(backend="ort", precision="fp32", threads=1)
    with EngineSet(bundle, settings, graphs=["vae_decode"]) as alone:
        assert (alone.choice.backend, alone.choice.reason) == ("ort", "as requested")
        np.testing.assert_allclose(alone["vae_decode"].run({"latent": latent})["image"], expected, rtol=1e-5)


def test_a_graph_that_the_bundle_lacks_is_named(toy_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_bundle, tmp_path / "bundle")
    manifest = tmp_path / "bundle" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["graphs"]["denoise"]
    manifest.write_text(json.dumps(content))
    engines = EngineSet(Bundle.open(tmp_path / "bundle"))
    for ask in (engines.__getitem__, engines.variant):
        with pytest.raises(FileError, match="lacks the graph denoise: export it with them"):
            ask("denoise")


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"backend": "onnx"}, "backend 'onnx' is unknown: choose one of auto, ort, ort-cuda, ort-tensorrt, tensorrt"),
        ({"precision": "fp8"}, "precision 'fp8' is unknown"),
        ({"threads": 0}, "threads is 0"),
        ({"memory": "none"}, "memory 'none' is unknown"),
        ({"memory_limit_bytes": -1}, "memory_limit_bytes is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(choices: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        EngineSettings(**choices)


def test_what_is_asked_of_the_engines_decides_and_not_the_rest(set_of: Callable[..., EngineSet]) -> None:
    """Plans of some graphs are enough for what needs no others; for what does, they are named at once, and the cure."""
    held = {**everywhere(("tensorrt", "fp16")), "clip_structure": [("onnx", "fp32")]}
    assert set_of(held, graphs=("denoise", "decode_latent"), backend="tensorrt").choice.backend == "tensorrt"
    message = (
        "has no clip_structure for the backend 'tensorrt': md-export build bundle --target tensorrt --graphs clip_st"
    )
    with pytest.raises(InputError, match=message):
        set_of(held, backend="tensorrt")


class Failing:
    """Opens engines; those of some providers do not start."""

    def __init__(self, error: Exception, *providers: str) -> None:
        self.error, self.providers = error, providers
        self.open: list[str] = []
        self.closed: list[str] = []

    def __call__(self, name: str, path: Path, inputs: Any, outputs: Any, settings: OrtSettings, **_named: Any) -> Any:
        if settings.provider in self.providers and name == "vae_decode":  # the second one, so that one is open
            raise self.error
        outer = self

        class Opened(OrtEngine):
            def close(self) -> None:
                outer.closed.append(f"{settings.provider} {name}")
                super().close()

        self.open.append(f"{settings.provider} {name}")
        return Opened(None, name, SPECS, SPECS, settings, "fp32")


@pytest.mark.parametrize(
    "error", [InputError("fell back to the CPU"), FileError("no kernel image"), MemoryError("none"), MissingExtra("x")]
)
def test_auto_passes_over_what_does_not_start_and_says_so(
    error: Exception, set_of: Callable[..., EngineSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Failing(error, "cuda")
    monkeypatch.setattr(opening, "open_ort", fake)
    with set_of(everywhere()) as engines:
        assert engines.choice.backend == "ort-cuda"
        engines.start()
        assert engines.choice.backend == "ort"
        assert f"ort-cuda: it does not start ({error})" in engines.choice.reason
        assert "\n" not in engines.choice.reason
        assert fake.closed == ["cuda denoise"]  # nothing of it keeps the GPU's memory
        assert [engines[name].device for name in NETWORKS] == ["cpu", "cpu"]
    assert fake.open == ["cuda denoise", "cpu denoise", "cpu vae_decode", "cpu decode_latent"]
    with set_of(everywhere(), backend="ort-cuda") as engines, pytest.raises(type(error), match=str(error)):
        engines.start()


def test_auto_that_ends_with_nothing_gives_the_last_reason(
    set_of: Callable[..., EngineSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "open_ort", Failing(FileError("the graph is damaged"), "cuda", "cpu"))
    with set_of(everywhere()) as engines, pytest.raises(FileError, match="the graph is damaged"):
        engines.start()


def test_auto_stays_with_what_has_computed(set_of: Callable[..., EngineSet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a picture is never another backend's."""
    monkeypatch.setattr(opening, "open_ort", Failing(InputError("no memory"), "cuda"))
    with set_of(everywhere()) as engines:
        assert engines["denoise"].device == "cuda:0"
        with pytest.raises(InputError, match="no memory"):
            engines["vae_decode"]
        assert engines.choice.backend == "ort-cuda"


def test_the_cache_of_an_engine_lives_as_long_as_it(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(providers=PROVIDERS)
    monkeypatch.setattr(cuda_gpu, "find_gpu", lambda: ADA)
    monkeypatch.setattr(opening, "check_contract", lambda _bundle, _graph: None)
    caches: list[Path] = []

    def fake(name: str, path: Path, inputs: Any, outputs: Any, settings: OrtSettings, **_named: Any) -> Any:
        assert settings.cache is not None
        assert settings.profile == (1, 1, 16)
        caches.append(settings.cache)
        return OrtEngine(None, name, SPECS, SPECS, settings, "fp32")

    monkeypatch.setattr(opening, "open_ort", fake)
    bundle = dataclasses.replace(bundle_of(everywhere(("ort-tensorrt", "fp16"))), folder=Path("/bundle"))
    for name in [name for name in bundle.files if name.endswith(".engine") and "denoise" in name]:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"code")
    monkeypatch.setattr(Bundle, "path", lambda _self, name: tmp_path / name)
    settings = EngineSettings(backend="ort-tensorrt", trust=Trust(everything=True))
    engine = EngineSet(bundle, settings, graphs=["denoise"])["denoise"]  # nobody holds the set
    gc.collect()
    assert [path.read_bytes() for path in caches[0].iterdir()] == [b"code"]
    engine.close()
    engine.close()
    assert not caches[0].exists()


def test_what_a_run_takes_stays_the_same_when_engines_are_added(set_of: Callable[..., EngineSet]) -> None:
    """And changes with every file that it runs from."""

    def hash_of(held: Held, backend: str = "ort", **given: Any) -> str:
        return set_of(held, backend=backend, **given).content_hash

    plain = hash_of(everywhere())
    assert hash_of(everywhere(("tensorrt", "fp16"))) == plain
    assert hash_of(everywhere(("onnx", "fp16"))) == plain  # the CPU takes float32
    assert hash_of(everywhere(("tensorrt", "fp16")), "tensorrt") != plain
    assert hash_of(everywhere(), graphs=("denoise",)) != plain
    cached = hash_of(everywhere(("ort-tensorrt", "fp16")), "ort-tensorrt")
    assert len({plain, cached, hash_of(everywhere(("tensorrt", "fp16")), "tensorrt")}) == 3


def test_a_cache_of_kernels_inside_the_bundle_is_refused(toy_bundle: Path) -> None:
    for cache in (toy_bundle, toy_bundle / "engines" / "new"):
        with pytest.raises(InputError, match="lies inside the bundle .*: give a folder of your own"):
            EngineSet(Bundle.open(toy_bundle), EngineSettings(cache=cache))
