from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.generators.ddim import add_noise, ddim_schedule, ddim_update
from minddiffuser.runtime.models.noise_schedule import read_schedule
from minddiffuser.runtime.sampling import Sampling

SD = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
REMOVED = object()


def write(folder: Path, changes: dict[str, Any]) -> Path:
    config = {name: value for name, value in (SD | changes).items() if value is not REMOVED}
    path = folder / "scheduler_config.json"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"_class_name": "DDIMScheduler", "prediction_type": "epsilon", "timestep_spacing": "leading"},
        {"steps_offset": 0},
        {"steps_offset": REMOVED},
        {"steps_offset": 7},
        {"set_alpha_to_one": True},
        {"set_alpha_to_one": REMOVED},
        {"_class_name": "DDIMScheduler", "set_alpha_to_one": REMOVED, "steps_offset": REMOVED},
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
        {"beta_schedule": REMOVED, "beta_start": REMOVED, "beta_end": REMOVED},
        {"num_train_timesteps": 500},
        {"num_train_timesteps": 77, "trained_betas": np.linspace(0.001, 0.02, 77).tolist()},
        {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
        {"thresholding": False, "rescale_betas_zero_snr": False, "clip_sample_range": 2.0, "sample_max_value": 3.0},
    ],
)
def test_a_whole_chain_is_that_of_diffusers_for_the_same_file(
    changes: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    path = write(tmp_path, changes)
    with warnings.catch_warnings(action="ignore"):
        theirs = DDIMScheduler.from_pretrained(tmp_path)
    theirs.set_timesteps(50)
    read = read_schedule(path)
    ours = ddim_schedule(read, Sampling(n_noise=None, n_reverse=40))
    assert ours.timesteps.tolist() == theirs.timesteps[10:].tolist()
    clean, noise, found = (torch.from_numpy(rng.standard_normal((2, 4, 3, 3))) for _ in range(3))
    latent, expected = add_noise(clean, noise, ours.noise_keep), theirs.add_noise(clean, noise, theirs.timesteps[10:11])
    for (_, keep, keep_next), timestep in zip(ours, theirs.timesteps[10:], strict=True):
        latent = ddim_update(latent, found, keep, keep_next)
        expected = theirs.step(found, timestep, expected).prev_sample
    # Their alphas are float32: 40 steps, each exact to some units in the last place of numbers of size 1 to 20.
    torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"clip_sample": True}, "clip_sample True, expected False"),
        ({"thresholding": True}, "thresholding True, expected False"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr True"),
        ({"timestep_spacing": "trailing"}, "timestep_spacing 'trailing', expected 'leading'"),
        ({"timestep_spacing": "linspace", "_class_name": "EulerDiscreteScheduler"}, "timestep_spacing 'linspace'"),
        ({"prediction_type": "v_prediction"}, "prediction_type 'v_prediction'"),
        ({"prediction_type": "sample"}, "prediction_type 'sample'"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type 'continuous'"),
        ({"use_flow_sigmas": True, "_class_name": "UniPCMultistepScheduler"}, "use_flow_sigmas True"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "'_class_name' is 'FlowMatchEulerDiscreteScheduler'"),
        ({"_class_name": "LCMScheduler"}, "'_class_name' is 'LCMScheduler'"),
        ({"_class_name": "EDMEulerScheduler"}, "'_class_name' is"),
        ({"_class_name": REMOVED}, "'_class_name' is missing"),
        ({"_class_name": []}, "'_class_name' is"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "expected scaled_linear or linear"),
        ({"beta_schedule": None}, "'beta_schedule' is None, expected a text"),
        ({"beta_start": -0.1}, r"betas outside \(0, 1\)"),
        ({"beta_end": float("nan")}, "'beta_end' is nan, expected a number"),
        ({"trained_betas": [0.1, 0.2]}, "expected null or num_train_timesteps = 1000 numbers"),
        ({"trained_betas": [0.99] * 1000}, "leave nothing of the signal"),
        ({"steps_offset": None}, "'steps_offset' is None, expected a whole number"),
        ({"steps_offset": 0.5}, "'steps_offset' is 0.5"),
        ({"steps_offset": 1000}, "expected less than the 1000 trained timesteps"),
        ({"num_train_timesteps": 10**12}, "expected 0 to 1048576"),
    ],
)
def test_what_ddim_over_the_betas_does_not_do_is_refused_by_name(
    changes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_schedule(write(tmp_path, changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"_class_name": "DDIMScheduler"}, []),
        ({"clip_sample": REMOVED}, []),
        ({"steps_offset": 0}, ["says steps_offset 0: taken as it is"]),
        ({"steps_offset": REMOVED}, ["says no steps_offset, which is 0"]),
        ({"_class_name": "DPMSolverMultistepScheduler"}, ["names DPMSolverMultistepScheduler: sampled with DDIM"]),
        ({"shift": 3.0}, ["has 'shift', which no scheduler of this kind has"]),
        ({"prediction_tpye": "v_prediction"}, ["has 'prediction_tpye', which no scheduler"]),
        ({"skip_prk_steps": True, "solver_order": 2, "timestep_type": "discrete"}, []),
        (
            {"beta_start": REMOVED},
            ["leaves out what the model was trained with: taken as PNDMScheduler's own, beta_st"],
        ),
        ({"trained_betas": [0.001] * 1000, "beta_end": REMOVED}, []),
        ({"_class_name": "HeunDiscreteScheduler", "steps_offset": 2}, ["names Heun", "says steps_offset 2"]),
    ],
)
def test_what_is_taken_otherwise_is_said_in_one_line_each(
    changes: dict[str, Any], said: list[str], tmp_path: Path
) -> None:
    notes = read_schedule(write(tmp_path, changes)).notes
    assert len(notes) == len(said)
    for note, words in zip(notes, said, strict=True):
        assert words in note
        assert "\n" not in note


def test_absent_betas_are_those_of_the_file_s_own_class(tmp_path: Path) -> None:
    # Heun's defaults are other betas than DDIM's: they belong to the training, not to the sampler.
    from diffusers import HeunDiscreteScheduler

    absent = {"_class_name": "HeunDiscreteScheduler", "beta_start": REMOVED, "beta_end": REMOVED}
    read = read_schedule(write(tmp_path, absent | {"beta_schedule": REMOVED}))
    with warnings.catch_warnings(action="ignore"):
        theirs = HeunDiscreteScheduler().alphas_cumprod.numpy()
    np.testing.assert_allclose(read.alphas_cumprod, theirs, rtol=1e-4)
