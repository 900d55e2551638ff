"""A graph under a known name takes and gives what the name promises, whoever wrote the bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from minddiffuser.runtime.bundle.graph_specs import TensorSpec
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.engines.contract import check_contract
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
from minddiffuser.runtime.errors import FileError


@pytest.fixture
def bundle(toy_bundle: Path) -> Bundle:
    return Bundle.open(toy_bundle)


def test_every_graph_of_a_bundle_keeps_its_contract(bundle: Bundle) -> None:
    assert len(bundle.graphs) >= 8
    for name in bundle.graphs:
        check_contract(bundle, name)


@pytest.mark.parametrize(
    ("name", "other"),
    [("decode_context", "decode_latent"), ("structure_gradient", "vae_decode"), ("denoise", "clip_structure")],
)
def test_a_graph_under_another_name_is_refused_before_it_is_opened(bundle: Bundle, name: str, other: str) -> None:
    swapped = replace(bundle, graphs={**bundle.graphs, name: bundle.graphs[other]})
    with pytest.raises(FileError, match=f"graph {name} .* expected .* export the bundle again"):
        check_contract(swapped, name)
    variant = replace(bundle.graphs[other].variants[0], graph=name)
    with EngineSet(swapped, EngineSettings(backend="ort")) as engines, pytest.raises(FileError, match=name):
        engines.open(variant)


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec("float64", ("batch", 4, 4, 4)),
        TensorSpec("float32", ("batch", 4, 4)),
        TensorSpec("float32", ("batch", 4, 4, 5)),
        TensorSpec("float32", (2, 4, 4, 4)),
        TensorSpec("float32", ("batch", 4, "h", 4)),
    ],
    ids=str,
)
def test_another_type_or_shape_is_refused(bundle: Bundle, spec: TensorSpec) -> None:
    graph = bundle.graphs["vae_decode"]
    changed = replace(bundle, graphs={**bundle.graphs, "vae_decode": replace(graph, inputs={"latent": spec})})
    with pytest.raises(FileError, match="latent of the graph vae_decode"):
        check_contract(changed, "vae_decode")


def test_a_graph_of_a_name_that_nobody_knows_is_left_alone(bundle: Bundle) -> None:
    check_contract(bundle, "judge")
