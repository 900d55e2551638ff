"""Decoding against a loop over targets; and every way a checkpoint or responses can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.files import sha256_of, write_tensors

SHAPES = {"context": (15, 4), "latent": (4, 2, 2), "structure": (6, 3, 5), "semantic": (5,)}
N_VOXELS, N_SELECTED = 12, 7


def target_arrays(rng: np.random.Generator, name: str) -> dict[str, np.ndarray]:
    size = int(np.prod(SHAPES[name]))
    position = {"context": np.arange(4, size), "structure": np.sort(rng.permutation(size)[:24])}.get(
        name, np.arange(size)
    )
    n_targets = len(position)
    index = np.stack([np.sort(rng.permutation(N_VOXELS)[:N_SELECTED]) for _ in range(n_targets)])
    return {
        "index": index.astype(np.int32),
        "weight": rng.standard_normal((n_targets, N_SELECTED)).astype(np.float32),
        "bias": rng.standard_normal(n_targets).astype(np.float32),
        f"{name}.position": position.astype(np.int32),
        f"{name}.mean": rng.standard_normal(size).astype(np.float32),
        f"{name}.std": rng.uniform(0.5, 2, size).astype(np.float32),
    }


def linear(features: Iterable[str]) -> list[dict[str, Any]]:
    return [{"kind": "linear", "features": [name], "fit": {"fitter": "ridge"}} for name in features]


def write_checkpoint(folder: Path, arrays: dict[str, dict[str, np.ndarray]], **changes: Any) -> None:
    mask_preset = changes.pop("mask_preset", "reference")
    for name, content in arrays.items():
        metadata = {"preset": mask_preset} if name == "mask" else None
        write_tensors(folder / f"{name}.safetensors", content, metadata)
    description = {
        "format": "minddiffuser-checkpoint",
        "version": 2,
        "subject": "S1",
        "layout": {"modality": "fmri", "response_shape": [N_VOXELS]},
        "preset": "reference",
        "models": {"name": "tiny", "hash": "ab" * 32},
        "shapes": {name: list(shape) for name, shape in SHAPES.items()},
        "image_size": 64,
        "decoders": linear(SHAPES),
        "selection": {"percent": 25, "signed": True, "n_folds": 5},
        "provenance": {},
        "files": {f"{name}.safetensors": sha256_of(folder / f"{name}.safetensors") for name in arrays},
    }
    (folder / "checkpoint.json").write_text(json.dumps({**description, **changes}))


@pytest.fixture
def arrays(rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    std = rng.uniform(1, 3, N_VOXELS).astype(np.float32)
    std[5] = 0.0  # did not vary in training
    return {
        "normaliser": {"mean": rng.standard_normal(N_VOXELS).astype(np.float32), "std": std},
        "constants": {
            "context_bos": rng.standard_normal(4).astype(np.float32),
            "uncond_context": rng.standard_normal((15, 4)).astype(np.float32),
        },
        "mask": {
            "mask": rng.random(SHAPES["structure"]) < 0.25,
            "score": rng.standard_normal(SHAPES["structure"]).astype(np.float32),
        },
        **{name: target_arrays(rng, name) for name in SHAPES},
    }


@pytest.fixture
def folder(tmp_path: Path, arrays: dict[str, dict[str, np.ndarray]]) -> Path:
    write_checkpoint(tmp_path, arrays)
    return tmp_path


@pytest.fixture
def checkpoint(folder: Path) -> Checkpoint:
    return open_checkpoint(folder)


def expected(arrays: dict[str, dict[str, np.ndarray]], name: str, row: np.ndarray) -> np.ndarray:
    """One trial, one target after the other, in float64."""
    norm, target = arrays["normaliser"], arrays[name]
    z = [(row[v] - norm["mean"][v]) / norm["std"][v] if norm["std"][v] > 0 else 0.0 for v in range(N_VOXELS)]
    out = target[f"{name}.mean"].astype(float)
    for t, place in enumerate(target[f"{name}.position"]):
        value = sum(float(w) * z[v] for v, w in zip(target["index"][t], target["weight"][t], strict=True))
        out[place] += target[f"{name}.std"][place] * (value + target["bias"][t])
    if name == "context":
        out[:4] = arrays["constants"]["context_bos"]
    return out.reshape(SHAPES[name])


def test_decodes_as_a_loop_over_targets_does(
    checkpoint: Checkpoint, arrays: dict[str, dict[str, np.ndarray]], rng: np.random.Generator
) -> None:
    responses = rng.standard_normal((3, N_VOXELS)).astype(np.float32)
    decoded = checkpoint.decode(responses)
    for name in SHAPES:
        found = getattr(decoded, name)
        assert found.dtype == np.float32
        for trial in range(3):
            np.testing.assert_allclose(found[trial], expected(arrays, name, responses[trial]), rtol=1e-4, atol=1e-4)


def test_many_targets_are_decoded_in_chunks(
    folder: Path,
    arrays: dict[str, dict[str, np.ndarray]],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    responses = rng.standard_normal((2, N_VOXELS)).astype(np.float32)
    whole = open_checkpoint(folder).decode(responses)
    monkeypatch.setattr("minddiffuser.runtime.decoders.linear._WEIGHTS_AT_ONCE", 3 * N_SELECTED)
    np.testing.assert_array_equal(open_checkpoint(folder).decode(responses).structure, whole.structure)


def test_a_trial_is_the_same_bit_by_bit_in_any_batch(checkpoint: Checkpoint, rng: np.random.Generator) -> None:
    responses = rng.standard_normal((9, N_VOXELS)).astype(np.float32)
    together = checkpoint.decode(responses)
    for trial in (0, 4, 8):
        alone = checkpoint.decode(responses[trial : trial + 1])
        for name in SHAPES:
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[trial])


def test_a_voxel_that_did_not_vary_in_training_contributes_nothing(
    checkpoint: Checkpoint, rng: np.random.Generator
) -> None:
    responses = rng.standard_normal((2, N_VOXELS)).astype(np.float32)
    changed = responses.copy()
    changed[:, 5] = 1e6
    np.testing.assert_array_equal(checkpoint.decode(responses).latent, checkpoint.decode(changed).latent)


def test_what_an_opened_checkpoint_tells(
    checkpoint: Checkpoint, folder: Path, arrays: dict[str, dict[str, np.ndarray]]
) -> None:
    assert checkpoint.shapes == SHAPES
    assert (checkpoint.layout.shape, checkpoint.preset, checkpoint.models_hash) == ((N_VOXELS,), "reference", "ab" * 32)
    np.testing.assert_array_equal(checkpoint.mask, arrays["mask"]["mask"])
    np.testing.assert_array_equal(checkpoint.uncond_context, arrays["constants"]["uncond_context"])
    assert checkpoint.hash == sha256_of(folder / "checkpoint.json")


def test_the_semantic_feature_may_be_absent(tmp_path: Path, arrays: dict[str, dict[str, np.ndarray]]) -> None:
    del arrays["semantic"]
    shapes = {name: list(SHAPES[name]) for name in ("context", "latent", "structure")}
    write_checkpoint(tmp_path, arrays, shapes=shapes, decoders=linear(shapes))
    assert open_checkpoint(tmp_path).decode(np.zeros((2, N_VOXELS), np.float32), screened=True).semantic is None


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int16])
def test_other_number_types_are_taken(checkpoint: Checkpoint, dtype: type, rng: np.random.Generator) -> None:
    responses = (10 * rng.standard_normal((2, N_VOXELS))).astype(dtype)
    as_float = checkpoint.decode(responses.astype(np.float32), screened=True)
    np.testing.assert_array_equal(checkpoint.decode(responses, screened=True).structure, as_float.structure)


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        (np.zeros(N_VOXELS, np.float32), r"shape \(12,\).*responses\[None\]"),
        (np.zeros((1, 2, N_VOXELS), np.float32), "1 trial or more"),
        (np.zeros((0, N_VOXELS), np.float32), "1 trial or more"),
        (np.zeros((2, N_VOXELS + 1), np.float32), "have 13 voxels, the decoders were fitted on 12"),
        (np.zeros((2, N_VOXELS), complex), "complex128"),
        (np.zeros((2, N_VOXELS), bool), "bool"),
        (np.full((2, N_VOXELS), "1"), "<U1"),
        ([[0.0] * N_VOXELS], "list"),
    ],
)
def test_responses_of_the_wrong_kind_are_refused(checkpoint: Checkpoint, responses: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        checkpoint.decode(responses)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_trial_that_is_not_finite_is_refused_by_number(
    checkpoint: Checkpoint, rng: np.random.Generator, value: float
) -> None:
    responses = rng.standard_normal((3, N_VOXELS))
    responses[1, 3] = value
    with pytest.raises(InputError, match="trial 1 cannot be decoded .1 of 12 values are NaN"):
        checkpoint.decode(responses)


def test_scores_are_those_of_the_training_statistics(
    checkpoint: Checkpoint, arrays: dict[str, dict[str, np.ndarray]]
) -> None:
    mean, std = arrays["normaliser"]["mean"], arrays["normaliser"]["std"]
    expected = np.where(std > 0, 2, 0)
    np.testing.assert_allclose(checkpoint.training.scores((mean + 2 * std)[None])[0], expected, rtol=1e-4)


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no description": (lambda f: (f / "checkpoint.json").unlink(), "description is missing"),
    "unfinished": (
        lambda f: (f / "checkpoint.json").rename(f / "fit.json"),
        "not finished: run the same md-train fit command again",
    ),
    "truncated description": (lambda f: _truncate(f / "checkpoint.json"), "cannot be read"),
    "another kind": (lambda f: _edit(f, format="minddiffuser-run"), "is not a MindDiffuser checkpoint"),
    "newer version": (lambda f: _edit(f, version=3), "version 3, this release reads version 2"),
    "earlier version": (lambda f: _edit(f, version=1), "checkpoint version 1, .* fit it again with md-train fit"),
    "missing file": (lambda f: (f / "latent.safetensors").unlink(), "lacks latent.safetensors"),
    "truncated file": (lambda f: _truncate(f / "context.safetensors"), "truncated or was changed"),
    "flipped bit": (lambda f: _flip(f / "structure.safetensors"), "truncated or was changed"),
    "no layout": (lambda f: _edit(f, layout=None), "the layout of the responses in .* is None"),
    "voxel count": (lambda f: _edit(f, layout={"modality": "fmri", "response_shape": [0]}), r"response_shape is \[0\]"),
    "shape of another rank": (
        lambda f: _edit(f, shapes={name: [3] for name in SHAPES}),
        "field 'shapes.context'",
    ),
    "decoder without a kind": (
        lambda f: _edit(f, decoders=[{**made, "kind": 3} for made in linear(SHAPES)]),
        r"field 'decoders\[0\].kind' .* one of linear, network",
    ),
    "feature without a decoder": (lambda f: _edit(f, decoders=linear(list(SHAPES)[1:])), "from exactly one of them"),
    "feature of two decoders": (
        lambda f: _edit(f, decoders=linear(["context", "latent", "latent"])),
        "from exactly one of them",
    ),
    "decoders by name": (
        lambda f: _edit(f, decoders={name: {} for name in SHAPES}),
        "expected a list of 1 to 4 decoders",
    ),
    "file outside": (lambda f: _edit(f, files={"../secret": "00"}), "field 'files'"),
    "models without hash": (lambda f: _edit(f, models={"name": "tiny"}), "field 'models.hash' is missing"),
    "other voxel count": (
        lambda f: _edit(f, layout={"modality": "fmri", "response_shape": [11]}),
        "expected float32",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_refused_in_one_sentence(folder: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(FileError, match=message) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a folder"):
        open_checkpoint(tmp_path / "absent")


def test_truncation_is_seen_without_hashes_too(folder: Path) -> None:
    _truncate(folder / "latent.safetensors")
    with pytest.raises(FileError, match="truncated or damaged"):
        open_checkpoint(folder, verify=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("index", N_VOXELS), ("index", -1), ("latent.position", 16), ("latent.position", 0), ("weight", np.nan)],
)
def test_arrays_that_point_outside_are_refused(
    tmp_path: Path, arrays: dict[str, dict[str, np.ndarray]], name: str, value: float
) -> None:
    arrays["latent"][name].flat[-1] = value
    write_checkpoint(tmp_path, arrays)
    with pytest.raises(FileError, match=r"latent\.safetensors"):
        open_checkpoint(tmp_path)


def test_a_mask_of_another_layer_preset_is_refused(tmp_path: Path, arrays: dict[str, dict[str, np.ndarray]]) -> None:
    write_checkpoint(tmp_path, arrays, mask_preset="paper")
    with pytest.raises(InputError, match="layer preset 'paper', the checkpoint is for 'reference'"):
        open_checkpoint(tmp_path)


def test_other_models_subjects_and_presets_are_refused(checkpoint: Checkpoint) -> None:
    checkpoint.require_models("ab" * 32, "tiny")
    checkpoint.require_subject("S1")
    checkpoint.require_preset("reference")
    with pytest.raises(InputError, match="made for other models"):
        checkpoint.require_models("cd" * 32, "sd14")
    with pytest.raises(InputError, match="decodes subject 'S1', the responses are of 'S2'"):
        checkpoint.require_subject("S2")
    with pytest.raises(
        InputError, match="'paper' was requested: load models with preset='reference'.* md-train fit --layers paper"
    ):
        checkpoint.require_preset("paper")
