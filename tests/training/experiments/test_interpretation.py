"""The experiment `interpretation`: its tables and sentences from values that were made up, its steps on small data."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_data import write_small_data

from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.errors import InputError
from minddiffuser.training import cli as train
from minddiffuser.training.experiments.interpretation import INTERPRETATION, check
from minddiffuser.training.experiments.reading import measure_windows, window_path
from minddiffuser.training.experiments.results import Results, modalities_of
from minddiffuser.training.experiments.subject import Plan, Subject
from minddiffuser.training.experiments.values import Values
from minddiffuser.training.experiments.write import write_results
from minddiffuser.training.interpret.windows import held_out_peak, windows

PLAN = Plan(n_trials=None, models="none")
FEATURES = ("context", "semantic", "structure", *(f"structure {k}" for k in range(1, 7)), "latent")
REGIONS = {"V1": range(40), "VO": range(40, 80), "LVC": range(40), "HVC": range(40, 80)}


def sensors(modality: str, n_times: int = 60) -> ResponseLayout:
    kind, unit = ("eeg", "V") if modality == "eeg" else ("mag", "T")
    channels = tuple(Channel(name=name, type=kind) for name in ("A", "B"))
    shape = (2, n_times)
    return ResponseLayout(modality=modality, shape=shape, channels=channels, sfreq=100.0, tmin=-0.1, unit=unit)


def subject(modality: str, out: Path, label: str = "") -> Any:
    rois = {name: frozenset(voxels) for name, voxels in REGIONS.items()}
    layout = ResponseLayout(modality="fmri", shape=(80,), rois=rois) if modality == "fmri" else sensors(modality)
    label = label or f"simulated-{modality}"
    data = SimpleNamespace(layout=layout, subject="S")
    return SimpleNamespace(
        label=label, modality=modality, brain="gabor", path=out / label, out=out / label, trials=range(9), data=data
    )


def of_voxels(label: str, rng: np.random.Generator) -> Values:
    """c in VO, the structure in V1, z in both; patterns say nothing."""
    columns = {f"pattern.{name}": rng.random(80) for name in FEATURES}
    for name in FEATURES:
        strong = {"context": slice(40, 80), "semantic": slice(40, 80), "latent": slice(0, 0)}.get(name, slice(0, 40))
        columns[f"weight.{name}"] = 0.5 + 0.1 * rng.random(80)
        columns[f"weight.{name}"][strong] += 1
    columns |= {f"in.{name}": np.isin(np.arange(80), list(voxels)).astype(float) for name, voxels in REGIONS.items()}
    return Values(pictures=tuple(f"{label} voxel {k}" for k in range(80)), columns=columns)


def of_windows(modality: str, rng: np.random.Generator, n: int = 60) -> Values:
    """The structure peaks at 150 ms, more in MEG than in EEG; the semantic feature at 300 ms."""
    moments = [1000 * window.time for window in windows(sensors(modality))]
    hits: dict[str, Any] = {}
    for name in FEATURES[1:]:
        middle, top = (300, 0.9) if name == "semantic" else (150, 0.9 if modality == "meg" else 0.4)
        rates = [top * np.exp(-(((ms - middle) / 40) ** 2)) for ms in moments]
        hits[name] = (rng.random((len(moments), n)) < np.array(rates)[:, None]).astype(float)
    columns = {f"top1.{f}@{ms:g}": row for f, rows in hits.items() for ms, row in zip(moments, rows, strict=True)}
    columns |= {f"peak.{name}": held_out_peak(rows, rng) for name, rows in hits.items()}
    names = [f"{kind}.{name}" for kind in ("top1", "peak") for name in FEATURES[1:]]
    return Values(
        pictures=tuple(f"{modality} {k}" for k in range(n)), columns=columns, chance=dict.fromkeys(names, 1 / n)
    )


def results(subjects: Sequence[Any], rng: np.random.Generator) -> Results:
    cells = {one.label: tuple(INTERPRETATION.cells(one, PLAN)) for one in subjects}
    values = {
        one.label: {
            one.modality: of_voxels(one.label, rng) if one.modality == "fmri" else of_windows(one.modality, rng)
        }
        for one in subjects
    }
    asked = INTERPRETATION.rows(modalities_of(subjects), PLAN)
    return Results(asked=asked, plan=PLAN, subjects=subjects, cells=cells, values=values)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("result")
    subjects = [subject("fmri", out, "one"), subject("fmri", out, "two"), subject("eeg", out), subject("meg", out)]
    write_results(INTERPRETATION, results(subjects, np.random.default_rng(1)), out)
    return out


def test_regions_are_means_over_the_voxels_of_all_subjects(written: Path) -> None:
    table = json.loads((written / "table.json").read_text())
    weights = table["tables"][0]
    assert (weights["name"], weights["unit"]) == ("regions-weight", "voxels")
    assert [one["name"] for one in weights["columns"]] == ["LVC", "HVC", "V1", "VO"]
    rng = np.random.default_rng(1)
    both = [of_voxels(label, rng) for label in ("one", "two")]
    expected = np.concatenate([one.columns["weight.context"][40:] for one in both])
    entry = next(row for row in weights["rows"] if row["key"] == "fmri.context")["values"]["VO"]
    assert entry["mean"] == pytest.approx(expected.mean())
    assert entry["n_voxels"] == 80
    low, high = entry["ci95"]
    assert high - low == pytest.approx(2 * 1.96 * expected.std() / 80**0.5, rel=0.2)
    assert low > entry["null95"] > 1  # random sets have both halves


def test_the_papers_sentences_are_judged(written: Path) -> None:
    claims = {one["text"]: one for one in json.loads((written / "table.json").read_text())["claims"]}
    words = {text: one["agreement"] for text, one in claims.items()}
    for text in (
        "c is read from HVC more than from LVC",
        "the structure is read from LVC more than from HVC",
        "z is read from both alike: LVC leads by less than for the structure",
        "… and HVC leads by less than for c",
        "c is read from VO, PHC and MT more than from elsewhere",
        "the structure is read from V1, V2 and V3 more than from elsewhere",
    ):
        assert words[text] == "agrees"
        assert words[f"{text}, by patterns"] == "undecided"
    assert words["EEG: the structure is found above chance"] == "agrees"
    assert words["MEG: the structure peaks between 100 and 200 ms"] == "agrees"
    assert words["MEG: the semantic feature peaks between 100 and 200 ms"] == "disagrees"
    assert words["the structure peaks higher in MEG than in EEG"] == "agrees"
    time = claims["MEG: the semantic feature peaks between 100 and 200 ms"]
    assert re.fullmatch(r"\d+ \[\d+, \d+\] ms", time["found"])
    assert abs(time["milliseconds"] - 300) < 40


def test_the_page_says_what_intervals_are_over_and_what_was_put_in(written: Path) -> None:
    page, text = ((written / name).read_text() for name in ("report.html", "table.md"))
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']+""", page)
    for said in (
        "random sets &lt; ",
        "bootstrap over voxels",
        "so that the choice of the window adds nothing",
        "was put in and is no finding",
        "structure peaks at 95 to 160 ms",
        "one: no maps, since the places of its voxels are not known.",
        "simulated-eeg: no maps of the head",
        "nothing is reconstructed",
    ):
        assert said in " ".join(page.split()), said
    assert "stage 2" not in page.partition("What the simulator put in")[0]
    assert "95 % intervals over voxels or pictures" in text
    assert "top-1 accuracy of each window" not in page  # for programs
    with (written / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["table"] for line in lines} == {
        "regions-weight",
        "regions-pattern",
        "peaks",
        "curves-eeg",
        "curves-meg",
    }
    assert {line["unit"] for line in lines} == {"voxels", "pictures"}
    assert (written / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_hits_of_windows_become_values_of_pictures(tmp_path: Path, rng: np.random.Generator) -> None:
    write_small_data(tmp_path / "data", rng.standard_normal((4, 2, 60)).astype(np.float32), layout=sensors("eeg"))
    one = Subject(tmp_path / "data", tmp_path / "out", PLAN)
    every = windows(one.data.layout)
    (tmp_path / "out/data/windows").mkdir(parents=True)
    for number, window in enumerate(every):
        content = {"time": window.time, "hits": {"semantic": [1, 0, number % 2, 0]}, "alphas": {}}
        window_path(one, number).write_text(json.dumps(content))
    found = measure_windows(one)
    assert len(found.pictures) == 3
    assert found.chance["peak.semantic"] == 1 / 3
    # The first trial and the last show one picture.
    columns = [values.tolist() for name, values in found.columns.items() if name.startswith("top1.semantic@")]
    assert columns == [[0.5, 0.0, number % 2] for number in range(len(every))]
    window_path(one, 2).write_text('{"hits": {"semantic": [1]}}')
    with pytest.raises(Exception, match="is damaged"):
        measure_windows(one)


def test_what_it_does_not_take_is_refused_before_anything_is_made(tmp_path: Path, rng: np.random.Generator) -> None:
    fmri = subject("fmri", tmp_path)
    short = subject("eeg", tmp_path)
    short.data.layout = sensors("eeg", n_times=5)
    nameless = subject("fmri", tmp_path)
    nameless.data.layout = ResponseLayout(modality="fmri", shape=(80,))
    for subjects, plan, said in (
        ([fmri], replace(PLAN, seeds=(1, 2)), "was given 2 seeds"),
        ([short], PLAN, "give a shorter one"),
        ([nameless], PLAN, "has no rois"),
    ):
        with pytest.raises(InputError, match=said):
            check(subjects, plan)
    check([fmri, subject("meg", tmp_path)], PLAN)
    pytest.importorskip("nilearn")
    surface = replace(PLAN, surface="fsaverage5")
    with pytest.raises(InputError, match="does not say it"):
        check([fmri], surface)
    with pytest.raises(InputError, match="there are no such data"):
        check([subject("eeg", tmp_path)], surface)


def test_other_experiments_draw_on_no_surface(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--surface", "fsaverage5"]
    assert train.main(["experiment", "rois", *given]) == 2
    assert "draws nothing on a surface" in capsys.readouterr().err


def run(data: Path, out: Path, world: Path, *more: str) -> int:
    where = ["--data", str(data), "--out", str(out), "--models", str(world), "--device", "cpu", "--threads", "1"]
    return train.main(["experiment", "interpretation", *where, *more])


@pytest.mark.slow
def test_from_eeg_to_the_page(small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--n-train", "15", "--n-test", "6", "--models", str(small_world), "--device", "cpu"]
    assert train.main(["simulate", "eeg", "--out", str(tmp_path / "eeg"), "--brain", "clip", *size]) == 0
    out = tmp_path / "out"
    assert run(tmp_path / "eeg", out, small_world) == 0
    assert "5/5 steps" in capsys.readouterr().err
    assert {path.name for path in (out / "eeg" / "maps").glob("heads*.*")} == {
        "heads-weight.png",
        "heads-pattern.png",
        "heads.csv",
    }
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 2
    kept = window_path(SimpleNamespace(out=out / "eeg"), 3)  # type: ignore[arg-type]
    before = kept.read_bytes()
    # Stopped within the windows, it goes on with those that are left.
    for path in (window_path(SimpleNamespace(out=out / "eeg"), 4), out / "eeg/done/windows.json"):  # type: ignore[arg-type]
        path.unlink()
    first = (out / "table.csv").read_bytes()
    assert run(tmp_path / "eeg", out, small_world) == 0
    assert kept.read_bytes() == before
    assert (out / "table.csv").read_bytes() == first


@pytest.mark.slow
def test_volumes_of_nsd(small_world: Path, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    size = ["--n-train", "20", "--n-test", "6", "--models", str(small_world), "--device", "cpu", "--brain", "clip"]
    assert train.main(["simulate", "fmri", "--format", "nsd", "--out", str(tmp_path / "nsd"), *size]) == 0
    assert train.main(["prepare", "nsd", str(tmp_path / "nsd"), "--subject", "1", "--out", str(tmp_path / "data")]) == 0
    assert run(tmp_path / "data", tmp_path / "out", small_world) == 0
    maps = tmp_path / "out" / "data" / "maps"
    values = load_file(maps / "importance" / "importance.safetensors")
    places = load_file(tmp_path / "data" / "voxels.safetensors")["ijk"]
    for name in ("weight.context", "pattern.structure 3"):
        image = nibabel.load(maps / f"{name.replace('.', '-').replace(' ', '-')}.nii.gz").get_fdata()
        np.testing.assert_allclose(image[tuple(places.T)], values[name])
    assert "no maps" not in (tmp_path / "out" / "report.html").read_text()
