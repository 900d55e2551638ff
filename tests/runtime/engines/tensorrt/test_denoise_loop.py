"""The loop as one CUDA graph, on a GPU that is played: what is recorded, when, and that the numbers are the loop's."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minddiffuser.runtime.engines.tensorrt.arena import Arena
from minddiffuser.runtime.engines.tensorrt.denoise_loop import DenoiseLoop
from minddiffuser.runtime.engines.tensorrt.engine import TrtEngine, open_trt
from minddiffuser.runtime.engines.tensorrt.library import TrtFailure
from minddiffuser.runtime.errors import InputError, ShapeError


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    if not hasattr(module, "Fake"):
        spec.loader.exec_module(module)
    return module


fakes = _load("trt_fakes")
N_STEPS = 35


@pytest.fixture
def device() -> Any:
    return fakes.FakeDevice()


@pytest.fixture
def fake(device: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    played = fakes.Fake(device)
    monkeypatch.setitem(sys.modules, "tensorrt", played.module)
    return played


@pytest.fixture
def denoise(fake: Any, device: Any, tmp_path: Path) -> TrtEngine:
    return open_trt(fakes.plan_file(tmp_path), device=device)


def coefficients(rng: np.random.Generator, n_steps: int = N_STEPS) -> NDArray[np.float32]:
    table = rng.uniform(0.5, 1.0, (n_steps, 3)).astype(np.float32)
    table[:, 0] = np.arange(n_steps)[::-1]
    return table


def by_hand(given: dict[str, NDArray[Any]], table: NDArray[np.float32]) -> NDArray[Any]:
    latents = [given["latent"]]
    for row in table:
        latents.append(fakes.guided_step({**given, "latent": latents[-1], "step": row}))
    return np.stack(latents)


def run(loop: DenoiseLoop, given: dict[str, Any], table: NDArray[np.float32]) -> Any:
    names = ("context", "uncond_context", "guidance")
    return loop.run(given["latent"], table, **{name: given[name] for name in names})


@pytest.mark.parametrize("n_steps", [1, 2, N_STEPS])
@pytest.mark.parametrize("on_the_gpu", [False, True])
def test_the_latents_of_all_steps_are_the_loops(
    denoise: TrtEngine, device: Any, rng: np.random.Generator, n_steps: int, on_the_gpu: bool
) -> None:
    table, given = coefficients(rng, n_steps), fakes.feeds(rng)
    feeds = {name: device.adopt(array) for name, array in given.items()} if on_the_gpu else given
    found = run(DenoiseLoop(denoise), feeds, table)
    assert found.shape == (n_steps + 1, *given["latent"].shape)
    np.testing.assert_array_equal(device.to_numpy(found), by_hand(given, table))


def test_it_is_recorded_once_for_each_shape(denoise: TrtEngine, device: Any, rng: np.random.Generator) -> None:
    loop = DenoiseLoop(denoise)
    for batch in (2, 3, 2, 3, 2):
        table, given = coefficients(rng), fakes.feeds(rng, batch)  # new arrays, new coefficients each time
        np.testing.assert_array_equal(run(loop, given, table).value, by_hand(given, table))
    assert device.count("record") == 2
    assert device.named("launch") == [(N_STEPS,)] * 5
    # One run outside of each recording, and every step once within.
    assert device.count("enqueue") == 2 * (1 + N_STEPS)
    run(loop, fakes.feeds(rng), coefficients(rng, 7))
    assert device.count("record") == 3


def test_a_replay_queues_one_launch_and_waits_for_nothing(
    denoise: TrtEngine, device: Any, rng: np.random.Generator
) -> None:
    loop = DenoiseLoop(denoise)
    run(loop, fakes.feeds(rng), coefficients(rng))
    device.log.clear()
    run(loop, fakes.feeds(rng), coefficients(rng))
    assert [entry[0] for entry in device.log] == ["enter", *["copy"] * 5, "launch", "allocate", "copy", "leave"]


def test_it_is_never_replayed_on_memory_that_moved(
    fake: Any, device: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    arena = Arena(device)
    loop = DenoiseLoop(open_trt(fakes.plan_file(tmp_path), device=device, arena=arena))
    table, given = coefficients(rng), fakes.feeds(rng)
    run(loop, given, table)
    fake.scratch_bytes = 5000
    open_trt(fakes.plan_file(tmp_path), device=device, arena=arena)  # the scratch memory moves
    np.testing.assert_array_equal(run(loop, given, table).value, by_hand(given, table))
    assert device.count("record") == 2
    assert device.named("scratch")[-1] == (arena.pointer, arena.size)
    (recording,) = loop._recordings.values()
    recording.buffers["context"] = device.allocate(given["context"].shape, "float32")  # type: ignore[index]
    np.testing.assert_array_equal(run(loop, given, table).value, by_hand(given, table))
    assert device.count("record") == 3
    run(loop, given, table)
    assert device.count("record") == 3


def test_a_recording_has_a_context_of_its_own(denoise: TrtEngine, device: Any, rng: np.random.Generator) -> None:
    loop = DenoiseLoop(denoise)
    table, given = coefficients(rng), fakes.feeds(rng)
    run(loop, given, table)
    denoise.run(fakes.feeds(rng, 4))  # sets another shape, which would break the recording's context
    run(loop, given, table)
    assert device.count("context") == 2
    assert device.count("record") == 1


def test_only_the_latest_recordings_are_kept(denoise: TrtEngine, device: Any, rng: np.random.Generator) -> None:
    loop, given = DenoiseLoop(denoise), fakes.feeds(rng)
    for n_steps in (1, 2, 3, 4, 1, 5, 1):
        run(loop, given, coefficients(rng, n_steps))
    assert device.count("record") == 5
    run(loop, given, coefficients(rng, 2))  # the one that was used longest ago had to go
    assert device.count("record") == 6
    assert len(loop._recordings) == 4
    loop.close()
    loop.close()
    assert loop._recordings == {}


@pytest.mark.parametrize("call", ["set_input_shape", "infer_shapes", "set_tensor_address", "execute_async_v3"])
def test_every_refusal_is_raised_and_nothing_half_recorded_is_kept(
    denoise: TrtEngine, fake: Any, device: Any, rng: np.random.Generator, call: str
) -> None:
    loop, table, given = DenoiseLoop(denoise), coefficients(rng), fakes.feeds(rng)
    fake.fails.add(call)
    with pytest.raises(TrtFailure, match=f"no {call} today"):
        run(loop, given, table)
    assert device.count("enter") == device.count("leave")
    assert device.count("launch") == 0
    fake.fails.clear()
    np.testing.assert_array_equal(run(loop, given, table).value, by_hand(given, table))


def test_a_plan_that_cannot_be_recorded_says_so(denoise: TrtEngine, fake: Any, rng: np.random.Generator) -> None:
    fake.fails.add("is_stream_capturable")
    with pytest.raises(TrtFailure, match="cannot be recorded"):
        run(DenoiseLoop(denoise), fakes.feeds(rng), coefficients(rng))


def test_inputs_that_do_not_fit(denoise: TrtEngine, device: Any, rng: np.random.Generator) -> None:
    loop, table, given = DenoiseLoop(denoise), coefficients(rng), fakes.feeds(rng)
    device.log.clear()
    for wrong in (table.astype(np.float64), table[:, :2], table[:0], table[0]):
        with pytest.raises(ShapeError, match=r"\(n_steps, 3\)"):
            run(loop, given, wrong)
    with pytest.raises(ShapeError, match="batch"):
        run(loop, {**given, "context": given["context"][:1]}, table)
    with pytest.raises(ShapeError, match="covers 1 to 4"):
        run(loop, fakes.feeds(rng, 5), table)
    assert device.log == []
    denoise.inputs = {name: spec for name, spec in denoise.inputs.items() if name != "guidance"}
    with pytest.raises(InputError, match="guidance"):
        DenoiseLoop(denoise)
