"""The table of signals and decoders: what was measured of a cell is kept, and the table made from it alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError

Load = Callable[[str], ModuleType]
MEASURED = Path(__file__).parents[2] / "docs" / "measured" / "modalities"


def sizes(cells: ModuleType, **changes: Any) -> Any:
    given = {"out": Path("nowhere"), "n_train": 9, "n_test": 6, "epochs": 2, "preset": "single", "threads": 1}
    return cells.Sizes(**{**given, **changes})


def values(cells: ModuleType, rng: np.random.Generator, shift: float) -> Any:
    chance = {name: rng.random(6) for name in ("structure", "latent", "concept")}
    return cells.Values(found={name: array + shift for name, array in chance.items()}, chance=chance)


def test_what_is_kept_is_read_again_and_at_no_other_sizes(load: Load, tmp_path: Path) -> None:
    cells = load("modality_cells")
    cell = cells.Cell(modality="eeg", seed=3, decoder="nice")
    kept = values(cells, np.random.default_rng(0), 0.5)
    assert cells.kept_values(tmp_path, cell, sizes(cells), "single") is None
    cells.keep_values(tmp_path, cell, sizes(cells), "single", kept)
    found = cells.kept_values(tmp_path, cell, sizes(cells, threads=2, out=tmp_path), "single")
    for part in ("found", "chance"):
        for name, array in getattr(kept, part).items():
            np.testing.assert_allclose(getattr(found, part)[name], array, atol=5e-6)  # five digits are kept
    assert cells.kept_values(tmp_path, cell, sizes(cells), "averaged") is None
    assert cells.kept_values(tmp_path, dataclasses.replace(cell, seed=4), sizes(cells), "single") is None
    with pytest.raises(InputError, match="was measured with"):
        cells.kept_values(tmp_path, cell, sizes(cells, epochs=3), "single")


def test_the_table_is_made_of_what_is_kept_and_leaves_out_the_rest(
    load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, cells = load("modalities"), load("modality_cells")
    rng = np.random.default_rng(1)
    for decoder, shift in (("ridge", 0.25), ("atm", 0.75)):
        cell = cells.Cell(modality="eeg", seed=3, decoder=decoder)
        for kind in cells.KINDS:
            cells.keep_values(tmp_path, cell, sizes(cells), kind, values(cells, rng, shift))
    given = ["--out", str(tmp_path / "none"), "--seed", "3", "--n-train", "9", "--n-test", "6", "--epochs", "2"]
    table = tmp_path / "table.json"
    assert bench.main([*given, "--values", str(tmp_path), "--table-only", "--json", str(table)]) == 0
    said = capsys.readouterr()
    assert said.err.count("left out, it has not been made") == 9
    rows = {(row["decoder"], row["trials"]): row for row in json.loads(table.read_text())["rows"]}
    assert set(rows) == {(decoder, kind) for decoder in ("ridge", "atm") for kind in cells.KINDS}
    for (decoder, _), row in rows.items():
        shift = {"ridge": 0.25, "atm": 0.75}[decoder]
        assert row["minus_chance"]["structure"]["difference"] == pytest.approx(shift, abs=1e-5)


def test_what_the_docs_show_is_kept_in_the_repository(load: Load) -> None:
    """Each row of the page's table has its values, of the sizes that the page's command gives."""
    cells = load("modality_cells")
    page = (MEASURED.parents[1] / "results.md").read_text(encoding="utf-8")
    shown = sizes(cells, n_train=1200, n_test=32, epochs=30)
    for modality, decoder, label in (
        ("fmri", "ridge", "fMRI, ridge"),
        ("eeg", "atm", "EEG, ATM"),
        ("meg", "brain_module", "MEG, SimpleConvTimeAgg"),
    ):
        people = [cells.Cell(modality=modality, seed=seed, decoder=decoder) for seed in (20261211, 20261212, 20261213)]
        kept = [cells.kept_values(MEASURED, cell, shown, "averaged") for cell in people]
        mean = np.mean([one.found["structure"].mean() for one in kept])
        assert f"| {label} | averaged | {mean:.2f} [" in page
