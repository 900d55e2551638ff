"""Fixtures that every test may ask for, one state of the process at the start of each test, and groups of tests."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# One thread for each process: workers of the test run would fight for the cores, and a machine with more of them
# would add up in another order. It counts where a library is loaded afterwards, and in processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest

# The same examples in every run, and no limit on the time of one: a busy machine is no reason to fail.
hypothesis.settings.register_profile("the same everywhere", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("the same everywhere")

# PyTorch's own first seed: a test that is the first to load it begins with the same numbers.
SEED = 67280421310721

# What only a whole bundle of the tiny world can show, which takes long and is made once for all workers.
WHOLE = {"readme_story", "tiny_bundle"}
# The longest of the last files, in tests/training: begun last of all, one worker would be at it when the others end.
LONGEST = {"test_fit.py"}


def pytest_configure(config: pytest.Config) -> None:
    """What "auto" chooses must not depend on the machine: a GPU is seen by the tests alone that are of one."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole export is begun first, by the worker that takes the documents, and wanted by the others late.

    Not last: these are the longest files, after which one worker would be idle while another works.
    """
    wanting = {item.path for item in items if not WHOLE.isdisjoint(getattr(item, "fixturenames", ()))}
    others = list(dict.fromkeys(item.path for item in items if item.path not in wanting))
    last = set(others[len(others) * 2 // 3 :])
    items.sort(
        key=lambda item: (
            0 if item.path.name == "test_docs.py" else 2 if item.path in wanting else 3 if item.path in last else 1,
            item.path in last and item.path.name not in LONGEST,
        )
    )


def pytest_collection_finish() -> None:
    """Thousands of tests and their modules stay: each search for garbage would walk through all of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_threads() -> Iterator[None]:
    """A command takes one pool of ONNX Runtime's threads for its process; this process has other tests to run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minddiffuser.runtime.engines.ort.engine.uses_pool", lambda *_given, **_named: False)
        yield


@pytest.fixture(autouse=True)
def _one_state() -> Iterator[None]:
    """What a test changes in the process is no other test's: PyTorch's random numbers, threads and switches."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.manual_seed(SEED)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict, warn_only=warns)


def _load(name: str) -> None:
    """Make tests/<name>.py importable by its bare name, without putting this folder's packages on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    if name in sys.modules or spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


# Which cost numpy alone: test files import them as any module.
_load("json_edits")
_load("small_data")
_load("toy_experiment")
_load("kind_checkpoint")
_load("network_settings")
_load("fake_viewer")
_load("nsd_miniature")
_load("recording_files")
_load("ramp_source")
_load("chaos_listener")
_load("soak")
_load("recorded_items")
_load("session_world")
_load("chromium")
_load("local_page")
_load("dashboard_served")
_load("dashboard_story")
_load("lsl_session")
_load("judge_runs")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights: image 32 px, latent (4, 4, 4), context (15, 16), structure (6, 17, 32)."""
    _load("small_world")
    from small_world import write_small_world

    folder: Path = write_small_world(tmp_path_factory.mktemp("worlds") / "small")
    return folder


@pytest.fixture(scope="session")
def small_checkpoint(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random decoders for the small world: 24 voxels, subject "someone"; see small_checkpoint.py."""
    from minddiffuser.runtime.models.open import load_models

    _load("small_checkpoint")
    from small_checkpoint import write_small_checkpoint

    models_hash = load_models(str(small_world)).hash
    folder: Path = write_small_checkpoint(tmp_path_factory.mktemp("checkpoints") / "small", models_hash)
    return folder


@pytest.fixture(scope="session")
def toy_bundle(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the small checkpoint's decoders and of networks that are one formula each; see toy_bundle.py."""
    _load("toy_bundle")
    from toy_bundle import write_toy_bundle

    folder: Path = write_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy", small_checkpoint)
    return folder


@pytest.fixture(scope="session")
def live_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for live EEG of three channels at 200 Hz, with toy networks; see live_bundle.py."""
    _load("toy_bundle")
    _load("live_bundle")
    from live_bundle import write_live_bundle

    folder: Path = write_live_bundle(tmp_path_factory.mktemp("live"))
    return folder


@pytest.fixture(scope="session")
def readme() -> ModuleType:
    """What the README says to type; see readme_story.py."""
    _load("readme_story")
    return sys.modules["readme_story"]


@pytest.fixture(scope="session")
def readme_story(readme: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The README's own commands, in order, each run once for all tests of all workers."""
    shared = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp().parent / "readme" if shared else tmp_path_factory.mktemp("readme")
    return readme.Story(folder)


@pytest.fixture(scope="session")
def tiny_bundle(readme_story: Any) -> Path:
    """The bundle that the README makes: the tiny world with every graph, exported once. Not to be changed: copy it."""
    folder: Path = readme_story.until("bundle") / "bundle"
    return folder


@pytest.fixture(scope="session")
def fitted_checkpoint(readme_story: Any) -> Path:
    """The checkpoint that `tiny_bundle` is made of."""
    folder: Path = readme_story.until("bundle") / "checkpoint"
    return folder
