"""From a decoded embedding to the nearest concept's context: against brute force, ties, and files that do not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kind_checkpoint import CONCEPTS, WIDTH, write_kind_checkpoint
from safetensors.numpy import load_file, save_file

from minddiffuser.runtime.candidates import Candidates
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.decoders.concepts import ConceptRoute
from minddiffuser.runtime.errors import FileError

RNG = np.random.default_rng(8)


def route(embedding: np.ndarray, centre: np.ndarray | None = None) -> ConceptRoute:
    n, width = embedding.shape
    return ConceptRoute(
        candidates=Candidates(names=tuple(f"c{k}" for k in range(n)), prompt="a {}", prototypes="text"),
        embedding=(embedding / np.linalg.norm(embedding, axis=1, keepdims=True)).astype(np.float32),
        centre=np.zeros(width, np.float32) if centre is None else centre.astype(np.float32),
        context=RNG.standard_normal((n, 15, 4)).astype(np.float32),
    )


def test_similarities_are_cosines_to_what_lies_away_from_the_centre() -> None:
    embedding, centre = RNG.standard_normal((7, 9)), RNG.standard_normal(9)
    decoded = RNG.standard_normal((5, 9)).astype(np.float32)
    found = route(embedding, centre).similarity(decoded)
    for trial in range(5):
        away = decoded[trial].astype(float) - centre
        for number in range(7):
            cosine = away @ embedding[number] / np.linalg.norm(away) / np.linalg.norm(embedding[number])
            assert found[trial, number] == pytest.approx(cosine, abs=1e-6)


def test_the_context_is_the_nearest_ones() -> None:
    made, decoded = route(RNG.standard_normal((50, 6))), RNG.standard_normal((200, 6)).astype(np.float32)
    unit = made.embedding.astype(float)
    expected = [max(range(50), key=lambda k: float(row.astype(float) @ unit[k])) for row in decoded]
    np.testing.assert_array_equal(made.contexts(made.similarity(decoded)), made.context[expected])


def test_of_equally_near_candidates_the_first_is_taken() -> None:
    same = RNG.standard_normal((1, 6))
    made = route(np.concatenate([-same, same, same, same]))
    similarity = made.similarity(RNG.standard_normal((20, 6)).astype(np.float32))
    assert (similarity[:, 1] == similarity[:, 2]).all()
    taken = np.where(similarity[:, 0] > similarity[:, 1], 0, 1)
    assert set(taken) == {0, 1}
    np.testing.assert_array_equal(made.contexts(similarity), made.context[taken])


def test_an_embedding_at_the_centre_takes_the_first() -> None:
    made = route(RNG.standard_normal((3, 6)), RNG.standard_normal(6))
    similarity = made.similarity(made.centre[None])
    assert (similarity == 0).all()
    np.testing.assert_array_equal(made.contexts(similarity), made.context[:1])


def test_the_length_of_what_is_decoded_does_not_matter() -> None:
    made, decoded = route(RNG.standard_normal((5, 6))), RNG.standard_normal((4, 6)).astype(np.float32)
    for scale in (1e-6, 1e6):
        np.testing.assert_allclose(made.similarity(decoded * np.float32(scale)), made.similarity(decoded), atol=1e-6)


def _edit(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "checkpoint.json").read_text())
    content["concepts"] |= changes
    (folder / "checkpoint.json").write_text(json.dumps(content))


def _arrays(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    path = folder / "concepts.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)
    content = json.loads((folder / "checkpoint.json").read_text())
    content["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps(content))


def _top(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((folder / "checkpoint.json").read_text())
    change(content)
    (folder / "checkpoint.json").write_text(json.dumps(content))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no names": (lambda f: _edit(f, names=[]), "concepts.names"),
    "a name twice": (lambda f: _edit(f, names=["cat"] * len(CONCEPTS)), "each name once"),
    "a name of two lines": (lambda f: _edit(f, names=["a\nb", *CONCEPTS[1:]]), r"names\[0\]"),
    "another number": (lambda f: _edit(f, n_candidates=4), "expected 5, as there are names"),
    "names without arrays": (lambda f: _edit(f, names=list(CONCEPTS[:4]), n_candidates=4), "expected float32"),
    "another kind": (lambda f: _edit(f, prototypes="sounds"), "one of images, text"),
    "no prompt": (lambda f: _edit(f, prompt=3), "concepts.prompt"),
    "no field": (lambda f: _top(f, lambda c: c.pop("concepts")), "field 'concepts' is missing"),
    "no embedding": (lambda f: _top(f, lambda c: c["shapes"].pop("embedding")), "only there"),
    "a decoder of the context too": (
        lambda f: _top(f, lambda c: c["decoders"][0].update(features=["context"])),
        "and none of context",
    ),
    "of another length": (lambda f: _arrays(f, lambda a: a.update(embedding=2 * a["embedding"])), "not of length 1"),
    "nan": (lambda f: _arrays(f, lambda a: a["context"].fill(np.nan)), "NaN"),
    "another width": (lambda f: _arrays(f, lambda a: a.update(centre=a["centre"][1:])), rf"\({WIDTH},\)"),
    "no contexts": (lambda f: _arrays(f, lambda a: a.pop("context")), "context"),
    "no file": (lambda f: (f / "concepts.safetensors").unlink(), "lacks concepts.safetensors"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    folder = write_kind_checkpoint(tmp_path / "c", "linear", (40,), route="concepts").folder
    open_checkpoint(folder)
    damage, reason = DAMAGE[name]
    damage(folder)
    with pytest.raises(FileError, match=reason) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
