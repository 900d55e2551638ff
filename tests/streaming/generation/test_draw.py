from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.backends.base import Backend, Start
from minddiffuser.runtime.decoders.belonging import Decoded
from minddiffuser.runtime.generators.noise import trial_noise
from minddiffuser.runtime.images import to_uint8
from minddiffuser.runtime.refine import refine
from minddiffuser.runtime.refine.base import Problem
from minddiffuser.streaming.generation.draw import Enough, Frame, Undrawable, draw
from minddiffuser.streaming.generation.plan import Plan


def frames_of(backend: Backend[Any], decoded: Decoded, plan: Plan, most: int = 10**6) -> tuple[list[Frame], Any]:
    frames: list[Frame] = []

    def look(frame: Frame) -> None:
        frames.append(frame)
        if len(frames) == most:
            raise Enough

    return frames, draw(backend, decoded, "today/3", plan, 42, look)


def test_a_whole_plan_gives_the_picture_of_the_refiner_itself(
    backend: Backend[Any], features: list[Decoded], plan: Plan
) -> None:
    decoded = features[0]
    frames, drawn = frames_of(backend, decoded, plan)

    def noise(candidate: int) -> np.ndarray:
        return trial_noise(42, ["today/3"], backend.latent_shape, candidate)

    generator = backend.generator(decoded, noise(0), plan.sampling)
    stage1 = generator.stage1()
    assert plan.refine is not None
    found = refine(
        Problem(
            backend=backend,
            start=lambda rows: Start(context=decoded.context[list(rows)], latent=decoded.latent[list(rows)]),
            noise=noise,
            generator=generator,
            stage1=stage1,
            sampling=plan.sampling,
            target=decoded.structure,
            mask=backend.decoder.mask,
            semantic=None,
            rows_at_once=1,
        ),
        plan.refine,
        lambda _step: None,
    )
    np.testing.assert_array_equal(frames[0].image, to_uint8(stage1)[0])
    np.testing.assert_array_equal(drawn.image, to_uint8(found.image)[0])
    assert drawn.stage == 2
    assert drawn.n_candidates == 3
    assert drawn.n_frames == len(frames)
    assert [frame.number for frame in frames] == list(range(1, len(frames) + 1))
    assert [frame.finished for frame in frames].count(True) == 1
    assert frames[-1].finished
    assert found.finish_curve is not None
    assert drawn.loss == pytest.approx(found.finish_curve.min())


def test_ended_after_any_step_it_is_the_best_picture_so_far_and_comes_again(
    backend: Backend[Any], features: list[Decoded], plan: Plan
) -> None:
    whole, _ = frames_of(backend, features[1], plan)
    for most in range(1, len(whole) + 1):
        best = [frame.image for frame in whole[:most] if frame.kept][-1]
        for _ in range(2):
            frames, drawn = frames_of(backend, features[1], plan, most)
            assert drawn.n_frames == len(frames) == most
            np.testing.assert_array_equal(drawn.image, best)


def test_more_candidates_never_lose_what_was_found(backend: Backend[Any], features: list[Decoded], plan: Plan) -> None:
    frames, drawn = frames_of(backend, features[2], replace(plan, most_candidates=6))
    assert drawn.n_candidates == 6
    first, _ = frames_of(backend, features[2], plan)
    for a, b in zip(first, frames, strict=False):
        np.testing.assert_array_equal(a.image, b.image)
    assert drawn.loss is not None


def test_stage_1_alone_is_finished_at_once(backend: Backend[Any], features: list[Decoded], plan: Plan) -> None:
    frames, drawn = frames_of(backend, features[0], replace(plan, refine=None, most_candidates=0))
    assert [(frame.stage, frame.kept, frame.finished) for frame in frames] == [(1, True, True)]
    assert drawn.stage == 1
    np.testing.assert_array_equal(drawn.image, frames[0].image)


class Overflowing:
    """A backend whose loss, or whose pictures of stage 1, are NaN."""

    def __init__(self, backend: Backend[Any], *, stage1: bool) -> None:
        self._backend, self._stage1 = backend, stage1
        self.decoder, self.latent_shape = backend.decoder, backend.latent_shape

    def generator(self, *given: Any, **named: Any) -> Any:
        made = self._backend.generator(*given, **named)
        if self._stage1:
            picture = made.stage1()
            made.stage1 = lambda: np.full_like(picture, np.nan)
        return made

    def structural(self, *given: Any, **named: Any) -> Any:
        return tuple(np.full_like(one, np.nan) for one in self._backend.structural(*given, **named))


def test_a_refinement_that_overflows_leaves_stage_1(backend: Backend[Any], features: list[Decoded], plan: Plan) -> None:
    frames, drawn = frames_of(Overflowing(backend, stage1=False), features[0], plan)  # type: ignore[arg-type]
    assert drawn.stage == 1
    np.testing.assert_array_equal(drawn.image, frames[0].image)
    assert frames[-1].finished


def test_no_picture_of_stage_1_is_a_reason(backend: Backend[Any], features: list[Decoded], plan: Plan) -> None:
    with pytest.raises(Undrawable, match="stage 1 holds NaN"):
        frames_of(Overflowing(backend, stage1=True), features[0], plan)  # type: ignore[arg-type]


def test_the_noise_is_the_trials_own(backend: Backend[Any], features: list[Decoded], plan: Plan) -> None:
    pictures = [
        draw(backend, features[0], trial, replace(plan, refine=None), seed, lambda _frame: None).image
        for trial, seed in (("today/3", 42), ("today/3", 42), ("today/4", 42), ("today/3", 43))
    ]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    assert not np.array_equal(pictures[0], pictures[3])


def test_a_stage_2_that_raises_leaves_stage_1_and_says_why(
    backend: Backend[Any], features: list[Decoded], plan: Plan
) -> None:
    assert plan.refine is not None
    spoilt = replace(features[0], structure=np.full_like(features[0].structure, np.nan))
    frames, drawn = frames_of(backend, spoilt, plan)
    assert [frame.stage for frame in frames] == [1]
    assert drawn.stage == 1
    assert "is not finite" in drawn.fault
