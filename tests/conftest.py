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
