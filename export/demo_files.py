"""Make the files that the demonstration ships with: a simulated subject's test trials and its bundle, packed.

    python -m minddiffuser.export.demo_files

Five minutes on two cores; run again after an interruption, it goes on after the last finished command. Run it after a
change of the tiny world or of a format: a test says when.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.bundle.manifest import VERSION as BUNDLE_VERSION
from ..runtime.command import guarded
from ..runtime.data.schema import VERSION as DATA_VERSION
from ..runtime.decoders import files as checkpoints
from ..runtime.demo import packed
from ..runtime.demo.full import code_digests
from ..runtime.demo.quick import SHIPPED, WORLD
from ..runtime.errors import InputError
from ..runtime.files import hash_of_json, read_metadata, read_tensors, sha256_of, write_json, write_tensors
from ..runtime.locks import beside, locked
from ..runtime.output import replacing_folder
from ..runtime.training_pictures import FILE as TRAINING_PICTURES
from ..training.simulate.brains import DEFAULT_BRAIN
from ..training.simulate.subject import GENERATOR_VERSION
from .bundle.pack import pack

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PROG = "demo_files"
# Parts of the world that decide the files.
_PARTS = ("clip", "scheduler", "text_encoder", "tokenizer", "unet", "vae")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The subject that is shipped: brain, seed, trials, and voxels that each structural dimension is decoded from."""

    brain: str = DEFAULT_BRAIN
    seed: int = 7
    n_train: int = 1200
    n_test: int = 8
    n_structure: int = 150


def key(subject: DataclassInstance, *versions: int) -> str:
    """SHA-256 of what decides the shipped files: the world, the subject, and the versions of all formats.

    `versions` are those of formats beside the usual ones.
    """
    paths = [path for part in _PARTS for path in sorted((WORLD / part).rglob("*")) if path.is_file()]
    world = {path.relative_to(WORLD).as_posix(): sha256_of(path) for path in paths}
    formats = [GENERATOR_VERSION, DATA_VERSION, checkpoints.VERSION, BUNDLE_VERSION, packed.VERSION, *versions]
    return hash_of_json([world, asdict(subject), formats])


def work_name(subject: DataclassInstance) -> str:
    """Name of the folder for what is made on the way.

    It knows all code as well, so that nothing of older code is taken for finished. The shipped files' own key does not:
    what they hold stays right when a sentence changes.
    """
    return f"demo-files-{hash_of_json([key(subject), code_digests()])[:16]}"


def make(work: Path, out: Path, subject: Subject) -> None:
    """Simulate, fit, export and pack, or only the steps that are not finished.

    Parameters
    ----------
    work
        A folder for what is made on the way; what is finished there is not made again.
    out
        Folder of packed.json and packed.bin.

    Raises
    ------
    InputError
        A command failed, which has given its reason.
    """
    data, fitted, rounded, bundle, whole = (
        work / name for name in ("data", "checkpoint", "rounded", "bundle", "whole")
    )
    seed, n_train, n_test = str(subject.seed), str(subject.n_train), str(subject.n_test)
    simulate = ["simulate", "fmri", "--seed", seed, "--n-train", n_train, "--n-test", n_test, "--out", str(data)]
    simulate += ["--brain", subject.brain]
    fit = ["fit", str(data), "--models", "tiny", "--out", str(fitted), "--cache", str(work / "features")]
    if not (data / "data.json").exists():
        run_command("md-train", simulate)
    if not (fitted / checkpoints.DESCRIPTION).exists():
        run_command("md-train", [*fit, "--n-structure", str(subject.n_structure)])
    if not (rounded / checkpoints.DESCRIPTION).exists():
        round_weights(fitted, rounded)
    if not (bundle / "manifest.json").exists():
        run_command(
            "md-export", ["bundle", str(rounded), "--models", "tiny", "--data", str(data), "--out", str(bundle)]
        )
    shutil.rmtree(whole, ignore_errors=True)
    shutil.copytree(bundle, whole / "bundle")
    # The train split may be missing in a data folder that is reconstructed.
    shutil.copytree(data, whole / "data", ignore=lambda _, names: [n for n in names if Path(n).stem == "train"])
    pack(whole, out, WORLD, {"key": key(subject), "subject": asdict(subject)})


def round_weights(checkpoint: Path, out: Path) -> None:
    """Write a checkpoint whose weights are rounded to float16: half the space, and predictions change by a thousandth.

    The table of training pictures is left out: the demonstration has none of these. The hashes of the files that change
    are changed in its description. `out` is there whole or not at all.
    """
    text = (checkpoint / checkpoints.DESCRIPTION).read_text(encoding="utf-8")
    with locked(beside(out), out), replacing_folder(out, checkpoints.DESCRIPTION) as draft:
        shutil.copytree(checkpoint, draft, dirs_exist_ok=True, ignore=shutil.ignore_patterns(TRAINING_PICTURES))
        for path in sorted(draft.rglob("*.safetensors")):
            before = sha256_of(path)
            metadata = read_metadata(path)
            arrays = {name: _rounded(name, array) for name, array in read_tensors(path, "a decoder").items()}
            write_tensors(path, arrays, metadata)
            text = text.replace(before, sha256_of(path))
        content = json.loads(text)
        content["files"].pop(TRAINING_PICTURES, None)
        write_json(draft / checkpoints.DESCRIPTION, content)


def _rounded(name: str, array: Any) -> Any:
    if array.dtype == np.float32 and name.endswith("weight"):
        return array.astype(np.float16).astype(np.float32)
    return array


def run_command(program: str, arguments: Sequence[str]) -> None:
    """Run one of the package's commands in this process.

    Raises
    ------
    InputError
        It failed, and has given its reason.
    """
    from ..training import cli as train
    from . import cli as export

    sys.stderr.write(f"$ {program} {' '.join(arguments)}\n")
    code = {"md-train": train.main, "md-export": export.main}[program](arguments)
    if code != 0:
        raise InputError(
            f"{program} {arguments[0]} failed with exit code {code}: fix the error above and run this again"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Make the files."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for what is made on the way (default: beside this checkout)")
    args = parser.parse_args(argv)
    subject = Subject()
    work = args.work or SHIPPED.parents[1] / "runs" / work_name(subject)

    def run() -> int:
        make(work, SHIPPED, subject)
        return 0

    return guarded(PROG, run, interrupted="run the same command again", out_of_memory="close something", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
