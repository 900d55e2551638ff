"""Both stages of one batch on a world of random weights: what depends on what, not how good it looks."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.backends.base import Options
from minddiffuser.runtime.backends.torch import TorchBackend
from minddiffuser.runtime.decoders.belonging import Decoded
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.noise import trial_noise
from minddiffuser.runtime.generators.pixels import PixelGenerator
from minddiffuser.runtime.images import to_uint8
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine import refine
from minddiffuser.runtime.refine.settings import AdamSettings, GuidedSettings
from minddiffuser.runtime.run.reconstruct import Reconstructor, ReconstructSettings, Trials, phases
from minddiffuser.runtime.sampling import Sampling

SHORT = Sampling(n_noise=3, n_reverse=4)
REFINE = AdamSettings(steps=2, learning_rate=0.05, backprop_steps=1, seed=3)
RESPONSES = np.random.default_rng(1).standard_normal((4, 24)).astype(np.float32)
STIMULI = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def models(small_world: Path) -> Models:
    return load_models(str(small_world))


@pytest.fixture(scope="module")
def checkpoint(small_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(small_checkpoint)


def on_torch(checkpoint: Checkpoint, models: Models, **options: Any) -> TorchBackend:
    return TorchBackend(checkpoint, Options(**options), {}, models=models)


def made(checkpoint: Checkpoint, models: Models, responses: np.ndarray = RESPONSES, **choices: object) -> Reconstructor:
    settings = ReconstructSettings(**{"refine": REFINE, "sampling": SHORT, **choices})
    trials = Trials(responses=responses, good=[0, 1, 3])
    return Reconstructor(on_torch(checkpoint, models), trials, settings, stimuli=lambda trials: STIMULI[list(trials)])


def test_stage_1_is_the_generator_on_what_was_decoded(checkpoint: Checkpoint, models: Models) -> None:
    result = made(checkpoint, models, stage=1)((0, 3), RESPONSES[[0, 3]])
    decoded = checkpoint.decode(RESPONSES[[0, 3]])
    noise = trial_noise(3, ("0", "3"), models.latent_shape)
    generator = DiffusionGenerator(
        models,
        decoded.latent,
        decoded.context,
        checkpoint.uncond_context,
        noise,
        sampling=SHORT,
    )
    assert (result.stage1 == to_uint8(generator.stage1().numpy())).all()
    assert result.stage2 is None
    assert result.loss_curve is None
    assert set(result.seconds) == {"decode", "stage1"}


def test_both_stages_and_both_controls(checkpoint: Checkpoint, models: Models) -> None:
    reports: list[tuple[str, int, int]] = []
    settings = ReconstructSettings(refine=REFINE, controls="both", sampling=SHORT)
    run = Reconstructor(
        on_torch(checkpoint, models),
        Trials(responses=RESPONSES, good=[0, 1, 3]),
        settings,
        stimuli=lambda trials: STIMULI[list(trials)],
        on_step=lambda *step: reports.append(step),
    )
    result = run((0, 1), RESPONSES[:2])
    assert result.stage2 is not None
    assert result.loss_curve is not None
    assert result.best_step is not None
    assert result.stage2.shape == (2, 32, 32, 3)
    assert result.loss_curve.shape == (3, 2)
    assert (result.loss_curve[result.best_step, [0, 1]] == np.nanmin(result.loss_curve, axis=0)).all()
    assert set(result.controls) == {"shuffled", "oracle"}
    # Three targets, three pictures: none is another's.
    pictures = [result.stage2, result.controls["shuffled"], result.controls["oracle"]]
    assert all((a != b).any() for i, a in enumerate(pictures) for b in pictures[:i])
    refined = [(phase, k, 2) for phase in ("stage 2", "shuffled", "oracle") for k in range(3)]
    assert reports == [("decode", 1, 1), ("stage 1", 1, 1), *refined]
    assert {phase: sum(name == phase for name, *_ in reports) for phase in phases(settings)} == phases(settings)
    again = run((0, 1), RESPONSES[:2])
    assert (again.stage2 == result.stage2).all()


@pytest.mark.parametrize(("weight", "asked"), [(0.0, {False}), (0.1, {True})])
def test_the_semantic_target_is_decoded_only_where_it_counts(
    checkpoint: Checkpoint, models: Models, monkeypatch: pytest.MonkeyPatch, weight: float, asked: set[bool]
) -> None:
    """Its decoder's engine is opened for those runs alone, and what they take is part of what they are."""
    real, found = Checkpoint.decode, set()

    def decode(self: Checkpoint, rows: np.ndarray, *, screened: bool = False, semantic: bool = True) -> Decoded:
        found.add(semantic)
        decoded = real(self, rows, screened=screened, semantic=False)
        return replace(decoded, semantic=np.ones((len(rows), 32), np.float32)) if semantic else decoded

    monkeypatch.setattr(Checkpoint, "decode", decode)
    monkeypatch.setattr(checkpoint, "shapes", {**checkpoint.shapes, "semantic": (32,)})
    refine = replace(REFINE, steps=1, semantic_weight=weight)
    made(checkpoint, models, refine=refine, controls="shuffled")((0,), RESPONSES[:1])
    assert found == asked


def test_a_shuffled_target_is_another_good_trials(checkpoint: Checkpoint, models: Models) -> None:
    """With trial 2 bad and its row changed, nothing changes; with the partner's row changed, only the control does."""
    first = made(checkpoint, models, controls="shuffled")((0,), RESPONSES[:1])
    bad = RESPONSES.copy()
    bad[2] = 9
    same = made(checkpoint, models, bad, controls="shuffled")((0,), RESPONSES[:1])
    assert (same.controls["shuffled"] == first.controls["shuffled"]).all()
    moved = RESPONSES.copy()
    moved[[1, 3]] *= -1
    other = made(checkpoint, models, moved, controls="shuffled")((0,), RESPONSES[:1])
    assert (other.controls["shuffled"] != first.controls["shuffled"]).any()
    assert (other.stage2 == first.stage2).all()


def test_a_shuffled_target_is_that_of_another_picture(checkpoint: Checkpoint, models: Models) -> None:
    """Trials 0 and 1 showed one picture: the target of trial 0 is trial 3's, however the three are drawn."""
    settings = ReconstructSettings(refine=REFINE, controls="shuffled", sampling=SHORT)

    def shuffled(responses: np.ndarray, shown: str = "aaxb") -> np.ndarray:
        trials = Trials(responses=responses, good=[0, 1, 3], stimulus_ids=tuple(shown))
        run = Reconstructor(on_torch(checkpoint, models), trials, settings)
        return run((0,), RESPONSES[:1]).controls["shuffled"]

    first, of_one, of_three = shuffled(RESPONSES), RESPONSES.copy(), RESPONSES.copy()
    of_one[1] *= -1
    of_three[3] *= -1
    assert (shuffled(of_one) == first).all()
    assert (shuffled(of_three) != first).any()
    with pytest.raises(InputError, match="all 3 good ones showed the same"):
        shuffled(RESPONSES, "aaxa")


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"stage": 3}, "stage is 3"),
        ({"controls": "some"}, "control 'some' is unknown"),
        ({"stage": 1, "controls": "both"}, "belong to stage 2"),
        ({"refine": AdamSettings(backprop_steps=36)}, "36 of 35"),
        ({"refine": AdamSettings(params=("context",), backprop_steps=0)}, "name one or more"),
        ({"refine": AdamSettings(params=("pixels",))}, "name one or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(choices: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        ReconstructSettings(**choices)


def test_controls_need_what_they_compare_with(checkpoint: Checkpoint, models: Models) -> None:
    for controls, message in (("oracle", "needs the stimuli"), ("shuffled", "at least 2")):
        with pytest.raises(InputError, match=message):
            Reconstructor(
                on_torch(checkpoint, models),
                Trials(responses=RESPONSES, good=[0]),
                ReconstructSettings(refine=REFINE, controls=controls),
            )


def test_what_stage_2_would_stumble_over_is_refused_before(
    small_checkpoint: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(small_checkpoint)
    with pytest.raises(InputError, match="no decoder of the semantic feature"):
        made(checkpoint, models, refine=replace(REFINE, semantic_weight=0.1))
    made(checkpoint, models, stage=1, refine=replace(REFINE, semantic_weight=0.1))
    monkeypatch.setattr(checkpoint, "mask", np.zeros_like(checkpoint.mask))
    with pytest.raises(InputError, match="keeps no structure dimension"):
        made(checkpoint, models)


def test_recomputed_activations_give_the_same_pictures(checkpoint: Checkpoint, models: Models) -> None:
    settings = ReconstructSettings(refine=replace(REFINE, backprop_steps=None), sampling=SHORT)
    trials = Trials(responses=RESPONSES, good=[0, 1, 3])
    kept, again = (
        Reconstructor(on_torch(checkpoint, models, checkpointing=how), trials, settings)((0, 3), RESPONSES[[0, 3]])
        for how in ("off", "on")
    )
    assert (again.stage2 == kept.stage2).all()
    np.testing.assert_array_equal(again.loss_curve, kept.loss_curve)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_picture_that_is_not_finite_is_lost_and_the_others_stay(
    checkpoint: Checkpoint, models: Models, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """Of stage 1: no picture of that trial is left, of any kind, and the other trials' are what they were."""
    whole = made(checkpoint, models, controls="oracle")((0, 1, 3), RESPONSES[[0, 1, 3]])
    real = DiffusionGenerator.stage1

    def overflowed(self: DiffusionGenerator) -> torch.Tensor:
        images = real(self).clone()
        images[1, 0, 5, 5] = value
        return images

    monkeypatch.setattr(DiffusionGenerator, "stage1", overflowed)
    result = made(checkpoint, models, controls="oracle")((0, 1, 3), RESPONSES[[0, 1, 3]])
    assert result.lost == {1: "its picture of stage 1 holds NaN or infinite values"}
    assert result.stage2 is not None
    assert whole.stage2 is not None
    for now, before in ((result.stage1, whole.stage1), (result.stage2, whole.stage2)):
        assert (now[[0, 2]] == before[[0, 2]]).all()
    assert (result.controls["oracle"][[0, 2]] == whole.controls["oracle"][[0, 2]]).all()


def test_a_batch_without_any_picture_is_not_refined(
    checkpoint: Checkpoint, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflowed(self: DiffusionGenerator) -> torch.Tensor:
        return torch.full((2, 3, 32, 32), torch.nan)

    monkeypatch.setattr(DiffusionGenerator, "stage1", overflowed)
    result = made(checkpoint, models)((0, 3), RESPONSES[[0, 3]])
    assert set(result.lost) == {0, 3}
    assert result.stage2 is None


@pytest.mark.parametrize("evaluation", [1, 4])
def test_a_refinement_that_breaks_off_is_reported_by_trial(
    checkpoint: Checkpoint, models: Models, monkeypatch: pytest.MonkeyPatch, evaluation: int
) -> None:
    """In stage 2 (evaluation 1) or in the control after it (evaluation 4 of three each)."""
    from minddiffuser.runtime.refine.autograd import AutogradObjective

    real, calls = AutogradObjective.value_and_gradient, []

    def value_and_gradient(self: AutogradObjective, params: Any) -> Any:
        loss, gradients, image = real(self, params)
        calls.append(len(loss))
        if len(calls) - 1 == evaluation:
            loss = loss.clone()
            loss[1] = torch.inf
        return loss, gradients, image

    monkeypatch.setattr(AutogradObjective, "value_and_gradient", value_and_gradient)
    result = made(checkpoint, models, controls="oracle")((0, 3), RESPONSES[[0, 3]])
    assert result.failed is not None
    assert result.failed.tolist() == [False, True]


def test_what_a_picture_begins_with_is_the_same_bits_in_every_batch_and_row(
    checkpoint: Checkpoint, models: Models
) -> None:
    """Networks may round differently in batches of another size; noise, latent and context are given exactly."""
    ids = ("a", "b", "c", "d")

    def start(rows: list[int], trials: list[int]) -> dict[str, Any]:
        """That of the trials among a run of these rows."""
        taken: list[dict[str, Any]] = []

        class Watched(TorchBackend):
            def generator(self, decoded: Any, noise: Any, *rest: Any, **named: Any) -> Any:
                taken.append({"noise": noise, "latent": decoded.latent, "context": decoded.context})
                return super().generator(decoded, noise, *rest, **named)

        responses, settings = RESPONSES[rows], ReconstructSettings(stage=1, sampling=SHORT)
        names = [ids[row] for row in rows]
        some = Trials(responses=responses, good=range(len(rows)), ids=names)
        run = Reconstructor(Watched(checkpoint, Options(), {}, models=models), some, settings)
        run(trials, responses[trials])
        return taken[0]

    whole = start([0, 1, 2, 3], [0, 1, 2, 3])
    for rows, trials in (([3, 1], [0, 1]), ([3, 1], [1]), ([1], [0])):
        part = start(rows, trials)
        originals = [rows[trial] for trial in trials]
        for name in ("noise", "latent", "context"):
            np.testing.assert_array_equal(part[name], whole[name][originals])


# The small checkpoint has no decoder of the semantic feature.
GUIDED = GuidedSettings(
    start_steps=3,
    start_step_size=0.1,
    finish_steps=2,
    finish_step_size=0.1,
    step_size=0.25,
    candidates=2,
    n_steps=4,
    strength=0.5,
    guided_share=1.0,
    semantic_weight=0.0,
    seed=3,
)


def test_guided_stage_2_and_both_controls(checkpoint: Checkpoint, models: Models) -> None:
    reports: list[tuple[str, int, int]] = []
    settings = ReconstructSettings(refine=GUIDED, controls="both", sampling=SHORT)
    result = Reconstructor(
        on_torch(checkpoint, models),
        Trials(responses=RESPONSES, good=[0, 1, 3]),
        settings,
        stimuli=lambda trials: STIMULI[list(trials)],
        on_step=lambda *step: reports.append(step),
    )((0, 1), RESPONSES[:2])
    pictures = [result.stage2, result.controls["shuffled"], result.controls["oracle"], result.stage1]
    assert all((a != b).any() for i, a in enumerate(pictures) for b in pictures[:i])
    # Two guided steps, the picture, and two steps that finish it; of two candidates, the lower loss is kept.
    assert result.loss_curve.shape == (3, 2)
    assert result.candidate_losses.shape == (2, 2)
    np.testing.assert_array_equal(result.loss_curve[-1], result.candidate_losses.min(axis=0))
    assert result.best_step.tolist() == [2, 2]
    assert result.finish_curve.shape == (3, 2)
    # Three steps of the decoded latent itself, two of each candidate, and two of the kept one.
    refined = [(phase, k, 9) for phase in ("stage 2", "shuffled", "oracle") for k in range(1, 10)]
    assert reports == [("decode", 1, 1), ("stage 1", 1, 1), *refined]
    assert {phase: sum(name == phase for name, *_ in reports) for phase in phases(settings)} == phases(settings)


@pytest.mark.parametrize(
    "rows_at_once", [pytest.param(1, marks=pytest.mark.long), 3, pytest.param(6, marks=pytest.mark.long)]
)
def test_a_guided_trial_is_the_same_in_any_company(checkpoint: Checkpoint, models: Models, rows_at_once: int) -> None:
    """Networks round differently in batches of another size, and pictures differ by a unit at most."""
    whole = made(checkpoint, models, refine=GUIDED)((0, 1, 3), RESPONSES[[0, 1, 3]])
    settings = ReconstructSettings(refine=GUIDED, sampling=SHORT)
    trials = Trials(responses=RESPONSES, good=[0, 1, 3])
    run = Reconstructor(on_torch(checkpoint, models), trials, settings, rows_at_once=rows_at_once)
    for some in ((3,), (3, 0)):
        part, places = run(some, RESPONSES[list(some)]), [(0, 1, 3).index(trial) for trial in some]
        assert np.abs(part.stage2.astype(int) - whole.stage2[places]).max() <= 1
        np.testing.assert_allclose(part.loss_curve, whole.loss_curve[:, places], rtol=1e-4)
        np.testing.assert_allclose(part.candidate_losses, whole.candidate_losses[:, places], rtol=1e-4)


def test_without_a_step_the_guided_picture_is_that_of_stage_1(checkpoint: Checkpoint, models: Models) -> None:
    refine = replace(GUIDED, candidates=1, start_steps=0, finish_steps=0, step_size=0.0, n_steps=None, strength=None)
    result = made(checkpoint, models, refine=refine)((0, 1), RESPONSES[:2])
    assert (result.stage2 == result.stage1).all()


def test_frames_show_the_picture_growing(checkpoint: Checkpoint, models: Models) -> None:
    frames: list[tuple[str, list[int], np.ndarray]] = []
    settings = ReconstructSettings(refine=replace(GUIDED, n_steps=8), controls="shuffled", sampling=SHORT)
    trials = Trials(responses=RESPONSES, good=[0, 1, 3])
    run = Reconstructor(
        on_torch(checkpoint, models),
        trials,
        settings,
        on_frame=lambda phase, shown, pictures: frames.append((phase, list(shown), pictures)),
    )
    result = run((3, 1), RESPONSES[[3, 1]])
    # Three steps of the decoded latents, four guided ones of each of two candidates, and two that finish the kept one,
    # for the target and for another trial's.
    assert [(phase, shown) for phase, shown, _ in frames] == [
        (phase, [3, 1]) for phase in ("stage 2", "shuffled") for _ in range(3 + 2 * 4 + 2)
    ]
    assert all(pictures.shape == (2, 32, 32, 3) and pictures.dtype == np.uint8 for *_, pictures in frames)

    def distance(row: int, step: int) -> float:
        kept = int(result.candidate_losses[:, row].argmin())
        return float(np.abs(frames[3 + 4 * kept + step][2][row] - result.stage2[row].astype(float)).mean())

    for row in range(2):
        assert distance(row, 3) < distance(row, 0)


@pytest.mark.parametrize("which", [(0,), (0, 1)])
def test_candidates_without_a_finite_loss_are_never_kept(
    checkpoint: Checkpoint, models: Models, monkeypatch: pytest.MonkeyPatch, which: tuple[int, ...]
) -> None:
    """Of trial 3 one candidate breaks off, or all of them do: then the trial keeps its picture of stage 1."""
    real, passes = TorchBackend.structural, []

    def structural(self: TorchBackend, x0: torch.Tensor, *rest: Any) -> Any:
        loss, gradient, image = real(self, x0, *rest)
        passes.append(len(loss))
        # After three steps of the decoded latents: two guided steps and the picture, for each candidate.
        if (len(passes) - 1 - 3) // 3 in which:
            loss = loss.clone()
            loss[1] = torch.nan
        return loss, gradient, image

    whole = made(checkpoint, models, refine=GUIDED)((0, 3), RESPONSES[[0, 3]])
    monkeypatch.setattr(TorchBackend, "structural", structural)
    result = made(checkpoint, models, refine=GUIDED)((0, 3), RESPONSES[[0, 3]])
    assert result.failed.tolist() == [False, len(which) == 2]
    assert np.isnan(result.candidate_losses[:, 1]).tolist() == [k in which for k in range(2)]
    assert (result.stage2[0] == whole.stage2[0]).all()
    if len(which) == 2:
        assert (result.stage2[1] == result.stage1[1]).all()
    else:
        assert result.loss_curve[-1, 1] == whole.candidate_losses[1, 1]
    assert result.lost == {}


def test_guided_needs_a_generator_that_samples_in_steps() -> None:
    problem: Any = SimpleNamespace(generator=PixelGenerator.__new__(PixelGenerator))
    with pytest.raises(InputError, match="a PixelGenerator was given, which does not sample in steps, .* with adam"):
        refine(problem, GUIDED, lambda step: None)
