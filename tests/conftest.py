"""Fixtures that every test may ask for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest


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
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for the tiny world that comes with the package: random decoders with the semantic one, 24 voxels."""
    from minddiffuser.runtime.models.open import load_models

    _load("small_checkpoint")
    from small_checkpoint import world_of, write_small_checkpoint

    models = load_models("tiny")
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    written: Path = write_small_checkpoint(folder, models.hash, world=world_of(models, "tiny", semantic=True))
    return written


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_checkpoint` exported by md-export's own code, all graphs in float32.

    Tracing the gradients takes minutes: tests that use it raise their own time limit.
    """
    from minddiffuser.export.assemble import export_bundle
    from minddiffuser.export.settings import ExportSettings

    settings = ExportSettings(precisions=("fp32",), n_verify=2, n_calibrate=1, threads=1)
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    folder: Path = export_bundle(tiny_checkpoint, out, settings, models="tiny").folder
    return folder
