"""A whole fit on stand-ins for data, models and features: what comes out, what a kill leaves, what is refused."""

from __future__ import annotations

import errno
import json
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from json_edits import single_edits

from minddiffuser.runtime.data.layout import ResponseLayout
from minddiffuser.runtime.data.voxels import Voxels
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.decoders.files import DESCRIPTION
from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.training import checkpoint_folder as journal
from minddiffuser.training.curves import read_curves
from minddiffuser.training.decoders import DECODERS
from minddiffuser.training.decoders import blocks as block_rule
from minddiffuser.training.decoders.base import make_decoder
from minddiffuser.training.decoders.ridge import FittedRidge, Ridge
from minddiffuser.training.features import extract
from minddiffuser.training.fit import fit, fit_key
from minddiffuser.training.networks.loop import Stopped, Training
from minddiffuser.training.regions import Regions
from minddiffuser.training.selection import SelectionSettings
from minddiffuser.training.settings import FitSettings
from minddiffuser.training.solvers.penalty import ALPHAS

SHAPES = {"context": (15, 3), "latent": (4, 2, 2), "structure": (6, 2, 4), "semantic": (4,)}
N_STIMULI = 40
PARTS = ("normaliser", "constants", "context", "latent", "semantic", "mask", "structure")


@dataclass
class Features:
    context: np.ndarray | None
    latent: np.ndarray
    structure: np.ndarray
    semantic: np.ndarray
    key: str = "f" * 64
    folder: Path | None = None
    libraries: dict[str, str] = field(default_factory=lambda: {"torch": "1.0"})


@dataclass
class Data:
    """60 trials: 40 stimuli, the first 20 of them twice."""

    train: np.ndarray
    subject: str = "S1"
    provenance: dict[str, Any] = field(default_factory=dict)
    order: np.ndarray = field(default_factory=lambda: np.r_[np.arange(40), np.arange(20)])
    rois: dict[str, tuple[int, int]] = field(default_factory=lambda: {"V1": (0, 5), "LO": (5, 14)})
    texts: int = N_STIMULI
    voxels: Voxels | None = None

    @property
    def layout(self) -> ResponseLayout:
        return ResponseLayout(modality="fmri", shape=self.train.shape[1:], rois=self.rois, voxels=self.voxels)

    def responses(self, split: str) -> np.ndarray:
        assert split == "train", "a fit may not look at the test split"
        return self.train

    def stimulus(self, split: str) -> np.ndarray:
        assert split == "train"
        return self.order

    def hash(self, split: str) -> str:
        assert split == "train"
        return "d" * 64

    def captions(self, split: str) -> list[list[str]]:
        assert split == "train"
        return [["a cat"]] * self.texts

    def images(self, split: str, start: int, stop: int) -> np.ndarray:
        assert split == "train"
        return np.stack([np.full((4, 4, 3), number, np.uint8) for number in range(start, stop)])


@dataclass
class Models:
    name: str = "stand-in"
    hash: str = "ab" * 32
    preset: str = "reference"
    image_size: int = 16

    def encode_text(self, captions: list[str]) -> np.ndarray:
        assert captions == [""]
        return np.full((1, 15, 3), 0.25, np.float32)


@pytest.fixture
def features(rng: np.random.Generator) -> Features:
    causes = rng.standard_normal((N_STIMULI, 5))
    made = {
        name: (causes @ rng.standard_normal((5, int(np.prod(shape)))) * 2 + 1).reshape(-1, *shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    made["context"][:, 0] = [7.0, 8.0, 9.0]  # BOS
    made["latent"][:, 1, 0, 1] = -3.0  # a target that does not vary
    made["structure"][:, :, 1] = rng.standard_normal((N_STIMULI, 6, 4))  # cannot be decoded
    return Features(**made)


@pytest.fixture
def data(features: Features, rng: np.random.Generator) -> Data:
    order = np.r_[np.arange(40), np.arange(20)]
    causes = features.latent.reshape(N_STIMULI, -1)[:, :5]
    responses = causes[order] @ rng.standard_normal((5, 14)) + 0.3 * rng.standard_normal((60, 14)) + 5
    responses[:, 3] = 2.0
    return Data(responses.astype(np.float32))


@pytest.fixture(autouse=True)
def _stand_in_features(
    features: Features, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def given(*_args: Any, progress: Any, **_options: Any) -> Features:
        progress(N_STIMULI, N_STIMULI)
        # A folder of its own for each fit, as if what another one kept had been deleted.
        return features if features.folder else replace(features, folder=tmp_path_factory.mktemp("features"))

    monkeypatch.setattr(extract, "extract_features", given)


SETTINGS = FitSettings(
    context=Ridge(n_selected=6),
    latent=Ridge(n_selected=4000),
    structure=Ridge(n_selected=8),
    selection=SelectionSettings(percent=50, n_folds=3),
    n_threads=1,
)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_fit_can_be_opened_and_decodes_its_training_data(tmp_path: Path, data: Data, features: Features) -> None:
    out = fit(data, Models(), tmp_path / "checkpoint", SETTINGS)
    checkpoint = open_checkpoint(out)
    decoded = checkpoint.decode(data.train)
    truth = {name: getattr(features, name)[data.order] for name in SHAPES}
    assert np.corrcoef(decoded.context[:, 1:].ravel(), truth["context"][:, 1:].ravel())[0, 1] > 0.9
    assert np.corrcoef(decoded.semantic[:, 0], truth["semantic"][:, 0])[0, 1] > 0.9  # type: ignore[index]
    np.testing.assert_allclose(decoded.context[:, 0], np.tile([7.0, 8.0, 9.0], (60, 1)))
    np.testing.assert_allclose(decoded.latent[:, 1, 0, 1], -3.0)
    chosen = decoded.structure[:, checkpoint.mask], truth["structure"][:, checkpoint.mask]
    assert np.corrcoef(chosen[0].ravel(), chosen[1].ravel())[0, 1] > 0.9
    np.testing.assert_allclose(
        decoded.structure[0, ~checkpoint.mask], truth["structure"].mean(0)[~checkpoint.mask], rtol=1e-5
    )
    np.testing.assert_array_equal(np.flatnonzero(checkpoint.training.std == 0), [3])
    np.testing.assert_array_equal(checkpoint.uncond_context, np.full((15, 3), 0.25))


def test_the_mask_keeps_what_can_be_decoded(tmp_path: Path, data: Data) -> None:
    checkpoint = open_checkpoint(fit(data, Models(), tmp_path / "c", SETTINGS))
    assert checkpoint.mask.reshape(6, -1).sum(axis=1).tolist() == [4] * 6
    assert checkpoint.mask[:, 0].sum() >= 22  # token 0 follows the causes, token 1 is noise
    assert checkpoint.score[:, 0].mean() > 0.8 > abs(checkpoint.score[:, 1].mean())


def test_the_weights_are_those_of_the_ridge_on_z_scored_data(tmp_path: Path, data: Data, features: Features) -> None:
    out = fit(data, Models(), tmp_path / "c", SETTINGS)
    used = np.delete(data.train.astype(float), 3, axis=1)
    x = np.column_stack([(used - used.mean(0)) / used.std(0), np.ones(60)])
    y = features.latent[data.order].reshape(60, -1).astype(float)[:, :2]
    z = (y - y.mean(0)) / y.std(0)
    predicted = x @ np.linalg.solve(x.T @ x + 0.15 * np.eye(14), x.T @ z) * y.std(0) + y.mean(0)
    found = open_checkpoint(out).decode(data.train).latent.reshape(60, -1)[:, :2]
    np.testing.assert_allclose(found, predicted, atol=1e-4)


@dataclass
class OnePicturePerTrial(Data):
    """The same trials, with a file for each: copies of a picture have numbers of their own."""

    def picture_ids(self, split: str) -> tuple[str, ...]:
        assert split == "train"
        return tuple(str(number) for number in np.r_[np.arange(40), np.arange(20)])


def test_copies_of_a_picture_count_as_one(tmp_path: Path, data: Data, features: Features) -> None:
    once = fit(data, Models(), tmp_path / "once", SETTINGS)
    for name in SHAPES:
        setattr(features, name, getattr(features, name)[data.order])
    copies = OnePicturePerTrial(data.train, order=np.arange(60))
    many = fit(copies, Models(), tmp_path / "many", SETTINGS)
    assert (many / "scores.json").read_bytes() == (once / "scores.json").read_bytes()
    assert (many / "mask.safetensors").read_bytes() == (once / "mask.safetensors").read_bytes()
    with pytest.raises(FileError, match="other data, models or settings"):
        fit(Data(data.train, order=np.arange(60)), Models(), many, SETTINGS)


def test_every_phase_takes_the_responses_that_were_read_first(tmp_path: Path, data: Data) -> None:
    whole = contents(fit(data, Models(), tmp_path / "whole", SETTINGS))

    def edited(name: str, _done: int, _total: int) -> None:
        if name == "context":
            data.train[:] = 0

    assert contents(fit(data, Models(), tmp_path / "c", SETTINGS, progress=edited)) == whole


def test_the_description_tells_how_it_was_made(tmp_path: Path, data: Data) -> None:
    description = json.loads((fit(data, Models(), tmp_path / "c", SETTINGS) / "checkpoint.json").read_text())
    assert description["subject"] == "S1"
    assert description["models"] == {"name": "stand-in", "hash": "ab" * 32}
    assert description["shapes"] == {name: list(shape) for name, shape in SHAPES.items()}
    assert description["decoders"][1] == {
        "kind": "linear",
        "features": ["latent"],
        "fit": {"fitter": "ridge", "n_selected": 14, "alpha": 0.15, "device": "cpu"},
    }
    assert description["selection"]["signed"] is True
    assert description["provenance"]["constant"] == [3]
    assert (description["provenance"]["n_trials"], description["provenance"]["n_stimuli"]) == (60, 40)


@pytest.mark.parametrize("averaged", [False, True])
def test_the_key_is_the_fits_own_and_follows_the_responses(tmp_path: Path, data: Data, averaged: bool) -> None:
    """By it a finished fit is found again: data that were corrected, or other settings, have another one."""
    settings = replace(SETTINGS, average_repetitions=averaged)
    found = fit(data, Models(), tmp_path / "out", settings)
    key = fit_key(data, Models(), settings)
    assert json.loads((found / DESCRIPTION).read_text())["provenance"]["key"] == key
    assert fit_key(data, Models(), replace(settings, average_repetitions=not averaged)) != key
    data.responses("train")[3] *= 2
    assert fit_key(data, Models(), settings) != key


def test_a_killed_fit_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, data: Data) -> None:
    whole = contents(fit(data, Models(), tmp_path / "whole", SETTINGS))
    for phase in ("context", "semantic", "selection", "structure"):
        out = tmp_path / phase

        def killed(name: str, _done: int, _total: int, at: str = phase) -> None:
            if name == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(data, Models(), out, SETTINGS, progress=killed)
        assert not (out / "checkpoint.json").exists()
        with pytest.raises(FileError, match="not finished"):
            open_checkpoint(out)
        finished = [name for name in contents(out) if name.endswith("safetensors") and ".part." not in name]
        before = {name: (out / name).stat().st_mtime_ns for name in finished}
        fit(data, Models(), out, SETTINGS)
        assert contents(out) == whole
        assert before
        assert before == {name: (out / name).stat().st_mtime_ns for name in before}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Blocks of 8 targets; the list receives (n_trials, n_targets) of every call of the solver."""
    monkeypatch.setattr(block_rule, "_BLOCK", 8)
    monkeypatch.setattr(block_rule, "_BLOCK_PER_VALUE", 0)
    whole, calls = Ridge.fit, []

    def counted(self: Ridge, responses: Any, targets: Any, **options: Any) -> FittedRidge:
        calls.append(targets.shape)
        return whole(self, responses, targets, **options)

    monkeypatch.setattr(Ridge, "fit", counted)
    monkeypatch.setattr(Ridge, "predictor", lambda _self, *_given, **_options: None)  # each block by its weights
    return calls


def test_no_block_is_fitted_twice_wherever_a_fit_is_killed(
    tmp_path: Path, data: Data, small_blocks: list[tuple[int, int]]
) -> None:
    """Interrupted after every block, again and again, until it is done: as many fits, and the same bytes."""
    seen: list[tuple[str, int, int]] = []
    whole = contents(
        fit(data, Models(), tmp_path / "whole", SETTINGS, progress=lambda *reported: seen.append(reported))
    )
    n_unbroken = len(small_blocks)
    assert [reported for reported in seen if reported[0] == "latent"][-2:] == [("latent", 8, 16), ("latent", 16, 16)]
    assert ("selection", 8, 144) in seen
    small_blocks.clear()
    furthest: dict[str, int] = {}
    out, n_kills = tmp_path / "c", 0

    class Killed(Exception):
        pass

    while not (out / "checkpoint.json").exists():
        n_begun = len(small_blocks)

        def kill(name: str, done: int, total: int, before: int = n_begun) -> None:
            assert done >= furthest.get(name, 0), f"{name} began again at {done}"
            if len(small_blocks) > before + 3:  # something is kept, and more has been fitted
                raise Killed
            furthest[name] = done

        try:
            fit(data, Models(), out, SETTINGS, progress=kill)
        except Killed:
            n_kills += 1
    assert n_kills > 12
    assert contents(out) == whole
    assert len(small_blocks) <= n_unbroken + 3 * n_kills  # scores are kept for all three regions together


@pytest.mark.long
def test_a_penalty_by_cross_validation_is_the_same_for_every_block_and_after_a_kill(
    tmp_path: Path, data: Data, small_blocks: list[tuple[int, int]]
) -> None:
    few = SelectionSettings(percent=50, n_folds=2)
    settings = replace(
        SETTINGS,
        context=Ridge(n_selected=6, alpha="cv"),
        structure=Ridge(n_selected=8, alpha="cv"),
        selection=few,
    )
    out = fit(data, Models(), tmp_path / "whole", settings)
    whole, description = contents(out), open_checkpoint(out).description
    alphas = {made["features"][0]: made.get("alpha") for made in description["decoders"]}
    assert alphas["context"] in ALPHAS
    assert alphas["structure"] in ALPHAS
    assert alphas["latent"] is None
    assert next(made for made in description["decoders"] if made["features"] == ["context"])["fit"]["alpha"] == "cv"
    for phase in ("context", "selection", "structure"):

        def killed(name: str, done: int, _total: int, at: str = phase) -> None:
            if name == at and done > 8:  # one block is kept
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(data, Models(), tmp_path / phase, settings, progress=killed)
        assert contents(fit(data, Models(), tmp_path / phase, settings)) == whole


def test_a_kept_block_that_was_damaged_is_fitted_again(
    tmp_path: Path, data: Data, small_blocks: list[tuple[int, int]]
) -> None:
    whole = contents(fit(data, Models(), tmp_path / "whole", SETTINGS))

    def killed(name: str, done: int, _total: int) -> None:
        if name == "selection" and done == 120:
            raise KeyboardInterrupt

    out = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        fit(data, Models(), out, SETTINGS, progress=killed)
    parts = sorted(out.glob("selection-*.part.safetensors"))
    assert len(parts) == 14
    parts[3].write_bytes(parts[2].read_bytes())
    parts[5].unlink()
    (out / "mine.part.safetensors").write_bytes(b"somebody's")
    seen: list[int] = []
    fit(
        data, Models(), out, SETTINGS, progress=lambda name, done, _: seen.append(done) if name == "selection" else None
    )
    assert seen[0] == 12 * 8
    (out / "mine.part.safetensors").unlink()  # it was left alone
    assert contents(out) == whole


def test_a_second_fit_into_the_folder_is_refused_and_harms_nothing(tmp_path: Path, data: Data) -> None:
    reported: list[str] = []

    def progress(name: str, _done: int, _total: int) -> None:
        if not reported and name == "selection":
            with pytest.raises(
                FileError, match=f"another process is working in {tmp_path / 'c'}: wait for it"
            ) as caught:
                fit(data, Models(), tmp_path / "c", SETTINGS)
            reported.append(str(caught.value))

    fit(data, Models(), tmp_path / "c", SETTINGS, progress=progress)
    assert len(reported) == 1
    assert contents(tmp_path / "c") == contents(fit(data, Models(), tmp_path / "alone", SETTINGS))


def test_hidden_drafts_of_other_programs_are_left_alone(tmp_path: Path, data: Data) -> None:
    out = tmp_path / "c"
    out.mkdir()
    ours, theirs = out / ".latent.safetensors.123.draft", out / ".thesis.tex.123.draft"
    for path in (ours, theirs):
        path.write_text("half")
    fit(data, Models(), out, SETTINGS)
    assert theirs.read_text() == "half"
    assert not ours.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_decoder_that_gives_nan_is_refused_before_its_file(
    value: float, tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FittedRidge.arrays

    def spoiled(self: FittedRidge) -> dict[str, np.ndarray]:
        arrays = {name: array.copy() for name, array in whole(self).items()}
        arrays["weight"][3, 2] = value
        return arrays

    with monkeypatch.context() as patch:
        patch.setattr(FittedRidge, "arrays", spoiled)
        with pytest.raises(InputError, match="decoder of context gave NaN or infinite weights for 1 of 42 dimensions"):
            fit(data, Models(), tmp_path / "c", SETTINGS)
    assert not (tmp_path / "c" / "context.safetensors").exists()
    with monkeypatch.context() as patch:
        patch.setattr(
            FittedRidge, "predict", lambda self, x, start=0, stop=None: np.full((len(x), stop - start), value)
        )
        with pytest.raises(InputError, match="gave NaN or infinite values for held-out trials"):
            fit(data, Models(), tmp_path / "c", SETTINGS)
    assert not (tmp_path / "c" / "mask.safetensors").exists()
    open_checkpoint(fit(data, Models(), tmp_path / "c", SETTINGS))


def test_constants_of_nan_are_refused(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """The empty caption is no feature of any picture, and a checkpoint with it could not be opened either."""
    monkeypatch.setattr(Models, "encode_text", lambda self, captions: np.full((1, 15, 3), np.nan, np.float32))
    with pytest.raises(InputError, match="uncond_context of constants.safetensors came out with NaN"):
        fit(data, Models(), tmp_path / "c", SETTINGS)


@pytest.mark.long
def test_single_edits_of_the_journal_change_no_number(
    tmp_path: Path, data: Data, small_blocks: list[tuple[int, int]]
) -> None:
    """The fit ends with the same bytes, or is refused in one sentence before anything is written."""
    whole = contents(fit(data, Models(), tmp_path / "whole", SETTINGS))

    def killed(name: str, done: int, _total: int) -> None:
        if name == "scores" and done > 0:
            raise KeyboardInterrupt

    half = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        fit(data, Models(), half, SETTINGS, progress=killed)
    names = ("fit.json", "journal/mask.safetensors.json", "journal/scores-0-0.part.safetensors.json")
    n_finished, before = 0, contents(half)
    edits = [(name, *edit) for name in names for edit in single_edits(json.loads((half / name).read_text()), 25)]
    for name, edit, changed in edits:
        (half / name).write_text(json.dumps(changed))
        # Where it goes on is enough: what it would write then is the same as in the other tests.
        with pytest.raises((ZeroDivisionError, FileError)) as caught:
            fit(data, Models(), half, SETTINGS, progress=lambda *_: 1 / 0)
        n_finished += caught.type is ZeroDivisionError
        if caught.type is FileError:
            assert len(str(caught.value).splitlines()) == 1, edit
            assert {**contents(half), name: b""} == {**before, name: b""}
        (half / name).write_bytes(before[name])
    assert n_finished > 30
    assert contents(fit(data, Models(), half, SETTINGS)) == whole


def test_a_file_damaged_after_the_kill_is_fitted_again(tmp_path: Path, data: Data) -> None:
    def killed(name: str, _done: int, _total: int) -> None:
        if name == "selection":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, Models(), tmp_path / "c", SETTINGS, progress=killed)
    (tmp_path / "c" / "latent.safetensors").write_bytes(b"half")
    open_checkpoint(fit(data, Models(), tmp_path / "c", SETTINGS))


def test_a_fit_that_goes_on_under_another_library_says_both_versions(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(name: str, _done: int, _total: int) -> None:
        if name == "selection":
            raise KeyboardInterrupt

    here = json.loads((fit(data, Models(), tmp_path / "whole", SETTINGS) / DESCRIPTION).read_text())
    here = here["provenance"]["libraries"]
    with monkeypatch.context() as earlier:
        earlier.setattr(journal, "versions", lambda names: {**here, "scipy": "0.1"})
        with pytest.raises(KeyboardInterrupt):
            fit(data, Models(), tmp_path / "c", SETTINGS, progress=killed)
    content = json.loads((fit(data, Models(), tmp_path / "c", SETTINGS) / DESCRIPTION).read_text())
    assert content["provenance"]["libraries"] == {**here, "scipy": f"0.1, then {here['scipy']}"}
    assert not (tmp_path / "c" / "journal").exists()


def test_a_finished_fit_is_returned_as_it_is(tmp_path: Path, data: Data) -> None:
    out = fit(data, Models(), tmp_path / "c", SETTINGS)
    reported: list[str] = []
    fit(data, Models(), out, replace(SETTINGS, batch_size=2), progress=lambda name, *_: reported.append(name))
    assert reported == []
    (out / "mask.safetensors").write_bytes(b"half")
    with pytest.raises(FileError, match="truncated or was changed"):
        fit(data, Models(), out, SETTINGS)


def test_rois_are_kept_and_a_finished_fit_of_other_rois_is_refused(tmp_path: Path, data: Data) -> None:
    out = fit(data, Models(), tmp_path / "checkpoint", FitSettings(n_threads=1))
    checkpoint = open_checkpoint(out)
    assert list((checkpoint.layout.rois or {}).items()) == [("V1", (0, 5)), ("LO", (5, 14))]
    checkpoint.require_layout(data.layout)
    turned = replace(data, rois={"LO": (0, 9), "V1": (9, 14)})
    with pytest.raises(InputError, match="roi 'V1' is voxels 0 to 5 there and voxels 9 to 14 here"):
        checkpoint.require_layout(turned.layout)
    with pytest.raises(InputError, match=r"under other names .*roi 'V1' is .*: choose another --out"):
        fit(turned, Models(), out, FitSettings(n_threads=1))
    renamed = replace(data, rois={"V1v": (0, 5), "LO": (5, 14)})
    with pytest.raises(InputError, match=r"with scores of other rois \(V1, V1v\): choose another"):
        fit(renamed, Models(), out, FitSettings(n_threads=1))


def test_places_of_voxels_are_kept_and_compared(tmp_path: Path, data: Data) -> None:
    ijk = np.stack([np.arange(14), np.zeros(14, int), np.arange(14)], axis=1)
    placed = replace(data, voxels=Voxels(ijk, np.eye(4)))
    out = fit(placed, Models(), tmp_path / "checkpoint", FitSettings(n_threads=1))
    checkpoint = open_checkpoint(out)
    assert checkpoint.layout == placed.layout
    assert "voxels.safetensors" in checkpoint.description["files"]
    checkpoint.require_layout(data.layout)
    with pytest.raises(InputError, match=r"voxel 0 lies at ijk \(0, 0, 0\) there and \(13, 0, 13\) here"):
        checkpoint.require_layout(replace(data, voxels=Voxels(ijk[::-1])).layout)
    (out / "voxels.safetensors").write_bytes(b"half")
    with pytest.raises(FileError, match="truncated or was changed"):
        open_checkpoint(out)


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_another_fit_is_refused(tmp_path: Path, data: Data, finished: bool) -> None:
    def killed(name: str, _done: int, _total: int) -> None:
        if name == "latent" and not finished:
            raise KeyboardInterrupt

    out = tmp_path / "c"
    try:
        fit(data, Models(), out, SETTINGS, progress=killed)
    except KeyboardInterrupt:
        assert not finished
    before = contents(out)
    others = {
        "settings": (data, Models(), replace(SETTINGS, context=Ridge(n_selected=5))),
        "selection": (data, Models(), replace(SETTINGS, selection=SelectionSettings(percent=10))),
        "models": (data, Models(hash="cd" * 32), SETTINGS),
        "preset": (data, Models(preset="paper"), SETTINGS),
        "data": (Data(data.train + 1), Models(), SETTINGS),
    }
    for other in others.values():
        with pytest.raises(FileError, match="other data, models or settings"):
            fit(other[0], other[1], out, other[2])
    assert contents(out) == before


def test_somebody_elses_folder_is_refused(tmp_path: Path, data: Data) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="holds notes.txt and is not a checkpoint or an unfinished fit"):
        fit(data, Models(), tmp_path, SETTINGS)
    with pytest.raises(FileError, match="is a file"):
        fit(data, Models(), tmp_path / "notes.txt", SETTINGS)


def test_a_full_disk_is_one_sentence_and_can_be_continued(
    tmp_path: Path, data: Data, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is a small file, a fold of the selection or one of the scores that has no room."""
    import safetensors.numpy

    whole = contents(fit(data, Models(), tmp_path / "whole", SETTINGS))
    save, calls = safetensors.numpy.save_file, []
    # Folds are kept one by one, and the selection once more beside the features.
    n_files = len(PARTS) + 1 + SETTINGS.selection.n_folds * (1 + len(SHAPES)) + 1  # and the training pictures
    for when in (2, 8, n_files - 1):
        calls.clear()
        features.folder = tmp_path / f"features-{when}"
        features.folder.mkdir()

        def full(arrays: Any, path: Any, when: int = when, **options: Any) -> None:
            calls.append(path)
            if len(calls) == when:
                raise OSError(errno.ENOSPC, "No space left on device")
            save(arrays, path, **options)

        monkeypatch.setattr(safetensors.numpy, "save_file", full)
        with pytest.raises(FileError, match="the disk is full while writing"):
            fit(data, Models(), tmp_path / str(when), SETTINGS)
        assert contents(fit(data, Models(), tmp_path / str(when), SETTINGS)) == whole
        assert len(calls) == n_files + 1


def test_bad_training_data_is_refused(tmp_path: Path, data: Data, features: Features) -> None:
    def with_responses(values: np.ndarray) -> Data:
        return Data(values.astype(np.float32))

    some = data.train.copy()
    some[[4, 9], 2] = np.nan
    cases = [
        (with_responses(some), "2 of 60 training trials hold NaN or infinite responses .trials 4, 9"),
        (with_responses(np.full((60, 14), np.nan)), "every training trial holds NaN"),
        (with_responses(np.ones((60, 14))), "no response varies"),
        (replace(data, order=np.zeros(60, int)), "1 training stimuli cannot be split"),
    ]
    for number, (bad, message) in enumerate(cases):
        with pytest.raises(InputError, match=message):
            fit(bad, Models(), tmp_path / str(number), SETTINGS)
    with pytest.raises(ShapeError, match="2 trials or more"):
        fit(Data(data.train[:1], order=np.zeros(1, int)), Models(), tmp_path / "one", SETTINGS)
    with pytest.raises(InputError, match="no captions"):
        fit(replace(data, texts=0), Models(), tmp_path / "mute", SETTINGS)


def test_settings_that_cannot_be_used_are_refused() -> None:
    for wrong in ({"batch_size": 0}, {"n_threads": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            FitSettings(**wrong)


def test_too_few_stimuli_are_refused_before_features(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "extract_features", lambda *_args, **_options: pytest.fail("hours of work"))
    for n_folds, order in ((21, data.order), (5, np.arange(60) % 9)):
        settings = replace(SETTINGS, selection=SelectionSettings(n_folds=n_folds))
        with pytest.raises(InputError, match=f"cannot be split into {n_folds} folds"):
            fit(replace(data, order=order), Models(), tmp_path / "c", settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["half", "version", "kind"])
def test_a_damaged_journal_says_what_to_delete(tmp_path: Path, data: Data, damage: str) -> None:
    def killed(name: str, _done: int, _total: int) -> None:
        if name == "selection":
            raise KeyboardInterrupt

    out = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        fit(data, Models(), out, SETTINGS, progress=killed)
    text = (out / "fit.json").read_text()
    changed = {"half": text[:40], "version": text.replace(": 2,", ": 3,"), "kind": text.replace("er-fit", "er-run")}
    assert changed[damage] != text
    (out / "fit.json").write_text(changed[damage])
    advice = "fit.json that is not this release's: choose another --out"
    with pytest.raises(FileError, match=advice if damage == "kind" else f"delete {out} and run again"):
        fit(data, Models(), out, SETTINGS)
    for name in ("thesis.tex", "drawing.svg", "results.json"):
        (out / name).write_text("years of work")
        with pytest.raises(FileError, match=f"holds {name} .*choose another --out$"):
            fit(data, Models(), out, SETTINGS)
        (out / name).unlink()
    (out / "fit.json").write_text(text)
    with pytest.raises(FileError, match="choose another --out, or delete that folder$"):
        fit(Data(data.train + 1), Models(), out, SETTINGS)
    (out / "drawing.svg").write_text("years of work")
    with pytest.raises(FileError, match="choose another --out$"):
        fit(Data(data.train + 1), Models(), out, SETTINGS)


def test_places_are_checked_before_the_work(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(extract, "extract_features", lambda *_args, **_options: pytest.fail("hours of work"))
        for name in ("x" * 300, "new/" + "y" * 300):
            with pytest.raises(FileError, match="too long"):
                fit(data, Models(), tmp_path / name, SETTINGS)
            with pytest.raises(FileError, match="too long"):
                fit(data, Models(), tmp_path / "c", replace(SETTINGS, cache_dir=tmp_path / name))
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    open_checkpoint(fit(data, Models(), Path("."), SETTINGS))
    assert (tmp_path / "here" / "checkpoint.json").exists()


@dataclass(frozen=True)
class MeanVoxel:
    """A decoder in one file: every target is a multiple of the mean of all voxels."""

    @classmethod
    def for_feature(cls, feature: str) -> MeanVoxel:
        return cls()

    def fit(self, responses: Any, targets: Any, **_more: Any) -> FittedMean:
        mean = responses.mean(axis=1)
        slope = (mean @ targets.columns(0, targets.shape[1])) / (mean @ mean)
        return FittedMean(slope, responses.shape[1])

    def describe(self) -> dict[str, Any]:
        return {"fitter": "mean"}


@dataclass(frozen=True)
class FittedMean:
    slope: np.ndarray
    n_voxels: int
    kind: ClassVar[str] = "linear"

    def described(self) -> dict[str, Any]:
        return {}

    def predict(self, responses: Any, start: int = 0, stop: int | None = None) -> np.ndarray:
        return np.outer(responses.mean(axis=1), self.slope[start:stop])

    def arrays(self) -> dict[str, np.ndarray]:
        shape = (len(self.slope), self.n_voxels)
        weight = np.repeat(self.slope[:, None] / self.n_voxels, self.n_voxels, axis=1).astype(np.float32)
        index = np.broadcast_to(np.arange(self.n_voxels, dtype=np.int32), shape)
        return {"index": index, "weight": weight, "bias": np.zeros(len(self.slope), np.float32)}


@pytest.fixture
def mean_decoder(monkeypatch: pytest.MonkeyPatch) -> FitSettings:
    """One module and one line of the register."""
    module = ModuleType("minddiffuser.training.decoders.mean")
    module.MeanVoxel = MeanVoxel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(DECODERS, "mean", ("mean", "MeanVoxel"))
    return FitSettings(**{target: make_decoder("mean", target) for target in SHAPES})  # type: ignore[arg-type]


def test_another_decoder_is_one_file_and_one_line(tmp_path: Path, data: Data, mean_decoder: FitSettings) -> None:
    from minddiffuser.training.cli import fit_settings, parser

    typed = fit_settings(parser().parse_args(["fit", "data", "--out", "x", "--decoder", "mean"]))
    assert typed.deciding() == mean_decoder.deciding()
    checkpoint = open_checkpoint(fit(data, Models(), tmp_path / "c", typed))
    assert [made["fit"] for made in checkpoint.description["decoders"]] == [{"fitter": "mean"}] * 4
    decoded = checkpoint.decode(data.train).latent.reshape(60, -1)
    used = np.delete(data.train.astype(float), 3, axis=1)
    mean = ((used - used.mean(0)) / used.std(0)).mean(axis=1)
    assert abs(np.corrcoef(decoded[:, 0], mean)[0, 1]) > 0.9999
    with pytest.raises(InputError, match="decoder 'mean' has no option 'n_selected': it has none"):
        make_decoder("mean", "context", n_selected=3)
    with pytest.raises(InputError, match="decoder 'dream' is unknown: choose one of .*mean, mlp"):
        fit_settings(parser().parse_args(["fit", "data", "--out", "x", "--decoder", "dream"]))


def test_a_decoder_of_another_layout_is_refused_before_its_file(
    tmp_path: Path, data: Data, mean_decoder: FitSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FittedMean.arrays
    for change in ({"weight": np.zeros((42, 14))}, {"scale": np.ones(42, np.float32)}, {"bias": np.zeros(3, "f4")}):
        monkeypatch.setattr(FittedMean, "arrays", lambda self, change=change: {**whole(self), **change})
        with pytest.raises(ShapeError, match="decoder of context gave .*a checkpoint holds index int32"):
            fit(data, Models(), tmp_path / "c", mean_decoder)
    assert not (tmp_path / "c" / "context.safetensors").exists()


def test_a_killed_fit_of_networks_ends_with_the_same_bytes_and_says_how_well(tmp_path: Path, data: Data) -> None:
    """Networks are kept when they are trained, with the scores of what they held out."""
    options = {"hidden": 8, "depth": 1, "epochs": 2}
    networks = {target: make_decoder("mlp", target, **options) for target in SHAPES}
    settings = FitSettings(**networks, selection=SETTINGS.selection, n_threads=1)  # type: ignore[arg-type]
    assert settings.selecting().describe()["fitter"] == "ridge"
    whole = contents(fit(data, Models(), tmp_path / "whole", settings))
    for phase in ("latent", "semantic", "structure"):

        def killed(name: str, _done: int, _total: int, at: str = phase) -> None:
            if name == at:
                raise KeyboardInterrupt

        reported: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            fit(data, Models(), tmp_path / phase, settings, progress=killed)
        assert contents(fit(data, Models(), tmp_path / phase, settings, say=reported.append)) == whole
        assert reported[-1].startswith("structure: validation loss ")
        assert not any(line.startswith("context") for line in reported), "it was trained before"
    scores = json.loads(whole["scores.json"])
    checkpoint = open_checkpoint(tmp_path / "whole")
    assert {name: made["n_dimensions"] for name, made in scores["features"].items()} == {
        "context": 42,
        "latent": 16,
        "structure": int(checkpoint.mask.sum()),
        "semantic": int(np.prod(SHAPES["semantic"])),
    }
    assert scores["selection"]["fitter"] == "ridge"
    assert {made["n_validation"] for made in scores["features"].values()} == {4}  # a tenth of 40 pictures


def test_a_network_goes_on_where_it_was_killed(tmp_path: Path, data: Data) -> None:
    """Two networks with two heads each, killed again and again after some epochs: the same bytes, no epoch lost."""
    common = {"hidden": 8, "depth": 1, "epochs": 7, "batch_size": 16}
    network = make_decoder("mlp", "context", **common)
    other = make_decoder("mlp", "context", **common, contrastive=0.1)  # of a head: the trunk may be shared
    settings = FitSettings(
        context=network,
        latent=make_decoder("mlp", "latent", **{**common, "hidden": 9}),
        structure=network,
        semantic=other,
        selection=SETTINGS.selection,
        n_threads=1,
        shared_trunk=True,
        save_every=2,
    )
    assert settings.groups(SHAPES) == [("context", "structure", "semantic"), ("latent",)]
    out = fit(data, Models(), tmp_path / "whole", settings)
    whole = contents(out)
    assert {"latent.safetensors", "context-structure-semantic.safetensors", "curves.json", "curves.svg"} <= set(whole)
    entries = json.loads(whole["checkpoint.json"])["decoders"]
    assert [made["features"] for made in entries] == [["context", "structure", "semantic"], ["latent"]]
    assert entries[0]["fit"]["contrastive"] == {"context": 0.0, "structure": 0.0, "semantic": 0.1}
    first, second = read_curves(out)
    assert (first.features, second.features) == (["context", "structure", "semantic"], ["latent"])
    assert len(first.losses["train"]["loss"]) == len(first.losses["validation"]["semantic.contrastive"]) == 7
    assert first.epoch == 1 + int(np.argmin(first.losses["validation"]["loss"]))
    mask = open_checkpoint(out).mask
    scores = json.loads(whole["scores.json"])["features"]
    assert (scores["structure"]["n_dimensions"], scores["semantic"]["n_validation"]) == (int(mask.sum()), 4)

    class Killed(Exception):
        pass

    seen: list[tuple[str, int]] = []
    for _ in range(20):
        begun = len(seen)

        def kill(name: str, done: int, _total: int, before: int = begun) -> None:
            if name in ("latent", "context, structure, semantic"):
                seen.append((name, done))
                if len(seen) == before + 5:  # one or two of them say what was there
                    raise Killed

        with suppress(Killed):
            fit(data, Models(), tmp_path / "c", settings, progress=kill)
    assert contents(tmp_path / "c") == whole
    assert [done for name, done in seen if name == "latent"][:9] == [0, 1, 2, 3, 4, 4, 5, 6, 7]


def test_checkpoints_of_shared_trunks_decode_each_feature(tmp_path: Path, data: Data, features: Features) -> None:
    network = {"hidden": 32, "depth": 1, "epochs": 60, "dropout": 0.0, "learning_rate": 0.01}
    settings = FitSettings(
        **{name: make_decoder("mlp", name, **network) for name in SHAPES},  # type: ignore[arg-type]
        selection=SETTINGS.selection,
        n_threads=1,
        shared_trunk=True,
    )
    checkpoint = open_checkpoint(fit(data, Models(), tmp_path / "c", settings))
    assert [made["features"] for made in checkpoint.description["decoders"]] == [list(SHAPES)]
    decoded = checkpoint.decode(data.train)
    for name in SHAPES:
        found, true = getattr(decoded, name)[:, 1:], getattr(features, name)[data.order][:, 1:]
        chosen = checkpoint.mask[1:] if name == "structure" else np.ones(true.shape[1:], bool)
        assert np.corrcoef(found[:, chosen].ravel(), true[:, chosen].ravel())[0, 1] > 0.8, name


def test_a_selection_is_kept_beside_the_features_for_other_decoders(
    tmp_path: Path, data: Data, features: Features
) -> None:
    made = contents(fit(data, Models(), tmp_path / "alone", SETTINGS))
    features.folder = tmp_path / "features"
    features.folder.mkdir()
    seen: list[tuple[str, int]] = []

    def again(name: str, given: Data = data, settings: FitSettings = SETTINGS) -> int:
        """How many steps a fit reports of its selection."""
        seen.clear()
        fit(given, Models(), tmp_path / name, settings, progress=lambda phase, done, _: seen.append((phase, done)))
        return sum(phase == "selection" for phase, _ in seen)

    assert again("first") > 1
    other = replace(SETTINGS, latent=Ridge(n_selected=5), selection=replace(SETTINGS.selection, percent=25))
    assert again("second", settings=other) == 1
    assert again("same") == 1
    assert contents(tmp_path / "same") == contents(tmp_path / "first") == made
    (kept,) = features.folder.iterdir()
    assert again("more", settings=replace(SETTINGS, structure=Ridge(n_selected=9))) > 1
    assert again("folds", settings=replace(SETTINGS, selection=replace(SETTINGS.selection, n_folds=4))) > 1
    assert again("trials", given=Data(data.train + np.arange(14, dtype=np.float32) * data.train[::-1])) > 1
    kept.write_bytes(kept.read_bytes()[:-9])
    assert again("damaged") > 1
    assert contents(tmp_path / "damaged") == made
    assert again("written anew") == 1


def test_decoders_with_the_same_selection_keep_the_same_dimensions(tmp_path: Path, data: Data) -> None:
    """By the same correlations, whatever the structure's own decoder is."""
    ridge = make_decoder("ridge", "structure", n_selected=9, alpha="cv")
    network = make_decoder("mlp", "structure", hidden=4, epochs=1)
    plain, given = SETTINGS.selection, replace(SETTINGS.selection, n_selected=3, alpha=500.0)
    found = {
        name: contents(
            fit(data, Models(), tmp_path / name, replace(SETTINGS, structure=structure, selection=selection))
        )
        for name, structure, selection in (("a", ridge, given), ("b", network, given), ("c", network, plain))
    }
    masks = {name: files["mask.safetensors"] for name, files in found.items()}
    assert masks["a"] == masks["b"] != masks["c"]
    selection = {name: json.loads(files["checkpoint.json"])["selection"] for name, files in found.items()}
    assert selection["b"]["alpha"] == 500.0
    assert "alpha" not in selection["c"]


def test_a_trunk_that_nothing_shares_is_refused() -> None:
    networks = {"context": make_decoder("mlp", "context"), "latent": make_decoder("mlp", "latent", hidden=9)}
    with pytest.raises(InputError, match="a shared trunk needs two features or more whose decoders are networks with"):
        FitSettings(**networks, shared_trunk=True)  # type: ignore[arg-type]
    assert FitSettings(**networks).groups(SHAPES) == [(name,) for name in SHAPES]  # type: ignore[arg-type]


def test_repetitions_are_averaged_before_anything_is_computed(tmp_path: Path, data: Data) -> None:
    """The same as a fit of a data set that has the means, and said in the checkpoint."""
    means = np.stack([data.train[data.order == picture].mean(axis=0, dtype=np.float64) for picture in range(40)])
    by_hand = Data(means.astype(np.float32), order=np.arange(40))
    expected = contents(fit(by_hand, Models(), tmp_path / "means", SETTINGS))
    out = fit(data, Models(), tmp_path / "c", replace(SETTINGS, average_repetitions=True))
    found = contents(out)
    for name in ("latent.safetensors", "mask.safetensors", "normaliser.safetensors", "scores.json"):
        assert found[name] == expected[name], name
    provenance = json.loads(found["checkpoint.json"])["provenance"]
    assert (provenance["average_repetitions"], provenance["n_trials"], provenance["n_stimuli"]) == (True, 40, 40)
    assert "average_repetitions" not in json.loads(expected["checkpoint.json"])["provenance"]
    with pytest.raises(FileError, match="other data, models or settings"):
        fit(data, Models(), out, SETTINGS)


def test_a_network_whose_loss_breaks_gives_the_best_epochs_checkpoint(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are those of a fit that ended with that epoch, and the checkpoint says what happened."""

    def settings(epochs: int) -> FitSettings:
        network = make_decoder("mlp", "latent", hidden=8, depth=1, epochs=epochs, learning_rate=0.001)
        return replace(SETTINGS, latent=network)

    healthy = fit(data, Models(), tmp_path / "two", settings(2))
    whole = Training._train

    def broken(self: Training, rows: Any) -> Stopped | None:
        return Stopped("inf", 3, 1) if self.epoch == 2 else whole(self, rows)

    monkeypatch.setattr(Training, "_train", broken)
    said: list[str] = []
    out = fit(data, Models(), tmp_path / "c", settings(9), say=said.append)
    assert said[-1].endswith("(1 is the loss of the mean); the loss became inf in epoch 3, step 1")
    (curve,) = read_curves(out)
    assert (curve.epoch, curve.stopped) == (2, "the loss became inf in epoch 3, step 1")
    entry = json.loads((out / "checkpoint.json").read_text())["decoders"][1]
    assert (entry["validation"]["epoch"], entry["validation"]["stopped"]) == (2, curve.stopped)
    np.testing.assert_array_equal(
        open_checkpoint(out).decode(data.train).latent, open_checkpoint(healthy).decode(data.train).latent
    )


def test_a_fit_to_some_regions_is_the_fit_to_data_without_the_other_voxels(
    tmp_path: Path, data: Data, features: Features
) -> None:
    """The whole checkpoint gives for whole responses what a checkpoint of those voxels gives for them."""
    features.folder = None
    some = fit(data, Models(), tmp_path / "some", replace(SETTINGS, regions=Regions(without=("LO",))))
    alone = Data(data.train[:, :5], rois={"V1": (0, 5)})
    whole, cut = open_checkpoint(some), open_checkpoint(fit(alone, Models(), tmp_path / "alone", SETTINGS))
    other = data.train.copy()
    other[:, 5:] = 1000 * other[:, 5:] - 7  # whatever lies there
    found, expected = whole.decode(other, screened=True), cut.decode(alone.train)
    for name in SHAPES:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4, err_msg=name)
    np.testing.assert_array_equal(whole.mask, cut.mask)
    assert whole.layout == data.layout
    record = whole.description["provenance"]
    assert record["regions"] == {"rois": [], "without": ["LO"], "n_voxels": 5}
    assert record["constant"] == [3]
    scores = json.loads((some / "scores.json").read_text())
    assert all(set(made["rois"]) <= {"V1"} for made in scores["features"].values())


def test_a_fit_to_other_regions_is_another_fit(tmp_path: Path, data: Data) -> None:
    out = fit(data, Models(), tmp_path / "c", replace(SETTINGS, regions=Regions(rois=("V1",))))
    with pytest.raises(FileError, match="other data, models or settings"):
        fit(data, Models(), out, SETTINGS)
