"""A bundle's decoders against the checkpoint that they were made of."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.decoders.base import Placement
from minddiffuser.runtime.decoders.bundle import BundleDecoder
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
from minddiffuser.runtime.errors import FileError, InputError, ShapeError

ROWS = np.random.default_rng(1).standard_normal((3, 24)).astype(np.float32)


@pytest.fixture
def checkpoint(small_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(small_checkpoint)


@pytest.fixture
def decoder(toy_bundle: Path) -> Iterator[BundleDecoder]:
    bundle = Bundle.open(toy_bundle)
    with EngineSet(bundle, EngineSettings(backend="ort", threads=1)) as engines:
        yield BundleDecoder(bundle, engines)


def test_it_decodes_what_the_checkpoint_does(decoder: BundleDecoder, checkpoint: Checkpoint) -> None:
    found, expected = decoder.decode(ROWS), checkpoint.decode(ROWS)
    for field in fields(expected):
        reference, given = getattr(expected, field.name), getattr(found, field.name)
        if reference is None:
            assert given is None
            continue
        assert (given.dtype, given.shape) == (np.float32, reference.shape)
        np.testing.assert_allclose(given, reference, rtol=1e-4, atol=1e-5)
    assert (found.context[:, 0] == checkpoint.context_bos).all()
    assert np.ptp(found.latent, axis=0).min() > 0, "trials differ"


def test_a_trial_is_decoded_alike_in_every_batch(decoder: BundleDecoder) -> None:
    whole, alone = decoder.decode(ROWS), [decoder.decode(row[None]) for row in ROWS]
    for field in ("context", "latent", "structure"):
        assert (getattr(whole, field) == np.concatenate([getattr(one, field) for one in alone])).all()


def test_the_start_is_the_context_and_latent_of_the_whole(decoder: BundleDecoder, checkpoint: Checkpoint) -> None:
    for of in (decoder, checkpoint):
        context, latent = of.decode_start(ROWS)
        whole = of.decode(ROWS)
        assert (context == whole.context).all()
        assert (latent == whole.latent).all()


class Constant:
    """A decoder of a semantic feature of five dimensions: always its mean."""

    nothing = np.zeros(5, np.float32)
    placements: ClassVar = {"semantic": Placement((5,), np.arange(5, dtype=np.int32), nothing, nothing)}

    def predict(self, scores: np.ndarray, _features: object) -> dict[str, np.ndarray]:
        return {"semantic": np.zeros((len(scores), 5), np.float32)}


@pytest.mark.parametrize("kind", ["bundle", "checkpoint"])
def test_the_semantic_target_may_be_left_out(
    kind: str, decoder: BundleDecoder, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def latent(*_given: object) -> np.ndarray:
        return np.zeros((3, 5), np.float32)

    if kind == "bundle":
        only = decoder.decoded

        def decoded(rows: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
            return {name: latent() if name == "semantic" else only(rows, [name])[name] for name in names}

        monkeypatch.setattr(decoder, "decoded", decoded)
        monkeypatch.setattr(decoder, "shapes", {**decoder.shapes, "semantic": (5,)})
        graphs: dict[str, Any] = {**decoder._bundle.graphs, "decode_semantic": None}
        monkeypatch.setattr(decoder, "_bundle", replace(decoder._bundle, graphs=graphs))
    else:
        monkeypatch.setitem(checkpoint.shapes, "semantic", (5,))
        monkeypatch.setitem(checkpoint.decoders, "semantic", Constant())
    of = decoder if kind == "bundle" else checkpoint
    assert of.decode(ROWS).semantic is not None
    assert of.decode(ROWS, semantic=False).semantic is None


def test_constants_are_the_checkpoints(decoder: BundleDecoder, checkpoint: Checkpoint) -> None:
    assert (decoder.mask == checkpoint.mask).all()
    assert (decoder.uncond_context == checkpoint.uncond_context).all()
    for name in ("subject", "preset", "models_name", "models_hash", "layout", "image_size", "shapes"):
        assert getattr(decoder, name) == getattr(checkpoint, name), name
    np.testing.assert_array_equal(decoder.training.scores(ROWS), checkpoint.training.scores(ROWS))


def with_value(value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[1, 5] = value
    return rows


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize(
    ("rows", "error", "reason"),
    [
        (with_value(np.nan), InputError, "trial 1 cannot be decoded .1 of 24 values are NaN"),
        (with_value(np.inf), InputError, "trial 1 cannot be decoded .1 of 24 values are NaN"),
        (ROWS[:, :23], ShapeError, "responses have 23 voxels, the decoders were fitted on 24"),
        (ROWS[0], ShapeError, r"expected \(n_trials, 24\)"),
        (ROWS.astype(bool), ShapeError, "bool"),
        (ROWS.tolist(), ShapeError, "list"),
    ],
)
def test_responses_of_the_wrong_kind_are_refused_as_by_the_checkpoint(
    decoder: BundleDecoder, checkpoint: Checkpoint, rows: Any, error: type[InputError], reason: str, start: bool
) -> None:
    for of in (decoder, checkpoint):
        with pytest.raises(error, match=reason):
            (of.decode_start if start else of.decode)(rows)


def test_other_subjects_models_and_layers_are_refused(decoder: BundleDecoder) -> None:
    decoder.require_subject("someone")
    decoder.require_models(decoder.models_hash, "small")
    decoder.require_preset("reference")
    with pytest.raises(InputError, match="decodes subject 'someone', the responses are of 'else'"):
        decoder.require_subject("else")
    with pytest.raises(InputError, match="made for other models .*hash 000000000000"):
        decoder.require_models("0" * 64, "other")
    with pytest.raises(InputError, match="layer preset 'reference', but 'paper' was requested"):
        decoder.require_preset("paper")


def test_a_bundle_of_stage_1_decodes_the_start(toy_bundle: Path, small_checkpoint: Path, tmp_path: Path) -> None:
    """Without its decoder of structure, what stage 1 needs is there, and the rest is named."""
    from toy_bundle import write_toy_bundle

    folder = write_toy_bundle(tmp_path / "bundle", small_checkpoint, leave_out=("decode_structure",))
    bundle = Bundle.open(folder)
    with EngineSet(bundle) as engines:
        decoder = BundleDecoder(bundle, engines)
        assert [array.shape for array in decoder.decode_start(ROWS)] == [(3, 15, 16), (3, 4, 4, 4)]
        with pytest.raises(FileError, match="lacks the graph decode_structure"):
            decoder.decode(ROWS)


def test_responses_of_another_scale_are_refused_as_by_a_command(decoder: BundleDecoder, checkpoint: Checkpoint) -> None:
    for of in (decoder, checkpoint):
        with pytest.raises(InputError, match="not on the scale of the training responses"):
            of.decode(300 * ROWS)
        with pytest.raises(InputError, match="not on the scale of the training responses"):
            of.decode_start(1e-4 * ROWS)
        with pytest.warns(UserWarning, match="barely on the scale") as caught:
            warned = of.decode(ROWS + 6)
        assert caught[0].filename == __file__
        np.testing.assert_array_equal(warned.latent, of.decode(ROWS + 6, screened=True).latent)


def test_a_value_far_outside_training_counts_as_the_mean_of_training(
    decoder: BundleDecoder, checkpoint: Checkpoint
) -> None:
    spiked, neutral = ROWS.copy(), ROWS.copy()
    spiked[1, 3], neutral[1, 3] = 1e5, checkpoint.training.mean[3]
    for of in (decoder, checkpoint):
        with pytest.warns(UserWarning, match=r"1 of 24 voxels \(3\) hold values more than 30 standard deviations"):
            found = of.decode(spiked)
        np.testing.assert_array_equal(found.structure, of.decode(neutral).structure)
