"""What every registered architecture must keep, so that fitting, checkpoints and export need not know it.

Its config is a frozen dataclass of JSON values; `build` gives one output per feature in the order that was asked for;
its whole state is in its state_dict; decoding, a trial is the same whatever comes with it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from typing import Any

import pytest
from network_settings import SMALL, TAKES, VOXELS, draw_statistics

from minddiffuser.runtime.decoders.network import build_network, make_config
from minddiffuser.runtime.decoders.networks import ARCHITECTURES
from minddiffuser.runtime.errors import InputError

torch = pytest.importorskip("torch")
N_OUTPUTS = {"latent": 5, "context": 3}
CASES = [(name, shape) for name in ARCHITECTURES for shape in TAKES[name]]


def with_weights(name: str, shape: tuple[int, ...], seed: int = 3) -> Any:
    """A small network, decoding, whose weights and statistics are all drawn."""
    torch.manual_seed(seed)
    module = build_network(name, make_config(name, SMALL[name]), shape, N_OUTPUTS)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    draw_statistics(module)
    return module.eval()


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'x'.join(map(str, case[1]))}")
def built(request: pytest.FixtureRequest) -> Any:
    """The architecture's name, a response shape that it takes, and a network with weights of its own."""
    name, shape = request.param
    return name, shape, with_weights(name, shape)


def test_every_architecture_is_here() -> None:
    assert TAKES.keys() == SMALL.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_its_config_is_json_and_is_checked(name: str) -> None:
    config = make_config(name, SMALL[name])
    assert is_dataclass(config)
    assert type(config).__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert make_config(name, json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(InputError, match=f"the architecture '{name}' cannot use its config .*colour"):
        make_config(name, {"colour": "red"})


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if VOXELS not in TAKES[name]])
def test_what_it_cannot_take_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}.*\(n_channels, n_times\).*\(300,\).*takes fMRI"):
        build_network(name, make_config(name, SMALL[name]), VOXELS, N_OUTPUTS)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="architecture 'oracle' is unknown: choose one of"):
        make_config("oracle", {})


def test_each_feature_has_its_output_in_order(built: Any) -> None:
    _, shape, module = built
    assert [tuple(output.shape) for output in module(torch.zeros(2, *shape))] == [(2, n) for n in N_OUTPUTS.values()]


def test_its_state_dict_is_all_of_it(built: Any) -> None:
    name, shape, module = built
    scores = torch.randn(3, *shape)
    with torch.device("meta"):  # as a checkpoint opens it: nothing may be left over from construction
        other = build_network(name, make_config(name, SMALL[name]), shape, N_OUTPUTS)
    other.load_state_dict(module.state_dict(), assign=True)
    for found, expected in zip(other.eval()(scores), module(scores), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert found.std() > 0


def test_a_trial_does_not_depend_on_the_others(built: Any) -> None:
    """Up to float32 rounding: another batch may be summed in another order."""
    _, shape, module = built
    scores = torch.randn(4, *shape)
    for alone, together in zip(module(scores[1:2]), module(scores), strict=True):
        torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-5)


def test_every_weight_acts(built: Any) -> None:
    """Each weight, and each statistic, changes what is decoded."""
    _, shape, module = built
    scores = torch.randn(3, *shape)
    with torch.enable_grad():
        sum(output.square().sum() for output in module(scores)).backward()
    dead = [name for name, weight in module.named_parameters() if weight.grad is None or not weight.grad.any()]
    # A constant that is added to all of a softmax's arguments cancels.
    assert [name for name in dead if not name.endswith("attention.key.bias")] == []


def test_decoding_looks_at_no_statistic_of_what_is_decoded(built: Any) -> None:
    """No statistic of what is decoded is kept, and none is looked at."""
    _, shape, module = built
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    module(100 + 50 * torch.randn(5, *shape))
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_it_learns_in_training_mode(built: Any) -> None:
    """A gradient for every weight, without NaN, whatever is dropped."""
    _, shape, module = built
    scores = torch.randn(8, *shape)
    for seed in range(20):
        torch.manual_seed(seed)
        module.train().zero_grad()
        sum(output.square().sum() for output in module(scores)).backward()
        assert all(weight.grad.isfinite().all() for weight in module.parameters())


@pytest.mark.parametrize(
    ("name", "settings", "shape", "reason"),
    [
        ("nice", {}, (17, 74), "a trial has 74 samples, and the decoder 'nice' needs at least 75 for its kernels"),
        ("atm", {}, (17, 20), "a trial has 20 samples, and the decoder 'atm' needs at least 75"),
        ("eegnet", {}, (17, 26), "a trial has 26 samples, and the decoder 'eegnet' needs at least 27"),
        ("eegnet", {"kernel": 5, "separable_kernel": 15}, (17, 31), "needs at least 32 for its kernels"),
        ("brain_module", {}, (2, 50), "by their positions: 0 are given for 2 channels, give one for each"),
        ("transformer", {"tokens": "times"}, (50,), r"a trial of shape \(50,\) has no tokens of times: give voxels"),
        ("transformer", {"tokens": "voxels"}, (3, 50), "has no tokens of voxels: give channels or times"),
    ],
)
def test_shapes_that_are_too_small_are_refused(
    name: str, settings: dict[str, Any], shape: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        build_network(name, make_config(name, settings), shape, N_OUTPUTS)


@pytest.mark.parametrize(
    ("name", "settings", "n_times"),
    [("nice", {}, 75), ("atm", {}, 75), ("eegnet", {}, 27), ("eegnet", {"kernel": 5, "separable_kernel": 15}, 32)],
)
def test_the_least_length_is_enough(name: str, settings: dict[str, Any], n_times: int) -> None:
    module = build_network(name, make_config(name, settings), (17, n_times), N_OUTPUTS)
    assert [output.shape[1] for output in module.eval()(torch.zeros(1, 17, n_times))] == [5, 3]


@pytest.mark.parametrize("name", ["nice", "atm"])
def test_a_head_too_wide_to_project_is_refused(name: str) -> None:
    with torch.device("meta"):
        with pytest.raises(InputError, match="would have 16384 x 16384 weights for latent: set embedding, such as"):
            build_network(name, make_config(name, {}), (63, 250), {"latent": 16_384})
        build_network(name, make_config(name, {"embedding": 1024}), (63, 250), {"latent": 16_384})


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("nice", {"kernel": 0}, "kernel is 0, expected a whole number from 1"),
        ("nice", {"embedding": 2.5}, "embedding is 2.5"),
        ("nice", {"reference": True}, "cannot use its config .*reference"),
        ("eegnet", {"max_norm": 0}, "max_norm is 0, expected a number above 0"),
        ("eegnet", {"reference": 1}, "reference is 1, expected true or false"),
        ("atm", {"n_subjects": 10}, "n_subjects is 10, and only the reference form has subjects"),
        ("atm", {"attention_dropout": 1}, "attention_dropout is 1, expected a share"),
        ("brain_module", {"positions": [[0, 1]]}, "positions has .0, 1., expected .x, y, z. for each channel"),
        ("brain_module", {"positions": "here"}, "positions is 'here'"),
        ("brain_module", {"positions": [[0, 1, float("nan")]]}, "positions has .0, 1, nan."),
        ("brain_module", {"kernel": 4}, "kernel is 4, expected an odd number of samples"),
        ("transformer", {"tokens": "words"}, "tokens is 'words', expected one of voxels, channels, times"),
        ("transformer", {"width": 20}, "a width of 20 cannot be shared by 8 heads"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(name: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        make_config(name, settings)
