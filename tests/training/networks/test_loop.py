"""The training loop: against one written out here, resumed anywhere, and with a loss that becomes no number."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from minddiffuser.runtime.decoders.networks import ARCHITECTURES  # noqa: E402
from minddiffuser.runtime.errors import InputError  # noqa: E402
from minddiffuser.training.decoders import network as network_fitter  # noqa: E402
from minddiffuser.training.decoders.mlp import Mlp  # noqa: E402
from minddiffuser.training.decoders.network import NetworkFitter  # noqa: E402
from minddiffuser.training.networks.hardware import Hardware, open_hardware  # noqa: E402
from minddiffuser.training.networks.loop import Keeping  # noqa: E402
from minddiffuser.training.normalise import TargetColumns  # noqa: E402

N = 48
SMALL: dict[str, Any] = {"hidden": 12, "depth": 1, "batch_size": 10, "learning_rate": 0.01}


def world(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, TargetColumns], np.ndarray]:
    """Linear features of two sizes, each picture shown twice."""
    stimulus = rng.permutation(np.tile(np.arange(N // 2), 2))
    causes = rng.standard_normal((N // 2, 6))
    responses = causes[stimulus] @ rng.standard_normal((6, 15)) + 0.5 * rng.standard_normal((N, 15))
    features = {
        name: (causes @ rng.standard_normal((6, n)) + 2).astype(np.float32)
        for name, n in (("context", 7), ("semantic", 4))
    }
    targets = {name: TargetColumns(values, stimulus, np.arange(values.shape[1])) for name, values in features.items()}
    return responses.reshape(N, 3, 5), targets, stimulus


def fit(fitter: NetworkFitter, rng_seed: int = 1, names: tuple[str, ...] = ("context",), **more: Any) -> Any:
    responses, targets, pictures = world(np.random.default_rng(rng_seed))
    fitters = {name: fitter for name in names}
    chosen = {name: targets[name] for name in names}
    return fitter.fit_together(fitters, responses, chosen, pictures=pictures, **more)


def assert_same(first: Any, second: Any) -> None:
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[name], err_msg=name)
    assert (first.epoch, first.loss, first.curves) == (second.epoch, second.loss, second.curves)


def test_a_shared_trunk_is_one_network_with_both_losses() -> None:
    """The same batches through PyTorch's own modules, with the mean of both heads' squared errors."""
    fitter = Mlp(**SMALL, dropout=0.0, epochs=3, patience=3, weight_decay=0.1, seed=5)
    fitted = fit(fitter, names=("context", "semantic"))
    responses, targets, pictures = world(np.random.default_rng(1))
    x = torch.from_numpy(responses.reshape(N, 15).astype(np.float32))
    wanted = [torch.from_numpy(targets[name].columns(0, 99).astype(np.float32)) for name in ("context", "semantic")]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        trunk = torch.nn.Sequential(torch.nn.Linear(15, 12), torch.nn.LayerNorm(12), torch.nn.GELU())
        heads = [torch.nn.Linear(12, 7), torch.nn.Linear(12, 4)]
        parameters = [p for module in (trunk, *heads) for p in module.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
        known, hidden = (torch.from_numpy(np.flatnonzero(which)) for which in (~fitted.held_out, fitted.held_out))
        best, losses = [], []
        for _ in range(3):
            order = known[torch.randperm(len(known))]
            for start in range(0, len(order), 10):
                rows = order[start : start + 10]
                optimiser.zero_grad()
                made = [head(trunk(x[rows])) for head in heads]
                sum(((a - b[rows]) ** 2).mean() for a, b in zip(made, wanted, strict=True)).mul(0.5).backward()
                optimiser.step()
            with torch.no_grad():
                made = [head(trunk(x[hidden])) for head in heads]
                losses.append(sum(((a - b[hidden]) ** 2).mean().item() for a, b in zip(made, wanted, strict=True)) / 2)
                best.append([head(trunk(x)).numpy() for head in heads])
    assert fitted.epoch == 1 + int(np.argmin(losses))
    np.testing.assert_allclose(fitted.curves["validation"]["loss"], losses, rtol=1e-4)
    for number, name in enumerate(("context", "semantic")):
        # The same operations on rows of another layout: some units in the last place of sums of 15 terms.
        found = fitted.of(name).predict(responses)
        np.testing.assert_allclose(found, best[fitted.epoch - 1][number], atol=1e-4)
    assert set(fitted.curves["train"]) == {"loss", "context", "semantic"}
    together = np.mean([fitted.curves["validation"][name] for name in ("context", "semantic")], axis=0)
    np.testing.assert_allclose(together, losses, rtol=1e-4)


class Killed(Exception):
    pass


class Kept(list[dict[str, np.ndarray]]):
    """What was kept, as a file would hold it: training goes on in the very arrays."""

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.append({name: array.copy() for name, array in arrays.items()})


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_training_killed_at_any_epoch_goes_on_to_the_same_numbers(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, a schedule, a learned scale and, of fp16, the scaler of the gradients."""
    here = Hardware(torch.device("cpu"), precision)  # what a GPU would compute in, for once on the CPU
    monkeypatch.setattr(network_fitter, "open_hardware", lambda *_: here)
    fitter = Mlp(**SMALL, dropout=0.3, epochs=8, patience=8, contrastive=0.2, schedule="onecycle")
    names = ("context", "semantic")
    whole = fit(fitter, names=names)
    assert len(whole.curves["train"]["loss"]) == 8
    assert set(whole.curves["validation"]) == {"loss", *names, *(f"{name}.contrastive" for name in names)}
    for when in (1, 2, 5, 7):
        kept = Kept()
        reported: list[int] = []

        def kill(epoch: int, _of: int, at: int = when) -> None:
            if epoch == at:
                raise Killed

        with pytest.raises(Killed):
            fit(fitter, names=names, keeping=Keeping(kept, 2), progress=kill)
        assert len(kept) == when // 2
        again = Keeping(kept, 2, kept[-1] if kept else None)
        resumed = fit(fitter, names=names, keeping=again, progress=lambda *now, to=reported: to.append(now[0]))
        assert reported == list(range(when // 2 * 2, 9))
        assert_same(resumed, whole)


def test_mixed_precision_learns_what_float32_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    fitter = Mlp(**SMALL, dropout=0.0, epochs=20)
    exact = fit(fitter)
    for precision in ("bf16", "fp16"):
        here = Hardware(torch.device("cpu"), precision)
        monkeypatch.setattr(network_fitter, "open_hardware", lambda *_, here=here: here)
        mixed = fit(fitter)
        assert {array.dtype for array in mixed.arrays().values()} == {np.dtype(np.float32)}
        assert mixed.described()["computed"] == {"device": "cpu", "precision": precision}
        assert mixed.curves["train"]["loss"] != exact.curves["train"]["loss"]
        # bf16 has 8 bits: the losses of a training that follows the same path differ by some per cent.
        assert mixed.loss == pytest.approx(exact.loss, rel=0.1)


def test_a_cpu_computes_in_float32_whatever_is_asked_for() -> None:
    for precision in ("auto", "bf16", "fp16", "float32"):
        assert open_hardware("cpu", precision) == open_hardware("mps", precision)
        assert open_hardware("cpu", precision).precision == "float32"


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device 'cuda:1' was asked for, and PyTorch finds 0 CUDA GPUs"):
        fit(Mlp(**SMALL), device="cuda:1")
    with pytest.raises(InputError, match="device 'cuda:x' is unknown: give auto, cpu, cuda or cuda:1"):
        open_hardware("cuda:x", "auto")
    assert open_hardware("auto", "auto").device.type == "cpu"


def test_the_contrastive_term_is_trained_with_its_scale_or_without() -> None:
    kept = Kept()
    plain = fit(Mlp(**SMALL, dropout=0.0, epochs=4))
    learned, constant = (
        fit(Mlp(**SMALL, dropout=0.0, epochs=4, contrastive=0.5, logit_scale=scale), keeping=Keeping(kept, 4))
        for scale in ("learned", "constant")
    )
    scales = [float(np.exp(state["logit_scale.context"])) for state in kept]
    assert scales[1] == pytest.approx(1 / 0.07)
    assert abs(scales[0] - scales[1]) > 0.01
    assert learned.curves["train"] != constant.curves["train"]
    assert set(plain.curves["train"]) == {"loss", "context"}
    terms = {name: np.array(values) for name, values in constant.curves["validation"].items()}
    np.testing.assert_allclose(terms["loss"], 0.5 * terms["context"] + 0.5 * terms["context.contrastive"], rtol=1e-6)


@dataclass(frozen=True, kw_only=True)
class Fragile(NetworkFitter):
    """A network that gives no number from its so-many-th call in training on, or after so many epochs in validation."""

    breaks_at: int = 0
    in_validation: bool = False
    fitter: ClassVar[str] = "fragile"
    architecture: ClassVar[str] = "fragile"


@dataclass(frozen=True, kw_only=True)
class Config:
    breaks_at: int = 0
    in_validation: bool = False


def build(config: Config, response_shape: tuple[int, ...], n_outputs: Mapping[str, int]) -> Any:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(int(np.prod(response_shape)), sum(n_outputs.values()))
            self.calls = 0

        def forward(self, x: Any) -> Any:
            found = self.line(x.flatten(1))
            self.calls += self.training is not config.in_validation
            bad = self.calls >= config.breaks_at and self.training is not config.in_validation
            return (found * np.nan if bad else found,)

    return Network()


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("minddiffuser.runtime.decoders.networks.fragile")
    module.Config, module.build = Config, build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(ARCHITECTURES, "fragile", ".fragile")


def test_a_loss_that_is_no_number_keeps_the_best_weights(fragile: None) -> None:
    options: dict[str, Any] = {"batch_size": 10, "epochs": 9, "seed": 2}
    healthy = fit(
        Fragile(**{**options, "epochs": 2}, breaks_at=10**6)
    )  # two epochs of five batches, all of them better
    assert healthy.epoch == 2
    broken = fit(Fragile(**options, breaks_at=13))
    assert str(broken.stopped) == "the loss became nan in epoch 3, step 3"
    assert_same(broken, healthy)
    validation = {"n_trials": 4, "epoch": 2, "loss": healthy.loss}
    assert broken.described()["validation"] == {**validation, "stopped": str(broken.stopped)}
    assert healthy.described()["validation"] == validation
    broken = fit(Fragile(**options, breaks_at=3, in_validation=True))  # each validation is one batch
    assert str(broken.stopped) == "the loss became nan in epoch 3, at its validation"
    assert_same(broken, healthy)


def test_without_any_finished_epoch_there_is_nothing_to_keep(fragile: None) -> None:
    message = "the fragile cannot be trained, the loss became nan in epoch 1, step 2, before any epoch was done: give a"
    with pytest.raises(InputError, match=message):
        fit(Fragile(batch_size=10, breaks_at=2))
