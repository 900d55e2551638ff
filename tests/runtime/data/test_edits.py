"""Single edits of a data folder's files: the same arrays come back, or one sentence says what is wrong."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import write_small_data

from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.data.references import refer
from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.run.responses import open_responses

ROWS = np.random.default_rng(3).standard_normal((3, 5)).astype(np.float32)
EPOCHS = np.random.default_rng(4).standard_normal((3, 2, 4)).astype(np.float32)
EEG = ResponseLayout(
    modality="eeg",
    shape=(2, 4),
    channels=(Channel(name="O1", type="eeg", position=(-0.03, -0.09, 0.0)), Channel(name="Oz", type="eeg")),
    sfreq=250.0,
    tmin=-0.2,
    unit="V",
    signal={
        "steps": [
            {"name": "filter", "sos": [[1.0, 2.0, 1.0, 1.0, -0.5, 0.25]], "causal": True},
            {"name": "decimate", "factor": 4},
            {"name": "whiten", "file": "whitening.bin", "sha256": hashlib.sha256(b"any").hexdigest()},
        ]
    },
)
REMOVED = object()
VALUES: list[Any] = [
    *(None, "x", "", " ", "\ud800", "a\nb", -1, 0, 1, [], [[]], {}, 0.5, True, False),
    *(10**30, -(10**400), 1e308, float("nan"), float("inf"), [None], {"": 1}, REMOVED),
]
NESTINGS: list[Callable[[Any], Any]] = [lambda v: [v], lambda v: {"value": v}, lambda v: [v, v]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    provenance = {"scanner": "7 T", "runs": [{"tr": 1.5}, None]}
    rois = {"V1": (0, 2), "LO": (2, 5), "LVC": {0, 1, 4}}
    return write_small_data(tmp_path_factory.mktemp("edits") / "data", ROWS, provenance=provenance, rois=rois).folder


@pytest.fixture(scope="module")
def version_1(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    old = tmp_path_factory.mktemp("old") / "data"
    shutil.copytree(folder, old)
    content = json.loads((old / "data.json").read_text())
    del content["response_shape"]
    content |= {"version": 1, "n_voxels": 5, "rois": {"V1": [0, 2], "LO": [2, 5]}}
    (old / "data.json").write_text(json.dumps(content))
    return old


@pytest.fixture(scope="module")
def eeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EEG, whose test pictures lie elsewhere."""
    place = tmp_path_factory.mktemp("eeg")
    (place / "any").write_bytes(b"any")
    data = write_small_data(place / "data", EPOCHS, layout=EEG, files={"whitening.bin": place / "any"})
    (place / "root").mkdir()
    np.save(place / "root/two.npy", data.images("test"))
    entries = [refer(place / "root", "two.npy", index=index).as_json() for index in (0, 1)]
    named = {"root": "../root", "crop": "centre", "resize": "bicubic", "test": entries}
    (data.folder / "stimuli.json").write_text(json.dumps(named))
    shutil.rmtree(data.folder / "stimuli/test")
    return data.folder


def spots(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in a JSON value, itself last of all."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from spots(value, (*path, key))
    yield path


def edited(content: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """A copy with one place changed, or taken out."""
    if not path:
        return change(content)
    content = copy.deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    value = change(place[path[-1]])
    if value is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


def edits(content: Any) -> Iterator[Any]:
    for path in spots(content):
        yield from (
            edited(content, path, lambda _, value=value: value) for value in VALUES if path or value is not REMOVED
        )  # type: ignore[misc]
        yield from (edited(content, path, nest) for nest in NESTINGS)


@pytest.mark.parametrize(
    ("which", "name", "n_edits"),
    [
        ("folder", "data.json", 500),
        ("folder", "captions.json", 300),
        ("folder", "trial_ids.json", 300),
        ("version_1", "data.json", 500),
        ("eeg", "data.json", 1500),
        ("eeg", "stimuli.json", 300),
    ],
)
def test_json(which: str, name: str, n_edits: int, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(which)
    original = (folder / name).read_text()
    whole = open_data(folder)
    arrays = {split: whole.responses(split).copy() for split in ("train", "test")}
    pictures = whole.images("test")
    n_good = n_bad = 0
    try:
        for content in edits(json.loads(original)):
            (folder / name).write_text(json.dumps(content))
            for opened in (open_data, open_responses):
                try:
                    found = opened(folder)
                    if name == "stimuli.json" and opened is open_data:
                        np.testing.assert_array_equal(found.images("test"), pictures)
                except FileError as error:
                    n_bad += 1
                    check_sentence(error, folder)
                    continue
                n_good += 1
                rows = found.responses("test") if opened is open_data else found.rows
                np.testing.assert_array_equal(rows, arrays["test"])
                assert found.layout.shape == rows.shape[1:]
                assert ResponseLayout.from_json(json.loads(json.dumps(found.layout.as_json())), "") == found.layout
                if opened is open_data:
                    np.testing.assert_array_equal(found.responses("train"), arrays["train"])
                    json.dumps(found.provenance, allow_nan=False).encode()  # it is copied into checkpoints
    finally:
        (folder / name).write_text(original)
    assert n_good + n_bad >= n_edits
    assert min(n_good, n_bad) > 3


def check_sentence(error: FileError, folder: Path) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 300 + 2 * len(str(folder)), str(error)


def header_edits(header: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from edits(header)
    for name in set(header) - {"__metadata__"}:
        for dtype in ("F64", "F16", "BF16", "I64", "I32", "BOOL", "F8_E4M3", "C64", "f32"):
            yield edited(header, (name, "dtype"), lambda _, dtype=dtype: dtype)  # type: ignore[misc]
        yield {(f"{key}s" if key == name else key): value for key, value in header.items()}


def test_tensor_headers(folder: Path) -> None:
    path = folder / "test.safetensors"
    original = path.read_bytes()
    start = 8 + int.from_bytes(original[:8], "little")
    n_refused = 0
    try:
        for header in header_edits(json.loads(original[8:start])):
            text = json.dumps(header).encode()
            path.write_bytes(len(text).to_bytes(8, "little") + text + original[start:])
            n_refused += refused_or_same(folder)
    finally:
        path.write_bytes(original)
    assert n_refused > 300


def test_tensor_lengths_and_bytes(folder: Path) -> None:
    path = folder / "test.safetensors"
    original, rng = path.read_bytes(), random.Random(1)
    start = 8 + int.from_bytes(original[:8], "little")
    try:
        for length in [*range(0, len(original), 7), len(original) - 1]:
            path.write_bytes(original[:length])
            assert refused_or_same(folder), length
        for _ in range(200):
            changed = bytearray(original)
            changed[rng.randrange(start)] ^= rng.randrange(1, 256)
            path.write_bytes(changed)
            refused_or_same(folder, values=False)  # a digit of data_offsets may swap two bytes of padding
    finally:
        path.write_bytes(original)


def refused_or_same(folder: Path, *, values: bool = True) -> bool:
    try:
        rows = open_responses(folder).rows
    except FileError as error:
        check_sentence(error, folder)
        return True
    if values:
        np.testing.assert_array_equal(rows, ROWS)
    return False
