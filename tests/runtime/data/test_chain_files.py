"""The files of a signal chain in a checkpoint and in a bundle: copied whole, listed, and missed when they are gone."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from kind_checkpoint import write_kind_checkpoint

from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.chain_files import copy_files, listed_files
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.errors import FileError

DIGEST = hashlib.sha256(b"matrix").hexdigest()
CHAIN = {"steps": [{"name": "whiten", "file": "w.bin", "sha256": DIGEST}, {"name": "decimate", "factor": 2}]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/w.bin").write_bytes(b"matrix")
    return tmp_path / "data"


@pytest.fixture
def checkpoint(tmp_path: Path, source: Path) -> Path:
    """Of EEG, with a chain and its file."""
    folder = write_kind_checkpoint(tmp_path / "checkpoint", "linear", (5, 8)).folder
    copy_files(CHAIN, source, folder)
    edit(folder / "checkpoint.json", lambda content: content["layout"].update(signal=CHAIN))
    edit(folder / "checkpoint.json", lambda content: content["files"].update(listed_files(CHAIN)))
    return folder


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_copied_whole_or_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out/signal").mkdir(parents=True)
    (tmp_path / "out/signal/.w.bin.99999.draft").write_bytes(b"of a process that was killed")
    copy_files(CHAIN, source, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out/signal").iterdir()} == {"w.bin": b"matrix"}
    copy_files(None, source, tmp_path / "none")
    copy_files({"steps": []}, source, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (source / "w.bin").write_bytes(b"other")
    with pytest.raises(FileError, match="w.bin has another SHA-256 than the signal chain states"):
        copy_files(CHAIN, source, tmp_path / "out")
    (source / "w.bin").unlink()
    with pytest.raises(FileError, match="the signal chain's file at .*w.bin cannot be opened"):
        copy_files(CHAIN, source, tmp_path / "out")


def test_a_checkpoint_without_them_is_refused(checkpoint: Path) -> None:
    assert (open_checkpoint(checkpoint).signal_folder / "w.bin").read_bytes() == b"matrix"
    (checkpoint / "signal/w.bin").write_bytes(b"other")
    with pytest.raises(FileError, match=r"w.bin is truncated or was changed"):
        open_checkpoint(checkpoint)
    edit(checkpoint / "checkpoint.json", lambda content: content["files"].update({"signal/w.bin": "0" * 64}))
    with pytest.raises(FileError, match=r"'files.signal/w.bin' .* the SHA-256 that the signal chain states"):
        open_checkpoint(checkpoint)
    edit(checkpoint / "checkpoint.json", lambda content: content["files"].pop("signal/w.bin"))
    with pytest.raises(FileError, match=r"field 'files' is .* expected exactly .*signal/w.bin"):
        open_checkpoint(checkpoint)


def test_a_bundle_without_them_is_refused(checkpoint: Path, tmp_path: Path, toy_bundle: Path) -> None:
    from toy_bundle import write_manifest, write_toy_bundle

    folder = write_toy_bundle(tmp_path / "bundle", checkpoint)
    with pytest.raises(FileError, match=r"field 'files' is .*, expected signal/w.bin with the SHA-256 that the signal"):
        Bundle.open(folder)
    shutil.copytree(checkpoint / "signal", folder / "signal")
    write_manifest(folder, json.loads((folder / "manifest.json").read_text()))
    assert (Bundle.open(folder).signal_folder / "w.bin").read_bytes() == b"matrix"
    (folder / "signal/w.bin").write_bytes(b"other!")
    with pytest.raises(FileError, match="w.bin is damaged or was changed"):
        Bundle.open(folder)
