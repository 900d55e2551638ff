"""Runs without a decoded feature: nothing of that feature reaches a picture, and everything else stays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.backends.base import Options
from minddiffuser.runtime.backends.torch import TorchBackend
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.noise import trial_noise
from minddiffuser.runtime.images import to_uint8
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine.settings import PRESETS, GuidedSettings
from minddiffuser.runtime.run.ablation import without
from minddiffuser.runtime.run.reconstruct import Reconstructor, ReconstructSettings, Trials
from minddiffuser.runtime.run.without import WITHOUT, without_note
from minddiffuser.runtime.sampling import Sampling

SHORT = Sampling(n_steps=6, n_noise=4, n_reverse=4)
GUIDED = GuidedSettings(
    candidates=1, start_steps=1, finish_steps=1, n_steps=4, strength=0.5, semantic_weight=0.0, seed=3
)
RESPONSES = np.random.default_rng(1).standard_normal((2, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def backend(small_world: Path, small_checkpoint: Path) -> TorchBackend:
    return TorchBackend(open_checkpoint(small_checkpoint), Options(), {}, models=load_models(str(small_world)))


def pictures(backend: TorchBackend, settings: ReconstructSettings, responses: np.ndarray = RESPONSES) -> dict:
    made = Reconstructor(backend, Trials(responses=responses, good=[0, 1]), settings)((0, 1), responses)
    return {"stage1": made.stage1, "stage2": made.stage2}


def test_without_context_the_empty_captions_takes_its_place(backend: TorchBackend) -> None:
    settings = without(ReconstructSettings(stage=1, refine=GUIDED, sampling=SHORT), ["context"])
    decoder = backend.decoder
    generator = DiffusionGenerator(
        backend.models,
        decoder.decode(RESPONSES).latent,
        np.stack([decoder.uncond_context] * 2),
        decoder.uncond_context,
        trial_noise(3, ("0", "1"), backend.latent_shape),
        sampling=SHORT,
    )
    assert (pictures(backend, settings)["stage1"] == to_uint8(generator.stage1().numpy())).all()


def test_without_context_and_latent_stage_1_is_the_same_for_all_responses(backend: TorchBackend) -> None:
    settings = without(ReconstructSettings(refine=GUIDED, sampling=SHORT), ["latent", "context"])
    first, other = (pictures(backend, settings, rows) for rows in (RESPONSES, RESPONSES[::-1].copy()))
    assert (first["stage1"] == other["stage1"]).all()
    assert (first["stage2"] != other["stage2"]).any()  # which the structure still drives


def test_without_latent_both_stages_begin_from_noise_alone() -> None:
    settings = without(ReconstructSettings(), ["latent"])
    assert settings.sampling.n_reverse == settings.sampling.n_steps == 50
    assert settings.sampling.start == 49
    assert isinstance(settings.refine, GuidedSettings)
    assert settings.refine.sampling(settings.sampling).n_reverse == settings.refine.n_steps
    assert settings.refine.n_start == 0
    paper = without(ReconstructSettings(refine=PRESETS["paper"]), ["latent"])
    assert paper.refine == PRESETS["paper"]


def test_without_structure_there_is_stage_1_alone() -> None:
    assert without(ReconstructSettings(), ["structure"]).stage == 1
    with pytest.raises(InputError, match="controls"):
        without(ReconstructSettings(controls="both"), ["structure"])


def test_what_is_recorded(backend: TorchBackend) -> None:
    plain = ReconstructSettings()
    assert not {"without", "percent"} & plain.as_dict().keys()  # a run that was begun before goes on
    assert without(plain, ["latent", "context"]).as_dict()["without"] == ("context", "latent")
    assert replace(plain, percent=10.0).as_dict()["percent"] == 10.0
    assert without_note(()) == ()
    for name in WITHOUT:
        assert f"without the decoded {name} " in without_note((name,))[0]


def test_names_that_are_none(backend: TorchBackend) -> None:
    with pytest.raises(InputError, match="context, latent, structure"):
        without(ReconstructSettings(), ["z"])
    with pytest.raises(InputError, match="once"):
        without(ReconstructSettings(), ["latent", "latent"])
    with pytest.raises(InputError, match="percent"):
        ReconstructSettings(percent=0.0)
    with pytest.raises(InputError, match="percent is 10, which belongs to stage 2"):
        without(ReconstructSettings(percent=10.0), ["structure"])
