"""Which decoder and options each feature gets from what a person types."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.features import TARGETS
from minddiffuser.training.cli import fit_settings, parser
from minddiffuser.training.decoders import DECODERS
from minddiffuser.training.decoders.choice import chosen_decoders, chosen_options
from minddiffuser.training.decoders.mlp import Mlp


@dataclass(frozen=True, kw_only=True)
class Published(Mlp):
    """A network with a published form of its own."""

    reference: bool = False


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("minddiffuser.training.decoders.published")
    module.Published = Published  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(DECODERS, "published", ("published", "Published"))


def test_one_for_all_and_others_for_some_in_any_order() -> None:
    assert set(chosen_decoders([]).values()) == {"ridge"}
    ridges = dict.fromkeys(TARGETS, "ridge")
    expected = {**ridges, "context": "mlp", "semantic": "published:reference"}
    given = ["ridge", "context=mlp", "semantic=published:reference"]
    assert chosen_decoders(given) == chosen_decoders(given[::-1]) == chosen_decoders(given[1:]) == expected
    assert set(chosen_decoders(["mlp"]).values()) == {"mlp"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["dream"], "decoder 'dream' is unknown: choose one of .*mlp.* published, ridge"),
        (["context=dream:reference"], "decoder 'dream' is unknown"),
        (["smell=ridge"], "feature 'smell' is unknown: choose one of context"),
        (["ridge", "mlp"], "names both ridge and mlp for all features: give one"),
        (["latent=ridge", "latent=mlp"], "names both ridge and mlp for latent"),
        (["mlp:paper"], "decoder 'mlp:paper' is unknown"),
        (["mlp="], "feature 'mlp' is unknown"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        chosen_decoders(given)


def test_options_go_to_the_decoders_that_have_them() -> None:
    decoders = chosen_decoders(["ridge", "context=mlp", "semantic=published:reference"])
    given = [("", "alpha", 2.0), ("", "hidden", 8), ("context", "hidden", 9), ("latent", "n_selected", 3)]
    assert chosen_options(decoders, given) == {
        "context": {"hidden": 9},
        "latent": {"alpha": 2.0, "n_selected": 3},
        "structure": {"alpha": 2.0},
        "semantic": {"hidden": 8, "reference": True},
        "embedding": {"alpha": 2.0},
    }
    for option, reason in (
        (("", "colour", 1), "decoder 'mlp' has no option 'colour'"),
        (("latent", "hidden", 8), "decoder 'ridge' has no option 'hidden'"),
    ):
        with pytest.raises(InputError, match=reason):
            chosen_options(decoders, [option])
    with pytest.raises(InputError, match="decoder 'ridge' has no published form of its own: give --decoder ridge"):
        chosen_options(chosen_decoders(["ridge:reference"]), [])


def test_the_command_line_reaches_the_settings() -> None:
    line = "fit data --out x --decoder ridge --decoder context=mlp --decoder semantic=published:reference"
    line += " --decoder-option hidden=8 --decoder-option context.hidden=9 --n-latent 5"
    settings = fit_settings(parser().parse_args(line.split()))
    found = {name: settings.decoder(name).describe() for name in ("context", "latent", "structure", "semantic")}
    assert [made["fitter"] for made in found.values()] == ["mlp", "ridge", "ridge", "mlp"]
    assert (found["context"]["hidden"], found["semantic"]["hidden"], found["semantic"]["reference"]) == (9, 8, True)
    assert (found["latent"]["n_selected"], found["structure"]["n_selected"]) == (5, 350)
