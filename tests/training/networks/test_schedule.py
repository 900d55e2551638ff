"""The learning rate against PyTorch's own schedule."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from minddiffuser.training.networks.schedule import learning_rate  # noqa: E402


@pytest.mark.parametrize("n_steps", [10, 37, 400])
def test_one_cycle_is_pytorchs(n_steps: int) -> None:
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.02, total_steps=n_steps, cycle_momentum=False)
    for step in range(n_steps):
        assert learning_rate("onecycle", 0.02, step, n_steps) == pytest.approx(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if step + 1 < n_steps:
            schedule.step()


@pytest.mark.parametrize("n_steps", range(1, 7))
def test_a_few_steps_have_a_rate_each(n_steps: int) -> None:
    rates = [learning_rate("onecycle", 0.02, step, n_steps) for step in range(n_steps)]
    assert all(0 < rate <= 0.02 for rate in rates)


def test_a_constant_rate_is_constant() -> None:
    assert {learning_rate("constant", 0.02, step, 9) for step in range(9)} == {0.02}
