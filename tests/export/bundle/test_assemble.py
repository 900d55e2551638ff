"""Bundles that are whole or absent: of the decoders alone, which take no time to export."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from minddiffuser.export.bundle import assemble
from minddiffuser.export.bundle.assemble import export_bundle
from minddiffuser.export.settings import ExportSettings
from minddiffuser.export.verify import parity
from minddiffuser.export.verify.check import OK, check_bundle
from minddiffuser.export.verify.gate import Verified
from minddiffuser.export.verify.parity import GateFailure, Tolerance
from minddiffuser.runtime.bundle.manifest import sealed
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.errors import FileError, InputError, MindDiffuserError
from minddiffuser.runtime.locks import beside, locked

CHEAP = ("decode_context", "decode_structure")
Export = Callable[..., Bundle]
# Two exports at once, each in a process of its own that stops half way through its phase until it is killed.
KILLED = """
import os, sys
from pathlib import Path
from minddiffuser.export.bundle.assemble import export_bundle
from minddiffuser.export.settings import ExportSettings
from minddiffuser.runtime.models.open import load_models

checkpoint, world, *places = sys.argv[1:]
load_models(world)  # what takes long to import is there for both
out, phase = places[:2] if os.fork() else places[2:]

def hang(label, done, total):
    if (label, done) == (phase, 1):
        print("half way", flush=True)
        sys.stdin.read()

graphs = ("decode_context", "decode_structure")
settings = ExportSettings(graphs=graphs, threads=1)
export_bundle(Path(checkpoint), Path(out), settings, models=world, force=True, progress=hang)
"""


@pytest.fixture
def export(small_checkpoint: Path, small_world: Path) -> Export:
    def run(out: Path, *, models: Path | None = None, settings: dict[str, Any] | None = None, **options: Any) -> Bundle:
        chosen = ExportSettings(**{"graphs": CHEAP, "threads": 1, **(settings or {})})
        return export_bundle(small_checkpoint, out, chosen, models=str(models or small_world), **options)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(folder: Path) -> list[str]:
    """What lies there but for locks, which stay."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def one_sentence(error: pytest.ExceptionInfo[MindDiffuserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) > 30
    return text


def test_a_bundle_of_the_decoders(export: Export, tmp_path: Path, small_checkpoint: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    bundle = export(tmp_path / "deep" / "bundle", progress=lambda *now: seen.append(now))
    assert names(tmp_path / "deep") == ["bundle"]
    assert set(bundle.graphs) == set(CHEAP)
    assert set(bundle.files) == set(contents(bundle.folder)) - {"manifest.json"}
    assert seen == [(label, done, 2) for label in ("exporting graphs", "verifying engines") for done in range(3)]
    checkpoint = open_checkpoint(small_checkpoint)
    assert bundle.checkpoint_hash == checkpoint.hash
    assert bundle.models_hash == checkpoint.models_hash
    assert (bundle.layout.shape, bundle.image_size, bundle.subject) == ((24,), 32, "someone")
    for name in CHEAP:
        (variant,) = bundle.graphs[name].variants
        assert (variant.target, variant.precision, variant.batch_sizes) == ("onnx", "fp32", None)
        assert set(variant.parity["inputs"]) == {"random", "decoded"}
        for tensors in variant.parity["inputs"].values():
            assert all(part["worst"] < 1e-5 for part in tensors.values())
    arrays = bundle.arrays
    np.testing.assert_array_equal(arrays["mask"], checkpoint.mask)
    np.testing.assert_array_equal(arrays["uncond_context"], checkpoint.uncond_context)
    assert [line.verdict for line in check_bundle(bundle.folder, threads=1)] == [OK, OK]


def test_parity_holds_what_the_checkpoint_decodes(export: Export, tmp_path: Path, small_checkpoint: Path) -> None:
    bundle = export(tmp_path / "bundle", settings={"n_verify": 3})
    held = load_file(bundle.path("parity.safetensors"))
    assert set(held) == {
        "decode_context/in/responses",
        "decode_context/out/context",
        "decode_structure/in/responses",
        "decode_structure/out/structure",
    }
    decoded = open_checkpoint(small_checkpoint).decode(held["decode_context/in/responses"])
    assert len(decoded.context) == 3
    np.testing.assert_array_equal(held["decode_context/out/context"], decoded.context)
    np.testing.assert_array_equal(held["decode_structure/out/structure"], decoded.structure)
    assert bundle.manifest["lineage"]["verified_on"] == {
        "trials": 3,
        "origin": "drawn from the training statistics",
        "warnings": [],
    }


def test_two_exports_are_the_same_bytes(export: Export, copied: Path, tmp_path: Path) -> None:
    """Whatever order the graphs are asked for in."""
    first = contents(copied)
    second = contents(export(tmp_path / "b", settings={"graphs": CHEAP[::-1], "n_verify": 2}).folder)
    assert first == second
    assert any(name.startswith("engines/") for name in first)


def test_an_old_bundle_is_replaced_as_a_whole(export: Export, decoder_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    export(out, settings={"graphs": ("decode_latent",)})
    (out / "engines" / "tensorrt").mkdir()
    (out / "engines" / "tensorrt" / "decode_latent.fp32.0123456789ab.plan").write_bytes(b"of a killed build")
    (out / "Thumbs.db").write_bytes(b"of a desktop")
    bundle = export(out, settings={"n_verify": 2}, force=True)
    assert set(bundle.graphs) == set(CHEAP)
    assert contents(out) == contents(decoder_bundle)
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "engines/mine.onnx",
        "engines/tensorrt/denoise.plan",
        "engines/tensorrt/denoise.fp16.0123456789ab/my_notes.txt",
        "engines/tensorrt/.x.lock/thesis.engine",
        "engines/ort-tensorrt/denoise.fp16.0123456789ab/my_notes.txt",
        "engines/ort-tensorrt/.denoise.fp16.7.draft/deep/a.engine",
        ".x.lock/thesis.txt",
        ".hidden",
        "link",
        "deep/er/thesis.txt",
    ],
)
def test_what_is_not_the_bundles_is_never_deleted(export: Export, copied: Path, tmp_path: Path, name: str) -> None:
    """With --force neither: refused before anything is opened or made."""
    path = copied / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "link":
        path.symlink_to(tmp_path)
    else:
        path.write_text("mine")
    before = {p: p.lstat().st_mtime_ns for p in tmp_path.rglob("*")}
    for force in (False, True):
        with pytest.raises(
            FileError, match=f"holds {name}, which is not part of the bundle there and would be"
        ) as error:
            export(copied, models=tmp_path / "nowhere", force=force)
        one_sentence(error)
    assert {p: p.lstat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_file_that_appears_while_a_bundle_is_made_is_kept(export: Export, copied: Path, tmp_path: Path) -> None:
    out, before = copied, contents(copied)
    with pytest.raises(FileError, match=r"holds notes\.txt"):
        export(out, force=True, finish=lambda draft: (out / "notes.txt").write_text("mine"))
    assert contents(out) == {**before, "notes.txt": b"mine"}
    assert names(tmp_path) == ["bundle"]


def test_a_bundle_is_replaced_only_where_that_is_asked_for(export: Export, copied: Path, tmp_path: Path) -> None:
    out, before = copied, contents(copied)
    with pytest.raises(
        FileError, match="holds a bundle already: give --force to replace it, or another --out"
    ) as error:
        export(out, models=tmp_path / "nowhere")
    one_sentence(error)
    assert contents(out) == before
    damaged = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**damaged, "files": "gone"}))
    with pytest.raises(FileError, match="damaged, so .* cannot be identified: move the folder away, or give"):
        export(out, force=True)


@pytest.mark.parametrize("damage", ["cut off", "gone", "of a later release"])
def test_a_damaged_bundle_can_be_replaced(export: Export, copied: Path, damage: str) -> None:
    said: list[str] = []
    content = json.loads((copied / "manifest.json").read_text())
    if damage == "cut off":
        (copied / "arrays.safetensors").write_bytes(b"x")
    elif damage == "gone":
        (copied / "parity.safetensors").unlink()
    else:
        (copied / "manifest.json").write_text(json.dumps(sealed({**content, "version": 99})))
    with pytest.raises(FileError, match="holds a bundle already: give --force to replace it"):
        export(copied)
    export(copied, force=True, say=said.append)
    assert set(Bundle.open(copied).graphs) == set(CHEAP)
    assert any("engines built for the existing bundle are not kept" in line for line in said) == (
        damage == "of a later release"
    )


def test_a_folder_with_a_name_like_a_leftovers_is_somebodys(export: Export, tmp_path: Path) -> None:
    """An output folder with nothing else in it is not empty."""
    thesis = tmp_path / "out" / ".x.lock" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("mine")
    with pytest.raises(FileError, match="exists and is not a bundle"):
        export(tmp_path / "out", force=True)
    assert thesis.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_said_before_anything_is_opened(export: Export, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match=r"bundle cannot be written \(.*file is a file\): choose another folder"):
        export(tmp_path / "file" / "bundle", models=tmp_path / "nowhere")
    with (
        locked(beside(tmp_path / "out"), tmp_path / "out"),
        pytest.raises(FileError, match="another process is working"),
    ):
        export(tmp_path / "out", models=tmp_path / "nowhere")


def test_a_link_to_a_bundle_stays_a_link(export: Export, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copied)
    assert set(export(tmp_path / "link", force=True, settings={"graphs": ("decode_latent",)}).graphs) == {
        "decode_latent"
    }
    assert (tmp_path / "link").readlink() == copied
    assert set(Bundle.open(copied).graphs) == {"decode_latent"}
    assert names(tmp_path) == ["bundle", "link"]


def test_an_empty_folder_becomes_a_bundle_and_so_does_the_folder_one_is_in(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert export(Path(".")).folder == here
    assert names(tmp_path) == ["here"]


@pytest.mark.parametrize("there", ["a file", "a folder with something in it", "another program's manifest"])
def test_what_is_no_bundle_is_never_replaced(export: Export, tmp_path: Path, there: str) -> None:
    out = tmp_path / "out"
    if there == "a file":
        out.write_text("thesis")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("thesis")
        if "manifest" in there:
            (out / "manifest.json").write_text(json.dumps({"name": "my site", "start_url": "/"}))
    before = contents(tmp_path)
    with pytest.raises(FileError, match="exists and is not a bundle: give another --out folder") as error:
        export(out)
    one_sentence(error)
    assert contents(tmp_path) == before


def test_a_gate_that_fails_leaves_the_old_bundle(
    export: Export, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, before = copied, contents(copied)
    monkeypatch.setitem(parity.TOLERANCES, "fp32", Tolerance(1e-12, 0.9, "nothing passes"))
    with pytest.raises(GateFailure, match="the graph decode_context in fp32 is not exported: context is off by") as e:
        export(out, force=True)
    one_sentence(e)
    assert contents(out) == before
    assert names(tmp_path) == ["bundle"]


def test_what_fails_is_kept_for_inspection_and_nothing_is_published(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, out = tmp_path / "kept", tmp_path / "bundle"
    monkeypatch.setitem(parity.TOLERANCES, "fp32", Tolerance(1e-12, 0.9, "nothing passes"))
    sizes = []
    for _ in range(2):
        with pytest.raises(GateFailure, match="decode_context"):
            export(out, settings={"keep_failed": kept})
        sizes.append({path.name: path.stat().st_size for path in kept.iterdir()})
    kept_marker = json.loads((kept / "failed.json").read_text())
    assert kept_marker["format"] == "minddiffuser-failed-graphs"
    assert sizes[0] == sizes[1]  # a second failure does not add to the first one's files
    assert names(tmp_path) == ["kept"]
    for name in CHEAP:  # every graph that fails, not only the first
        model = onnx.load(str(kept / f"{name}.fp32.onnx"))
        assert model.graph.name == name
        onnx.checker.check_model(model)
        printed = json.loads((kept / f"{name}.fp32.onnx.json").read_text())
        assert "of its peak, tolerance 1e-12" in printed["reason"]
        assert printed["parity"]["inputs"]["decoded"]


@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_of_someones_is_not_taken_for_what_fails(export: Export, tmp_path: Path, inside: bool) -> None:
    """Nor one in the bundle, where it would be in the way for ever."""
    kept = tmp_path / "bundle" / "kept" if inside else tmp_path / "thesis"
    if not inside:
        kept.mkdir()
        (kept / "decode_context.fp32.onnx").write_text("mine")
    words = "lies inside the bundle" if inside else "holds decode_context.fp32.onnx and is not a --keep-failed folder"
    with pytest.raises(MindDiffuserError, match=words):
        export(tmp_path / "bundle", models=tmp_path / "nowhere", settings={"keep_failed": kept})
    assert contents(tmp_path) == ({} if inside else {"thesis/decode_context.fp32.onnx": b"mine"})


def test_a_full_disk_under_keep_failed_names_that_folder(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: Any, **_named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(assemble, "verify_file", lambda *_, **__: Verified(parity={}, reason="it is off"))
    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(FileError, match="the --keep-failed folder .*kept cannot be written .No space left") as error:
        export(tmp_path / "bundle", settings={"keep_failed": tmp_path / "kept"})
    assert "bundle" not in one_sentence(error).replace(str(tmp_path), "")


def test_warnings_about_the_data_are_said_and_kept(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, said = assemble.draft_trials, list[str]()
    monkeypatch.setattr(
        assemble, "draft_trials", lambda *given: [replace(t, warnings=("barely on the scale",)) for t in real(*given)]
    )
    bundle = export(tmp_path / "bundle", say=said.append)
    assert said == ["barely on the scale"]
    assert bundle.manifest["lineage"]["verified_on"]["warnings"] == said


def test_a_graph_in_another_precision_fails_alone(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity.TOLERANCES, "fp16", Tolerance(1e-9, 0.9, "nothing passes"))
    kept = tmp_path / "kept"
    with pytest.raises(GateFailure, match="in fp16 is not exported: context is off by .*; export it in bf16 or fp32"):
        export(tmp_path / "bundle", settings={"precisions": ("fp16",), "keep_failed": kept})
    assert {path.name for path in kept.glob("*.onnx")} == {f"{name}.fp16.onnx" for name in CHEAP}


def test_decoders_in_every_precision(export: Export, tmp_path: Path) -> None:
    bundle = export(tmp_path / "bundle", settings={"precisions": ("fp16", "bf16", "int8")})
    for name in CHEAP:
        precisions = [variant.precision for variant in bundle.graphs[name].variants]
        assert precisions == ["fp32", "fp16", "bf16"]  # of so few weights int8 makes nothing smaller
        for variant in bundle.graphs[name].variants[1:]:
            assert "emulated" in variant.parity["verified"]
            assert "stay in float32" in variant.builder["note"]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_bundle(
    export: Export, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, before = copied, contents(copied)
    real = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".onnx":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match="the disk is full while writing .*: free some space") as error:
        export(out, force=True)
    one_sentence(error)
    assert contents(out) == before
    assert names(tmp_path) == ["bundle"]


def test_other_models_than_the_checkpoints_are_refused(export: Export, tmp_path: Path) -> None:
    from small_world import write_small_world

    with pytest.raises(InputError, match="other models") as error:
        export(tmp_path / "bundle", models=write_small_world(tmp_path / "world", seed=9))
    one_sentence(error)
    assert names(tmp_path) == ["world"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"graphs": ("dream",)}, "graph 'dream' is unknown: choose one of clip_structure, "),
        ({"precisions": ("fp8",)}, "precision 'fp8' is unknown: choose one of bf16, fp16, fp32, int8"),
        ({"n_verify": 0}, "n_verify is 0: give 1 or more trials"),
        ({"n_calibrate": -1}, "n_calibrate is -1: give 1 or more trials"),
        ({"graphs": ("decode_semantic",)}, "has no decoder for decode_semantic"),
    ],
)
def test_settings_that_cannot_be_used(export: Export, tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        export(tmp_path / "bundle", settings=settings)
    one_sentence(error)
    assert names(tmp_path) == []


def test_two_exports_into_one_bundle_do_not_meet(export: Export, copied: Path) -> None:
    out, before = copied, contents(copied)
    with locked(beside(out), out), pytest.raises(FileError, match="another process is working"):
        export(out, force=True)
    assert contents(out) == before
    export(out, force=True)  # what the other one left does not matter


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_killed_export_leaves_the_old_bundle_or_none(
    export: Export, tmp_path: Path, small_checkpoint: Path, small_world: Path
) -> None:
    """One process where a bundle was, one where none was, killed half way."""
    old, new = tmp_path / "old", tmp_path / "new"
    before = contents(export(old, settings={"graphs": ("decode_latent",)}).folder)
    places = [str(old), "exporting graphs", str(new), "verifying engines"]
    command = [sys.executable, "-c", KILLED, str(small_checkpoint), str(small_world), *places]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, start_new_session=True) as both:
        try:
            assert both.stdout is not None
            assert [both.stdout.readline() for _ in range(2)] == ["half way\n"] * 2
            assert sum(name.endswith(".draft") for name in names(tmp_path)) == 2
            with pytest.raises(FileError, match="another process is working"):
                export(old, force=True)
        finally:
            os.killpg(both.pid, signal.SIGKILL)
            both.stdout.read()  # to its end, which comes when both are gone
    assert contents(old) == before
    assert set(Bundle.open(old).graphs) == {"decode_latent"}
    assert not new.exists()
    for out in (old, new):
        assert set(export(out, force=True).graphs) == set(CHEAP)
    assert names(tmp_path) == ["new", "old"]


def interrupt(*_given: Any) -> None:
    raise KeyboardInterrupt


def test_killed_between_two_renames(export: Export, tmp_path: Path) -> None:
    """The old bundle is set aside and the new one not in place: the next export begins by putting the old one back."""
    out, aside = tmp_path / "bundle", tmp_path / ".bundle.4711.old"
    export(out, settings={"graphs": ("decode_latent",)})
    before = contents(out)
    out.rename(aside)
    with pytest.raises(FileError, match="bundle holds a bundle already"):
        export(out)
    assert contents(out) == before  # as the message says
    out.rename(aside)
    with pytest.raises(KeyboardInterrupt):
        export(out, force=True, progress=interrupt)
    assert contents(out) == before
    assert set(export(out, force=True).graphs) == set(CHEAP)
    assert names(tmp_path) == ["bundle"]


def test_leftovers_of_a_bundle_with_a_longer_name_are_not_touched(export: Export, tmp_path: Path) -> None:
    others = [tmp_path / ".bundle.v2.123.draft", tmp_path / ".bundle[1].77.draft"]
    own = tmp_path / ".bundle.99.draft"
    for folder in (*others, own):
        folder.mkdir()
        (folder / "part").write_bytes(b"x")
    export(tmp_path / "bundle")
    assert names(tmp_path) == sorted(["bundle", *(folder.name for folder in others)])


def test_what_a_reader_would_refuse_is_not_put_in_place(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(draft: Path) -> None:
        assert draft.parent == tmp_path
        path = draft / "arrays.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    with pytest.raises(FileError, match="arrays.safetensors is damaged"):
        export(tmp_path / "bundle", finish=spoil)
    assert names(tmp_path) == []


@pytest.mark.parametrize("phase", ["exporting graphs", "verifying engines"])
def test_interrupted_leaves_nothing(export: Export, tmp_path: Path, phase: str) -> None:
    def stop(label: str, done: int, total: int) -> None:
        if (label, done) == (phase, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "bundle", progress=stop)
    assert names(tmp_path) == []


def test_the_networks_are_gone_before_engines_are_opened(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would not fit into memory at full size. CLIP stays, to say what pictures show."""
    opened: list[Any] = []
    load = assemble.load_models

    def loaded(*arguments: Any, **options: Any) -> Any:
        models = load(*arguments, **options)
        opened.extend(weakref.ref(part) for part in (models, models.unet, models.vae, models.text_encoder))
        return models

    def watch(label: str, done: int, total: int) -> None:
        alive = [reference() is not None for reference in opened]
        assert any(alive) == (label != "verifying engines"), (label, alive)

    monkeypatch.setattr(assemble, "load_models", loaded)
    export(tmp_path / "bundle", progress=watch)
    assert len(opened) == 4


def test_an_export_takes_the_cores_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that the machine has: a container may be given a few of them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert ExportSettings().threads == 3


def test_graphs_and_their_gradients_share_their_weights(tiny_bundle: Path) -> None:
    """Of the whole file, next to nothing is for a gradient alone: what is small enough to be folded."""
    owners: dict[tuple[int, int], set[str]] = {}
    for path in (tiny_bundle / "engines").glob("*.onnx"):
        for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if place:
                span = int(place["offset"]), int(place["length"])
                owners.setdefault(span, set()).add(path.name.partition(".")[0])
    gradients = {"structure_gradient", "denoise_gradient"}
    alone = sum(length for (_, length), graphs in owners.items() if graphs <= gradients)
    shared = sum(length for (_, length), graphs in owners.items() if graphs & gradients and graphs - gradients)
    assert shared > 10e6
    assert alone < 0.01 * shared
    assert (tiny_bundle / "engines" / "weights.bin").stat().st_size < 1.02 * sum(length for _, length in owners)
