"""The training loop: a killed run, resumed, equals one that was not; it trains; it averages."""

from pathlib import Path

import numpy as np
import pytest
import torch

from minddiffuser.training.tinyworld import loop
from minddiffuser.training.tinyworld.loop import LoopSettings, scaled, train

SETTINGS = LoopSettings(steps=40, learning_rate=0.05, warmup=5, save_every=7, log_every=10, seed=3)


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))


def objective(module: torch.nn.Module, *, killed_at: int | None = None):
    def loss(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        if step == killed_at:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.standard_normal((16, 3), np.float32))
        value = (module(x)[:, 0] - x.sum(1)).square().mean()
        return value, {"error": value.item()}

    return loss


@pytest.mark.parametrize("killed_at", [8, 33])
def test_resumed_equals_uninterrupted(tmp_path: Path, killed_at: int) -> None:
    whole = network()
    train(whole, objective(whole), tmp_path, "whole", SETTINGS)
    broken = network()
    with pytest.raises(KeyboardInterrupt):
        train(broken, objective(broken, killed_at=killed_at), tmp_path, "broken", SETTINGS)
    resumed = network()
    train(resumed, objective(resumed), tmp_path, "broken", SETTINGS)
    for name, value in whole.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, resumed.state_dict()[name]), name


def test_it_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = network()
    before = objective(module)(np.random.default_rng(9), -1)[0].item()
    train(module, objective(module), tmp_path, "it", LoopSettings(steps=200, learning_rate=0.05, ema=0.9))
    after = objective(module.eval())(np.random.default_rng(9), -1)[0].item()
    assert after < before / 5
    assert "min left" in capsys.readouterr().err


def test_the_average_is_what_remains(tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0)
    seen = []

    def loss(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        seen.append(module.weight.item())
        return -module.weight.sum(), {}

    train(module, loss, tmp_path, "it", LoopSettings(steps=50, learning_rate=0.1, ema=0.9, weight_decay=0.0))
    assert min(seen) <= module.weight.item() < max(seen)


def test_scaled_keeps_at_least_two_steps() -> None:
    assert scaled(SETTINGS, 1.0) is SETTINGS
    assert [scaled(SETTINGS, effort).steps for effort in (0.5, 0.001)] == [20, 2]


@pytest.mark.parametrize(("compiler", "headers"), [(True, True), (True, False), (False, True)])
def test_compiled_only_where_it_can_be(
    compiler: bool, headers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.shutil, "which", lambda name: name if compiler else None)
    monkeypatch.setattr(loop.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(loop.torch, "compile", lambda function: "compiled")
    if headers:
        (tmp_path / "Python.h").touch()
    assert (loop.compiled(network) == "compiled") == (compiler and headers)
