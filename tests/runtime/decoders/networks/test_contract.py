"""What every registered architecture must keep, so that fitting, checkpoints and export need not know it.

Its config is a frozen dataclass of JSON values; `build` gives one output per feature in the order that was asked for;
its whole state is in its state_dict; decoding, a trial is the same whatever comes with it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from typing import Any

import pytest

from minddiffuser.runtime.decoders.network import build_network, make_config
from minddiffuser.runtime.decoders.networks import ARCHITECTURES, architecture_module
from minddiffuser.runtime.errors import InputError

torch = pytest.importorskip("torch")
SHAPES, N_OUTPUTS = [(20,), (4, 30)], {"latent": 5, "context": 3}


@pytest.fixture(params=[(name, shape) for name in ARCHITECTURES for shape in SHAPES], ids=str)
def built(request: pytest.FixtureRequest) -> Any:
    """The architecture's name, a response shape that it takes, and a network with weights of its own."""
    name, shape = request.param
    torch.manual_seed(3)
    try:
        module = build_network(name, make_config(name, {}), shape, N_OUTPUTS)
    except InputError:
        pytest.skip(f"{name} takes no responses of {shape}")
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return name, shape, module.eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_its_config_is_json_and_is_checked(name: str) -> None:
    config = make_config(name, {})
    assert is_dataclass(config)
    assert type(config).__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert make_config(name, json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(InputError, match=f"the architecture '{name}' cannot use its config .*colour"):
        make_config(name, {"colour": "red"})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_takes_responses_of_some_shape(name: str) -> None:
    def takes(shape: tuple[int, ...]) -> bool:
        try:
            architecture_module(name).build(make_config(name, {}), shape, N_OUTPUTS)
        except InputError:
            return False
        return True

    assert any(map(takes, SHAPES))


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
        other = build_network(name, make_config(name, {}), shape, N_OUTPUTS)
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
