"""Every kind of decoder, in a checkpoint and in a bundle, on one response axis and on two, by both routes to context.

What a kind must keep: what it decodes is what the numbers in its files say (kind_checkpoint.py works that out by
itself); a trial is the same bit by bit whatever comes with it; its exported graph gives the same on ONNX Runtime; and
responses that are laid out otherwise than in training are refused by name.

Tolerances: both sides round float32 sums of at most some hundred terms, of magnitude m at most; each of them is off by
about sqrt(terms) units of 6e-8 in practice and by `terms` units at worst, 200 x 6e-8 x m = 1.2e-5 m, and layer norms
multiply that by their own gain, below 2 each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kind_checkpoint import CONCEPTS, ROUTES, SHAPES, KindCheckpoint, write_kind_checkpoint

from minddiffuser.runtime import backends
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.layout import ResponseLayout
from minddiffuser.runtime.decoders import KINDS
from minddiffuser.runtime.decoders.bundle import BundleDecoder
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.decoders.screen import screen
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.run.responses import open_responses

RESPONSE_SHAPES = [(40,), (5, 8)]
CASES = [(kind, shape, route) for kind in KINDS for shape in RESPONSE_SHAPES for route in ROUTES]
# fMRI goes straight to the context and sensors by way of concepts; every kind is seen on both.
USUAL = {((40,), "direct"), ((5, 8), "concepts")}
TOLERANCE = 5e-5


class Case:
    """A checkpoint, the bundle that is made of it, and one of them opened."""

    def __init__(self, folder: Path, kind: str, shape: tuple[int, ...], route: str) -> None:
        from toy_bundle import write_toy_bundle

        self.shape, self.kind, self.route = shape, kind, route
        self.made: KindCheckpoint = write_kind_checkpoint(folder / "checkpoint", kind, shape, route=route)
        self.checkpoint = open_checkpoint(self.made.folder)
        self.bundle: Bundle = Bundle.open(write_toy_bundle(folder / "bundle", self.made.folder))

    def responses(self, n: int = 4) -> np.ndarray:
        """Around the mean of training, as recorded ones are."""
        mean, std = self.checkpoint.statistics
        return (mean + std * np.random.default_rng(n).standard_normal((n, *self.shape))).astype(np.float32)


@pytest.fixture(
    scope="module",
    params=[pytest.param(case, marks=() if case[1:] in USUAL else pytest.mark.slow) for case in CASES],
    ids=lambda case: f"{case[0]}-{'x'.join(map(str, case[1]))}-{case[2]}",
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, toy_bundle: Path) -> Case:
    return Case(tmp_path_factory.mktemp("kinds"), *request.param)


@pytest.fixture(params=["checkpoint", "bundle"])
def decoder(request: pytest.FixtureRequest, case: Case) -> Iterator[Checkpoint | BundleDecoder]:
    if request.param == "checkpoint":
        yield case.checkpoint
        return
    with EngineSet(case.bundle, EngineSettings(backend="ort", threads=1)) as engines:
        yield BundleDecoder(case.bundle, engines)


def assert_near(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * float(np.abs(expected).max()), err_msg=name)


def test_it_decodes_what_its_files_say(case: Case, decoder: Checkpoint | BundleDecoder) -> None:
    responses = case.responses()
    decoded, expected = decoder.decode(responses), case.made.expected(responses)
    for name in SHAPES:
        assert np.ptp(expected[name], axis=0).max() > 0.1, "trials differ"
        assert_near(getattr(decoded, name), expected[name], name)
    context, latent = decoder.decode_start(responses)
    np.testing.assert_array_equal(context, decoded.context)
    np.testing.assert_array_equal(latent, decoded.latent)
    assert decoder.decode(responses, semantic=False).semantic is None


def test_the_bundle_decodes_what_the_checkpoint_does(case: Case) -> None:
    responses = case.responses(6)
    here = case.checkpoint.decode(responses)
    with EngineSet(case.bundle, EngineSettings(backend="ort", threads=1)) as engines:
        there = BundleDecoder(case.bundle, engines).decode(responses)
    for name in SHAPES:
        assert_near(getattr(there, name), np.asarray(getattr(here, name), np.float64), name)


def test_a_trial_is_decoded_alike_in_every_batch(case: Case, decoder: Checkpoint | BundleDecoder) -> None:
    responses = case.responses(9)
    whole, part = decoder.decode(responses), decoder.decode(responses[3:5], screened=True)
    for trial in (0, 3, 8):
        alone = decoder.decode(responses[trial : trial + 1], screened=True)
        for name in SHAPES:
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[trial])
    for name in SHAPES:
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[3:5])


def test_what_did_not_vary_in_training_counts_for_nothing(case: Case, decoder: Checkpoint | BundleDecoder) -> None:
    responses = case.responses()
    plain = decoder.decode(responses, screened=True)
    responses.reshape(len(responses), -1)[:, 1] = 1e6
    changed = decoder.decode(responses, screened=True)
    for name in SHAPES:
        np.testing.assert_array_equal(getattr(changed, name), getattr(plain, name))


def test_responses_of_another_shape_are_refused(case: Case, decoder: Checkpoint | BundleDecoder) -> None:
    responses = case.responses()
    wider = np.concatenate([responses, responses[..., :1]], axis=-1)
    message = {(40,): "41 voxels, the decoders were fitted on 40"}.get(
        case.shape, "5 channels of 9 samples, the decoders were fitted on 5 channels of 8 samples"
    )
    for of in (decoder.decode, decoder.decode_start):
        with pytest.raises(ShapeError, match=message):
            of(wider)
    turned = responses.reshape(len(responses), 40) if len(case.shape) == 2 else responses.reshape(-1, 5, 8)
    with pytest.raises(ShapeError, match="expected \\(n_trials, "):
        decoder.decode(turned)


def test_responses_laid_out_otherwise_are_refused_by_name(case: Case, decoder: Checkpoint | BundleDecoder) -> None:
    layout = decoder.layout
    decoder.require_layout(layout)
    decoder.require_layout(None)
    changes: list[tuple[dict[str, Any], str]]
    if layout.modality == "fmri":
        changes = [
            ({"shape": (41,), "rois": None}, "it was fitted on 40 voxels, these have 41"),
            ({"rois": {"V1": (0, 21), "LO": (21, 40)}}, "roi 'V1' is voxels 0 to 20 there and voxels 0 to 21 here"),
        ]
    else:
        channels = layout.channels or ()
        renamed = (replace(channels[0], name="Oz"), *channels[1:])
        changes = [
            ({"channels": channels[::-1]}, "the channels are in another order, number 0 is 'E0' there and 'E4' here"),
            ({"channels": renamed}, "these lack 'E0' and also have 'Oz'"),
            ({"sfreq": 250.0}, "sfreq is 100 Hz there and 250 Hz here"),
            ({"tmin": 0.0}, "tmin is -0.1 s there and 0 s here"),
            ({"shape": (5, 9)}, "it was fitted on 8 samples, these have 9"),
        ]
    for change, message in changes:
        with pytest.raises(InputError, match=message):
            decoder.require_layout(replace(layout, **change))


def test_both_keep_the_same_layout(case: Case) -> None:
    assert case.bundle.layout == case.checkpoint.layout
    assert isinstance(case.bundle.layout, ResponseLayout)
    assert case.bundle.layout.shape == case.shape
    assert case.bundle.manifest["layout"] == case.checkpoint.description["layout"]


def test_how_near_each_concept_is(case: Case, decoder: Checkpoint | BundleDecoder) -> None:
    responses = case.responses(7)
    if case.route == "direct":
        assert decoder.candidates is None
        with pytest.raises(InputError, match="decodes the context directly"):
            decoder.similarity(responses)
        return
    assert decoder.candidates is not None
    assert decoder.candidates.names == CONCEPTS
    found, expected = decoder.similarity(responses), case.made.expected(responses)["similarity"]
    assert len(np.unique(expected.argmax(axis=1))) > 1
    assert_near(found, expected, "similarity")
    np.testing.assert_array_equal(decoder.similarity(responses[2:3]), found[2:3])
    with pytest.raises(ShapeError):
        decoder.similarity(responses[:, :-1])


def test_a_bundle_runs_where_there_is_no_pytorch(case: Case, tmp_path: Path) -> None:
    """The whole command, with every graph on ONNX Runtime."""
    np.save(tmp_path / "responses.npy", case.responses())
    run = ["run", case.bundle.folder, tmp_path / "responses.npy", "--out", tmp_path / "run", "--stage", "1"]
    arguments = [*map(str, run), "--backend", "ort", "--threads", "1"]
    code = "import sys; sys.modules['torch'] = None; from minddiffuser.runtime.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "run" / "images" / "stage1").iterdir())) == 4


def test_a_network_of_another_config_is_found_when_a_run_opens_it(tmp_path: Path) -> None:
    """Not at the first batch, after the models were opened or downloaded."""
    made = write_kind_checkpoint(tmp_path / "checkpoint", "network", (40,))
    backends.open(str(made.folder)).close()
    content = json.loads((made.folder / "checkpoint.json").read_text())
    for config, reason in (({"hidden": 25, "depth": 2}, "expected float32 \\(25, 40\\)"), ({"depth": 1}, "trunk.5")):
        content["decoders"][0]["network"]["config"] = config
        (made.folder / "checkpoint.json").write_text(json.dumps(content))
        with pytest.raises(FileError, match=reason):
            backends.open(made.folder)


def test_the_responses_of_all_trials_under_another_name_are_named_as_that(tmp_path: Path) -> None:
    """A .npz with one array of two axes is one trial to the reader, and to a decoder of one axis likely all of them."""
    made = write_kind_checkpoint(tmp_path / "checkpoint", "linear", (40,))
    training = open_checkpoint(made.folder).training
    np.savez(tmp_path / "r.npz", X=np.zeros((7, 40), np.float32))
    rows = open_responses(tmp_path / "r.npz").rows
    with pytest.raises(ShapeError, match="likely the responses of 7 trials, so in a .npz .* call that array 'resp"):
        screen(rows, training)
    np.savez(tmp_path / "r.npz", X=np.zeros((7, 41), np.float32))
    with pytest.raises(ShapeError, match="the checkpoint was fitted on 40 voxels"):
        screen(open_responses(tmp_path / "r.npz").rows, training)
