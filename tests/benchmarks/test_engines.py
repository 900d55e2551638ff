"""The CPU benchmark: what it counts, how it times, and that its rivals do the same work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.export.graphs.base import network_graph
from minddiffuser.runtime.backends.reference import TorchEngine
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models

FOLDER = Path(__file__).parents[2] / "benchmarks"
Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def models(small_world: Path) -> Models:
    return load_models(str(small_world))


def row(load: Load, **given: Any) -> Any:
    standard = {"milliseconds": 1.0, "speedup": 1.0, "gflops": 50.0, "difference": {}}
    return load("tables").Row(**{**standard, **given})


def test_contestants_take_turns(load: Load) -> None:
    called: list[str] = []
    now = [0.0]
    lasts = {"a": 1.0, "b": 3.0}

    def work(name: str) -> Callable[[], None]:
        def run() -> None:
            called.append(name)
            now[0] += lasts[name]

        return run

    seconds = load("timing").interleaved(
        {name: work(name) for name in lasts}, 3, clock=lambda: now[0], pause=lambda _seconds: None
    )
    assert called == ["a", "a", "b", "b", *["a", "b"] * 3]
    assert seconds == {"a": [1.0] * 3, "b": [3.0] * 3}


def test_short_work_is_repeated_within_a_sample(load: Load) -> None:
    now, calls = [0.0], [0]

    def run() -> None:
        calls[0] += 1
        now[0] += 0.004

    timing = load("timing")
    seconds = timing.interleaved({"a": run}, 2, clock=lambda: now[0], pause=lambda _seconds: None)
    assert calls[0] == 2 + 2 * 13
    assert seconds["a"] == pytest.approx([0.004, 0.004])


def test_ratio_is_of_neighbours_in_time(load: Load) -> None:
    timing = load("timing")
    # The machine was three times slower in the second turn, for both.
    assert timing.speedup([1.0, 3.0, 1.0], of=[2.0, 6.0, 2.0]) == 2.0
    assert timing.median_ms([0.001, 0.5, 0.002]) == 2.0


def test_both_stages_are_counted(load: Load, models: Models) -> None:
    counts = load("flops").count(models)
    assert counts.picture(35) == 35 * counts.step + counts.decode
    assert counts.iteration(0) == counts.head_gradient
    # A derivative with frozen weights costs what the pass itself does; in attention, where both factors move, twice.
    assert 1.9 * counts.step < counts.step_gradient < 2.2 * counts.step
    assert counts.head_gradient > 1.9 * counts.decode
    # Back to the latent alone is less than back to the context too.
    assert 0.8 * counts.step < counts.step_back < counts.step_gradient - counts.step
    assert counts.guided(14, 0) == 14 * counts.step + counts.head_gradient
    assert counts.guided(14, 10) - counts.guided(14, 9) == counts.step_back + counts.head_gradient


def test_peak_rate_is_that_of_a_product(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    flops = load("flops")
    ticks = iter(np.arange(0, 10, 0.5).tolist())
    monkeypatch.setattr(flops.time, "perf_counter", lambda: next(ticks))
    assert flops.peak_flops(8, tries=2) == 2 * 8**3 / 0.5


def test_the_pipeline_computes_our_picture(load: Load, models: Models) -> None:
    trials = load("trials").draw(models, 2)
    pipeline = load("rivals").Pipeline(models, trials)
    ours = DiffusionGenerator(models, *trials.start()).stage1()
    theirs = pipeline.pictures()
    assert theirs.shape == (2, 3, 32, 32)
    assert torch.allclose(theirs, ours, atol=1e-4)
    assert torch.equal(pipeline.pictures(), theirs)
    before_decoding = DiffusionGenerator(models, *trials.start(), backprop_steps=0).initial()["latent"]
    assert torch.allclose(pipeline.latents(), before_decoding, atol=1e-3)


def test_a_timestep_as_a_tensor_changes_nothing(load: Load, models: Models) -> None:
    from dataclasses import replace

    jobs, trials = load("jobs"), load("trials").draw(models, 2)
    wrapped = replace(models, unet=load("rivals").TensorTimestep(models.unet))
    plain, timed = (jobs.by_autograd(which, trials, 2, checkpointing=False)() for which in (models, wrapped))
    assert torch.equal(plain["picture"], timed["picture"])
    assert torch.equal(plain["gradient"], timed["gradient"])
    assert plain["gradient"].abs().amax((1, 2, 3)).min() > 0


@pytest.mark.long
def test_a_guided_pass_is_the_same_work_for_both(load: Load, models: Models) -> None:
    jobs, trials = load("jobs"), load("trials").draw(models, 2)
    graphs = [network_graph(name, models, semantic=False) for name in load("engines").GRAPHS]
    engines = {graph.name: TorchEngine(graph.name, models, graph.inputs, graph.outputs) for graph in graphs}
    counts = load("flops").count(models)
    job = jobs.guided_job(jobs.Sources(models, None, engines), trials, counts)
    assert list(job.contestants) == [jobs.AUTOGRAD, jobs.ENGINES]
    assert job.flops == 2 * counts.guided(14, 10)
    first, second = (work() for work in job.contestants.values())
    assert first["loss"].shape == (10 + 1, 2)
    np.testing.assert_allclose(second["loss"], first["loss"], rtol=1e-3)
    np.testing.assert_allclose(second["picture"], np.asarray(first["picture"]), atol=2e-3)
    assert np.array_equal(job.contestants[jobs.ENGINES]()["picture"], second["picture"])


def test_rows_compare_with_the_first(load: Load) -> None:
    tables = load("tables")
    contestants = {
        "rival": lambda: {"picture": np.zeros((2, 3)), "gradient": np.array([3.0, 4.0])},
        "ours": lambda: {"picture": np.full((2, 3), -0.25), "gradient": np.array([3.0, 3.5])},
    }
    job = tables.Job(name="job", batch=2, contestants=contestants, flops=4e9, parts=4)
    rival, ours = tables.rows_of(job, {"rival": [2.0, 4.0, 2.0], "ours": [1.0, 2.0, 1.0]})
    assert (rival.milliseconds, rival.speedup, rival.gflops) == (500.0, 1.0, 2.0)
    assert (ours.milliseconds, ours.speedup, ours.gflops) == (250.0, 2.0, 4.0)
    assert ours.difference == {"picture": 0.25, "gradient": pytest.approx(0.1)}
    assert tables.unequal([rival, ours], {"picture": 0.1, "gradient": 0.2}) == [
        "ours in job, batch 2: picture differs by 2.5e-01, allowed 0.1"
    ]


def test_nan_is_not_equal(load: Load) -> None:
    bad = row(load, job="job", batch=1, contestant="ours", difference={"picture": float("nan")})
    assert len(load("tables").unequal([bad], {"picture": 1.0})) == 1


def test_goals_are_judged_for_each_batch(load: Load) -> None:
    rows = [
        row(load, job="job", batch=batch, contestant=name, speedup=speedup)
        for batch, name, speedup in ((1, "rival", 1.0), (1, "ours", 3.0), (16, "rival", 1.0), (16, "ours", 1.5))
    ]
    goal = load("tables").Goal(job="job", contestant="ours", against="rival", at_least=2.0)
    assert [(verdict["times_faster"], verdict["met"]) for verdict in goal.verdicts(rows)] == [(3.0, True), (1.5, False)]
    assert goal.verdicts(rows[:1]) == []


def test_report_as_table_and_as_json(load: Load) -> None:
    engines = load("engines")
    args = engines.parser().parse_args(["--threads", "1"])
    rows = [
        row(load, job=engines.PICTURE, batch=1, contestant=name, speedup=speedup, difference={"picture": 1e-6})
        for name, speedup in ((engines.DIFFUSERS, 1.0), (engines.ENGINES, 2.5))
    ]
    found = engines.report(args, rows, 1e11, {"diffusers, torch.compile": 12.0})
    assert json.loads(json.dumps(found))["goals"][0]["met"] is True
    printed = engines.text(found)
    assert "100 GFLOP/s" in printed
    assert sum(" 50% " in line for line in printed.splitlines()) == 2
    assert [line for line in printed.splitlines() if line.startswith("met")] == [
        f"met       2.50 x  {engines.PICTURE}, batch 1: {engines.ENGINES} 2 x faster than {engines.DIFFUSERS}"
    ]
    assert "NOT EQUAL" not in printed


def test_a_mistake_is_one_sentence(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    engines = load("engines")
    threads = torch.get_num_threads()
    monkeypatch.setattr(engines, "peak_flops", lambda _size: 1.0)
    monkeypatch.setattr(sys, "argv", ["engines.py", "--bundle", str(tmp_path), "--no-compile", "--threads", "1"])
    try:
        assert engines.main() == 2
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert str(tmp_path) in printed.err
    assert len(printed.err.splitlines()) == 1
