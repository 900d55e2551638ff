"""Rules that every registered experiment keeps, and its page, table and figure from values that were made up."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.metrics import METRICS
from minddiffuser.training.experiments import EXPERIMENTS
from minddiffuser.training.experiments.base import Cell
from minddiffuser.training.experiments.experiment import Experiment
from minddiffuser.training.experiments.results import Results, modalities_of
from minddiffuser.training.experiments.subject import Plan
from minddiffuser.training.experiments.values import Values
from minddiffuser.training.experiments.write import write_results

# Those whose tables are of rows and metrics; `interpretation` is tested by itself.
OF_PICTURES = [name for name in EXPERIMENTS if name != "interpretation"]
PICTURES = tuple(f"picture {k}" for k in range(8))
FEATURES = ("context", "latent", "semantic", "structure", *(f"structure {k}" for k in range(1, 7)))


def opened(name: str) -> Experiment:
    module, attribute = EXPERIMENTS[name]
    found = getattr(import_module(module, "minddiffuser.training.experiments"), attribute)
    assert isinstance(found, Experiment)
    return found


def subject(modality: str, out: Path, label: str = "") -> Any:
    rois = {"LVC": (0, 2), "HVC": (2, 4)} if modality == "fmri" else None
    label = label or f"simulated-{modality}"
    return SimpleNamespace(
        label=label,
        modality=modality,
        brain="gabor",
        path=out / label,
        out=out / label,
        trials=tuple(range(8)),
        data=SimpleNamespace(layout=SimpleNamespace(rois=rois, modality=modality), subject=f"S {modality}"),
    )


def made_up(cell: Cell, rng: np.random.Generator) -> Values:
    """Every column that some row could take."""
    frames = {f"frame{number}" for step in cell.steps for number in getattr(step, "frames", ())}
    kinds = sorted({"stage1", "stage2", *frames})
    columns = {f"{metric}.{kind}": rng.random(8) for metric in ("pixcorr", "ssim", "clip_two_way") for kind in kinds}
    columns |= {f"decoded.{name}": rng.random(8) for name in FEATURES}
    return Values(pictures=PICTURES, columns=columns, chance={"decoded.context": 0.1})


def results(experiment: Experiment, subjects: Sequence[Any], plan: Plan, rng: np.random.Generator) -> Results:
    cells = {one.label: tuple(experiment.cells(one, plan)) for one in subjects}
    values = {label: {cell.name: made_up(cell, rng) for cell in some} for label, some in cells.items()}
    asked = experiment.rows(modalities_of(subjects), plan)
    return Results(asked=asked, plan=plan, subjects=subjects, cells=cells, values=values)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", OF_PICTURES)
def test_cells_rows_and_claims_belong_together(name: str, full: bool, tmp_path: Path) -> None:
    experiment, plan = opened(name), Plan(full=full, n_trials=None if full else 32)
    assert experiment.name == name
    cells = [cell for modality in experiment.modalities for cell in experiment.cells(subject(modality, tmp_path), plan)]
    by_name = {cell.name for cell in cells}
    rows = experiment.rows(experiment.modalities, plan)
    keys = [row.key for row in rows]
    assert len(set(keys)) == len(keys)
    assert len({row.label for row in rows}) == len(rows)
    assert {row.cell for row in rows} == by_name
    assert {row.against for row in rows} <= {None, *keys}
    if experiment.paper is not None:
        assert set(experiment.paper.rows) <= set(keys)
        assert experiment.paper.name in experiment.source
    for claim in experiment.claims(experiment.modalities):
        assert {claim.more[0], claim.less[0]} <= by_name, claim
        assert claim.more != claim.less
        for _, column in (claim.more, claim.less):
            metric, _, kind = column.partition(".")
            assert (metric == "decoded" and kind in FEATURES) or metric in METRICS, claim


@pytest.mark.parametrize("name", OF_PICTURES)
def test_steps_that_share_a_folder_are_the_same(name: str, tmp_path: Path) -> None:
    experiment = opened(name)
    for plan in (Plan(), Plan(full=True), Plan(seeds=(1, 2))):
        for modality in experiment.modalities:
            cells = experiment.cells(subject(modality, tmp_path), plan)
            assert len({cell.name for cell in cells}) == len(cells)
            found: dict[str, Any] = {}
            for step in (step for cell in cells for step in cell.steps):
                described = json.loads(json.dumps(step.describe()))
                assert found.setdefault(step.folder, described) == described
                assert re.fullmatch(r"[a-z0-9./-]+", step.folder)
            seeds = {one["refine"]["seed"] for one in found.values() if "refine" in one}
            assert seeds == set(plan.seeds)


@pytest.mark.parametrize("name", OF_PICTURES)
def test_the_result_is_written_beside_the_papers_numbers(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    experiment, plan = opened(name), Plan()
    given = experiment.modalities if experiment.mixed else experiment.modalities[:1]
    subjects = [subject(modality, tmp_path) for modality in given]
    found = results(experiment, subjects, plan, rng)
    page = write_results(experiment, found, tmp_path).read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']+""", page)
    assert "What the simulator put in" in page
    assert all(row.label in page for row in found.rows)
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["key"] for row in table["tables"][0]["rows"]] == [row.key for row in found.rows]
    for row in table["tables"][0]["rows"]:
        for metric, entry in row["values"].items():
            known = {} if experiment.paper is None else experiment.paper.rows.get(row["key"], {})
            number = known.get("clip_vit_l14" if metric == "clip_two_way" else metric)
            assert entry["paper"] == (None if number is None else number[0])
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(len(row["values"]) for one in table["tables"] for row in one["rows"])
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "figure.svg").read_text()
    assert (tmp_path / "table.md").read_text().startswith(f"# {experiment.title}")


def test_stage_1_on_the_page_says_whose_it_is(tmp_path: Path, rng: np.random.Generator) -> None:
    """Fits to other voxels begin with other pictures."""
    experiment, one = opened("rois"), subject("fmri", tmp_path)
    found = results(experiment, [one], Plan(), rng)
    for cell in found.cells[one.label]:
        run = one.out / cell.steps[-1].folder
        for kind in ("stage1", "stage2"):
            (run / "images" / kind).mkdir(parents=True)
        (run / "trials.json").write_text("[]")
    page = write_results(experiment, found, tmp_path).read_text()
    strip = page[page.index('class="strip"') :]
    heads = re.findall(r'<th scope="col">([^<]*)</th>', strip)
    assert heads[:3] == ["shown", "all voxels: stage 1", "all voxels"]


def test_the_papers_own_clip_metric_takes_its_place_where_it_is_there(tmp_path: Path, rng: np.random.Generator) -> None:
    experiment = opened("rois")
    found = results(experiment, [subject("fmri", tmp_path)], Plan(), rng)
    for made in (*found.values.values(),):
        for name, one in made.items():
            columns = {**one.columns, "clip_vit_l14.stage2": rng.random(8)}
            made[name] = replace(one, columns=columns)  # type: ignore[index]
    write_results(experiment, found, tmp_path)
    first = json.loads((tmp_path / "table.json").read_text())["tables"][0]["rows"][0]["values"]
    assert first["clip_vit_l14"]["paper"] == 0.791
    assert first["clip_two_way"]["paper"] is None


def test_metrics_that_were_not_measured_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    experiment = opened("rois")
    page = write_results(
        experiment, results(experiment, [subject("fmri", tmp_path)], Plan(), rng), tmp_path
    ).read_text()
    missing = "AlexNet(2), AlexNet(5), InceptionV3, CLIP, EffNet-B, SwAV"
    assert f"Not measured of the paper&#x27;s eight metrics: {missing}." in page


@pytest.mark.parametrize("name", [name for name in OF_PICTURES if opened(name).claims(opened(name).modalities)])
def test_a_sentence_whose_metric_was_not_measured_is_named(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """It must not look as if the paper had not said it."""
    experiment = opened(name)
    found = results(experiment, [subject(modality, tmp_path) for modality in experiment.modalities], Plan(), rng)
    for cells in found.values.values():
        for cell, one in cells.items():
            cells[cell] = replace(one, columns={"overlap.stage2": rng.random(8)})  # type: ignore[index]
    page = write_results(experiment, found, tmp_path).read_text()
    claims = json.loads((tmp_path / "table.json").read_text())["claims"]
    assert [claim["text"] for claim in claims] == [
        claim.text for claim in experiment.claims(modalities_of(found.subjects))
    ]
    assert {(claim["found"], claim["agreement"]) for claim in claims} == {("not measured", None)}
    assert page.count("not measured") >= len(claims)
    assert "| not measured |  |" in (tmp_path / "table.md").read_text()


def test_real_subjects_have_nothing_put_in(tmp_path: Path, rng: np.random.Generator) -> None:
    experiment, real = opened("rois"), subject("fmri", tmp_path)
    real.brain = None
    page = write_results(experiment, results(experiment, [real], Plan(), rng), tmp_path).read_text()
    assert "What the simulator put in" not in page


def test_a_subject_without_the_groups_is_refused(tmp_path: Path) -> None:
    other = subject("fmri", tmp_path)
    other.data.layout.rois = {"V1": (0, 4)}
    with pytest.raises(InputError, match="no rois HVC and LVC"):
        opened("rois").cells(other, Plan())
