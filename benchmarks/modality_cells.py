"""One cell of the table of modalities: a simulated subject, a decoder, and what it decodes and reconstructs.

OUT/MODALITY-SEED/{averaged,single}     data folders: the same subject and training trials, test trials apart
OUT/MODALITY-SEED/DECODER/{checkpoint,averaged,single}      fitted, and run on both kinds of test trials
Everything is made by the commands that a user would type, which go on where they were stopped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.files import read_json, write_bytes
from minddiffuser.runtime.models.open import load_models
from minddiffuser.training.experiments.decoding import own_and_others, z_scored
from minddiffuser.training.features.extract import extract_features
from minddiffuser.training.tinyworld.scenes import CONCEPTS

DECODERS: dict[str, tuple[str, ...]] = {
    "fmri": ("ridge", "mlp", "transformer"),
    "eeg": ("ridge", "nice", "eegnet", "atm", "transformer"),
    "meg": ("ridge", "atm", "brain_module"),
}
# MEG at the rate that EEG has by default: at twice as many, a fit takes twice as long.
SIMULATED = {"meg": ("--sfreq", "100")}
KINDS = AVERAGED, SINGLE = ("averaged", "single")
DECODED = ("structure", "latent")
_COMMANDS = {"md-train": "minddiffuser.training.cli", "md-reconstruct": "minddiffuser.runtime.cli"}
Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A subject and a decoder."""

    modality: str
    seed: int
    decoder: str


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What all cells share."""

    out: Path
    n_train: int
    n_test: int
    epochs: int
    preset: str
    threads: int


def options_of(cell: Cell, sizes: Sizes) -> list[str]:
    """What ``md-train fit`` is given beside the data."""
    if cell.decoder == "ridge":
        # EEG and MEG: every sample of every channel, and the penalty by cross-validation; the paper's own numbers are
        # for voxels.
        given = [] if cell.modality == "fmri" else ["n_selected=1000000", "alpha=cv"]
    else:
        given = [f"epochs={sizes.epochs}"]
        given += ["embedding=1024"] if cell.decoder in ("nice", "atm") else []
    shared = [] if cell.decoder == "ridge" else ["--shared-trunk"]
    # Selection fits every dimension of the structure in five folds: from all values, they share a factorisation. It is
    # the same for every decoder, so that all are compared over the same dimensions, and is computed once.
    selection = ["--n-selection", "1000000", "--alpha-selection", "cv"]
    route = [] if cell.modality == "fmri" else [*selection, "--concept-prototypes", "images"]
    options = [part for option in given for part in ("--decoder-option", option)]
    return ["--decoder", cell.decoder, *options, *shared, *route]


def make(cell: Cell, sizes: Sizes) -> Path:
    """Simulate, fit and run, as far as it is not there; returns the cell's folder."""
    subject = sizes.out / f"{cell.modality}-{cell.seed}"
    threads = ["--threads", str(sizes.threads)]
    for kind, repetitions in ((AVERAGED, []), (SINGLE, ["--repetitions", "1"])):
        if not (subject / kind / "data.json").exists():
            shown = ["--n-train", str(sizes.n_train), "--n-test", str(sizes.n_test)]
            where = ["--seed", str(cell.seed), "--out", str(subject / kind), *SIMULATED.get(cell.modality, ())]
            command("md-train", "simulate", cell.modality, *where, *shown, *repetitions)
    folder = subject / cell.decoder
    checkpoint = folder / "checkpoint"
    if not (checkpoint / "checkpoint.json").exists():
        cache = ["--cache", str(sizes.out / "features"), *threads]
        command("md-train", "fit", str(subject / AVERAGED), "--out", str(checkpoint), *cache, *options_of(cell, sizes))
    for kind in (AVERAGED, SINGLE):
        if not (folder / kind / "report.html").exists():
            controls = "both" if kind == AVERAGED else "none"
            how = ["--preset", sizes.preset, "--controls", controls, *threads]
            command("md-reconstruct", "run", str(checkpoint), str(subject / kind), "--out", str(folder / kind), *how)
    return folder


def is_made(cell: Cell, sizes: Sizes) -> bool:
    """Whether both of a cell's runs have ended."""
    folder = sizes.out / f"{cell.modality}-{cell.seed}" / cell.decoder
    return all((folder / kind / "report.html").exists() for kind in KINDS)


def command(program: str, *options: str) -> None:
    """Run a command of the package.

    Raises
    ------
    InputError
        It failed; what it said stands above.
    """
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    code = subprocess.run([sys.executable, "-m", _COMMANDS[program], *options], env=environment, check=False).returncode
    if code not in (0, 1):
        raise InputError(f"{program} {' '.join(options)} ended with exit code {code}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """What a cell gave for one kind of test trials: name -> one value per trial, each of another picture.

    `chance` of the same names where there is one, and of "concept" the number of candidates.
    """

    found: Mapping[str, Float64]
    chance: Mapping[str, Float64]


def measure(cell: Cell, sizes: Sizes, kind: str, models: Any) -> Values:
    """Patterns decoded from each test picture against the true ones, the decoded concept, and the run's metrics.

    *Pattern correlation*: of a picture's decoded z-scores with its true ones, over the dimensions that are predicted.
    Chance is the same with another picture's true values, the mean over all others.
    """
    subject = sizes.out / f"{cell.modality}-{cell.seed}"
    folder = subject / cell.decoder
    data, checkpoint = open_data(subject / kind), open_checkpoint(folder / "checkpoint")
    true = extract_features(data, "test", models, cache_dir=sizes.out / "features")
    order = data.stimulus("test")
    responses = data.responses("test")
    found, chance = {}, {}
    decoded = checkpoint.decode(responses)
    for feature in DECODED:
        own, others = patterns(checkpoint, feature, getattr(decoded, feature), getattr(true, feature)[order])
        found[feature], chance[feature] = own, others
    run = json.loads((folder / kind / "trials.json").read_text())
    if any("metrics" not in trial for trial in run) or len(run) != len(responses):
        raise InputError(f"the run in {folder / kind} has not measured every trial: delete it, and run again")
    for metric in run[0]["metrics"]:
        found[f"{metric}.stage1"] = _column(trial["metrics"][metric][0] for trial in run)
        found[f"{metric}.stage2"] = _column(trial["metrics"][metric][1] for trial in run)
        for control in run[0].get("controls", {}):
            found[f"{metric}.{control}"] = _column(trial["controls"][control][metric] for trial in run)
    if cell.modality == "fmri":
        hits, n = direct_concepts(data, decoded.context, order, models, sizes)
    else:
        hits = _column(float(trial["concept"]["rank"] == 1) for trial in run)
        n = json.loads((folder / kind / "summary.json").read_text())["concepts"]["n_candidates"]
    found["concept"], chance["concept"] = hits, np.full(len(hits), 1 / n)
    return Values(found=found, chance=chance)


def kept_values(folder: Path, cell: Cell, sizes: Sizes, kind: str) -> Values | None:
    """What was measured of a cell before, on this machine or on another; None where it was not.

    Raises
    ------
    InputError
        It was measured at other sizes.
    """
    path = _values_file(folder, cell, kind)
    if not path.exists():
        return None
    content = read_json(path, "what was measured of a cell")
    if content["sizes"] != _said(sizes):
        raise InputError(
            f"{path} was measured with {content['sizes']}, not {_said(sizes)}: give the same, or no --values"
        )
    found, chance = ({name: _column(row) for name, row in content[part].items()} for part in ("found", "chance"))
    return Values(found=found, chance=chance)


def keep_values(folder: Path, cell: Cell, sizes: Sizes, kind: str, values: Values) -> None:
    """Write what was measured, a number per test picture: enough for the table, without subjects and pictures."""
    parts = {"found": values.found, "chance": values.chance}
    rows = {part: {name: [round(float(x), 5) for x in row] for name, row in of.items()} for part, of in parts.items()}
    content = {"cell": asdict(cell), "kind": kind, "sizes": _said(sizes), **rows}
    write_bytes(_values_file(folder, cell, kind), (json.dumps(content, separators=(",", ":")) + "\n").encode())


def _values_file(folder: Path, cell: Cell, kind: str) -> Path:
    return folder / f"{cell.modality}-{cell.decoder}-{cell.seed}-{kind}.json"


def _said(sizes: Sizes) -> dict[str, Any]:
    """The sizes that change the numbers."""
    return {name: value for name, value in asdict(sizes).items() if name not in ("out", "threads")}


def _column(values: Any) -> Float64:
    return np.array(list(values), np.float64)


def patterns(
    checkpoint: Checkpoint, feature: str, decoded: NDArray[Any], true: NDArray[Any]
) -> tuple[Float64, Float64]:
    """Each trial's correlation with its own true values, and its mean one with the others'."""
    _, a, b = z_scored(checkpoint, feature, decoded, true)
    return own_and_others(a, b)


def direct_concepts(
    data: Any, context: NDArray[Any], stimulus: NDArray[Any], models: Any, sizes: Sizes
) -> tuple[Float64, int]:
    """Whether a trial's context is nearest to that of its own concept, the mean context of its training pictures."""
    train = extract_features(data, "train", models, cache_dir=sizes.out / "features").context
    assert train is not None
    names, tested = (_concepts(data, split) for split in ("train", "test"))
    shown = [tested[row] for row in stimulus]
    known = sorted(set(names))
    flat = train.reshape(len(train), -1)
    places = np.stack([flat[[name == concept for name in names]].mean(axis=0) for concept in known]).astype(np.float64)
    centre = flat.mean(axis=0)
    a, b = context.reshape(len(context), -1) - centre, places - centre
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    nearest = (a @ b.T).argmax(axis=1)
    return _column(known[i] == name for i, name in zip(nearest, shown, strict=True)), len(known)


def _concepts(data: Any, split: str) -> list[str]:
    """The thing that each picture's caption names: simulated fMRI does not state concepts."""
    return [next(word for word in captions[0].split() if word in CONCEPTS) for captions in data.captions(split)]


@cache
def tiny_models() -> Any:
    return load_models("tiny")


def cells(seeds: Sequence[int], wanted: Sequence[str] | None) -> list[Cell]:
    """All cells of these seeds, or those named "modality:decoder".

    Raises
    ------
    InputError
        There is no such cell.
    """
    known = [f"{modality}:{decoder}" for modality, names in DECODERS.items() for decoder in names]
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        raise InputError(f"there is no cell {', '.join(unknown)}: choose among {', '.join(known)}")
    names = known if wanted is None else list(dict.fromkeys(wanted))
    parts = [name.split(":") for name in names]
    return [Cell(modality=modality, seed=seed, decoder=decoder) for seed in seeds for modality, decoder in parts]
