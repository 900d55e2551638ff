"""Every number against an independent computation from the files, and a run against its own summary."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import permutation_test

from minddiffuser.runtime import cli
from minddiffuser.runtime.command import DONE, USERS_MISTAKE
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.evaluate import table
from minddiffuser.runtime.evaluate.evaluate import EvaluateSettings, evaluate
from minddiffuser.runtime.evaluate.given import Networks
from minddiffuser.runtime.files import write_json
from minddiffuser.runtime.images import read_image, write_png
from minddiffuser.runtime.metrics import METRICS, Metric
from minddiffuser.runtime.metrics.extractors import EXTRACTORS, Given
from minddiffuser.runtime.metrics.extractors.base import Extractor, Features
from minddiffuser.runtime.metrics.select import select
from minddiffuser.runtime.run.batches import Outcome
from minddiffuser.runtime.run.measure import measure_run, open_extractors
from minddiffuser.runtime.run.summary import write_summary

N, SIDE = 6, 12
SEED = 5


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def own_size(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    return np.array([correlation(one, other) for one, other in zip(images, reconstructions, strict=True)])


def thumbnails(images: np.ndarray) -> np.ndarray:
    return images[:, :, ::3, ::3].reshape(len(images), -1).astype(np.float32)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """PixCorr at the pictures' own size, and a "network" that takes nine pixels: numpy can repeat both in a line."""
    monkeypatch.setitem(METRICS, "pixcorr", replace(METRICS["pixcorr"], function=own_size))
    nine = Features(identity="nine", of_pictures=thumbnails, weights={"nine.pth": "ab" * 32})
    for name in ("clip_vit_l14", "effnet"):
        monkeypatch.setitem(EXTRACTORS, name, Extractor(name=name, open=lambda _: nine))


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)


def blend(stimulus: int, share: float, noise: int) -> np.ndarray:
    return (share * picture(stimulus) + (1 - share) * picture(1000 + noise)).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Stimuli, one method with two pictures of each, one with a picture of each."""
    for number in range(N):
        write_png(tmp_path / "stimuli" / f"{number:04d}.png", picture(number))
        write_png(tmp_path / "one" / f"{number}_recon.png", blend(number, 0.25, number))
        for sample in range(2):
            write_png(tmp_path / "two" / f"im{number}_{sample}.png", blend(number, 0.6, 100 * sample + number))
    return tmp_path


def asked() -> tuple[Metric, ...]:
    return select("pixcorr,clip_vit_l14,effnet")


def settings(**choices: Any) -> EvaluateSettings:
    return EvaluateSettings(metrics=asked(), seed=SEED, **choices)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.float64).transpose(2, 0, 1) / 255


def expected(folder: Path, stimuli: list[int], samples: list[list[Path]]) -> dict[str, np.ndarray]:
    """Values of pictures of stimulus j if they were of `stimuli[j]`, from the files alone."""
    shown = [pixels(folder / "stimuli" / f"{number:04d}.png") for number in range(N)]
    nine = [image[:, ::3, ::3] for image in shown]
    found: dict[str, list[float]] = {"pixcorr": [], "clip_vit_l14": [], "effnet": []}
    for own, paths in zip(stimuli, samples, strict=True):
        images = [pixels(path) for path in paths]
        found["pixcorr"].append(float(np.mean([correlation(shown[own], image) for image in images])))
        wins, distances = [], []
        for image in images:
            similar = [correlation(other, image[:, ::3, ::3]) for other in nine]
            wins.append(sum(value < similar[own] for value in similar) / (N - 1))
            distances.append(1 - similar[own])
        found["clip_vit_l14"].append(float(np.mean(wins)))
        found["effnet"].append(float(np.mean(distances)))
    return {name: np.array(values) for name, values in found.items()}


def test_every_number_is_that_of_the_files(folders: Path) -> None:
    content = evaluate([folders / "one", folders / "two"], folders / "stimuli", settings())
    samples = {
        "one": [[folders / "one" / f"{n}_recon.png"] for n in range(N)],
        "two": [[folders / "two" / f"im{n}_{s}.png" for s in range(2)] for n in range(N)],
    }
    assert [row["name"] for row in content["rows"]] == ["one", "two"]
    assert list(content["metrics"]) == ["pixcorr", "clip_vit_l14", "effnet"]
    values = {}
    for row in content["rows"]:
        values[row["name"]] = expected(folders, list(range(N)), samples[row["name"]])
        assert row["n_pictures"] == N
        assert row["n_images"] == sum(map(len, samples[row["name"]]))
        for name, score in row["metrics"].items():
            own = values[row["name"]][name]
            np.testing.assert_allclose(content["per_picture"]["values"][row["name"]][name], own, atol=1e-6)
            assert score["value"] == pytest.approx(own.mean(), abs=1e-6)
            low, high = score["ci95"]
            assert low <= score["value"] <= high
            assert (low < high) == (own.std() > 0)
            rng = np.random.default_rng(0)
            means = own[rng.integers(N, size=(4000, N))].mean(axis=1)
            assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.2 * own.std() + 1e-9)
            others = [
                expected(folders, list(np.roll(np.arange(N), shift)), samples[row["name"]])[name].mean()
                for shift in range(1, N)
            ]
            assert score["other_stimuli"] == pytest.approx(np.mean(others), abs=1e-6)
    change = content["differences"][0]
    assert (change["first"], change["second"]) == ("one", "two")
    for name, pair in change["metrics"].items():
        difference = values["two"][name] - values["one"][name]
        assert pair["difference"] == pytest.approx(difference.mean(), abs=1e-6)
        test = permutation_test(
            (values["two"][name].round(9), values["one"][name].round(9)),
            lambda a, b: np.mean(a - b),
            permutation_type="samples",
            n_resamples=np.inf,
        )
        assert pair["p_value"] == pytest.approx(test.pvalue)
        assert pair["exact"]
    assert content["metrics"]["effnet"]["weights"] == {"nine.pth": "ab" * 32}
    json.dumps(content, allow_nan=False)


def test_the_p_value_is_of_the_metric_with_permuted_stimuli(folders: Path) -> None:
    """Of two-way identification too, each of whose values depends on the other stimuli."""
    content = evaluate([folders / "one"], folders / "stimuli", settings())
    samples = [[folders / "one" / f"{n}_recon.png"] for n in range(N)]
    for name, score in content["rows"][0]["metrics"].items():
        lookup = np.array([expected(folders, [i] * N, samples)[name] for i in range(N)])  # stimulus, picture
        test = permutation_test(
            (np.arange(N),),
            lambda order, values=lookup: values[order.astype(int), np.arange(N)].mean(),
            permutation_type="pairings",
            alternative="greater" if METRICS[name].better == "higher" else "less",
            n_resamples=np.inf,
        )
        assert score["p_value"] == pytest.approx(test.pvalue, abs=1e-9)
        assert (score["n_permutations"], score["exact"]) == (720, True)


def write_run(run: Path, shown: str = "aabbcdefg") -> tuple[Path, dict[str, Any]]:
    for trial, name in enumerate(shown):
        write_png(run / "stimuli" / f"{trial:06d}.png", picture(ord(name)))
        for kind, share in (("stage1", 0.3), ("stage2", 0.6), ("shuffled", 0.4)):
            write_png(run / "images" / kind / f"{trial:06d}.png", blend(ord(name), share, trial + int(100 * share)))
    write_json(
        run / "settings.json",
        {"format": "minddiffuser-run-settings", "version": 1, "settings": {"refine": {"seed": SEED}}},
    )
    trials = range(len(shown))
    extractors, _ = open_extractors(Given(), asked())
    measured = measure_run(run, trials, extractors, metrics=asked(), stimulus_ids=tuple(shown), seed=SEED)
    outcome = Outcome(trials=tuple(trials), skipped={}, seconds={})
    return run, write_summary(run, outcome, measured, seed=SEED)


def test_a_run_has_the_numbers_of_its_summary(tmp_path: Path) -> None:
    run, summary = write_run(tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    content = evaluate([run], settings=EvaluateSettings(metrics=asked()))
    rows = {row["name"].removeprefix("run "): row for row in content["rows"]}
    assert list(rows) == ["stage1", "stage2", "shuffled"]
    assert content["seed"] == SEED
    changes = {pair["second"].removeprefix("run "): pair for pair in content["differences"]}
    for name, entry in summary["metrics"].items():
        assert rows["stage1"]["metrics"][name]["value"] == entry["stage1"]
        assert rows["stage2"]["metrics"][name]["value"] == entry["stage2"]
        assert rows["stage1"]["n_pictures"] == entry["n_pictures"] == 7
        change = changes["stage2"]["metrics"][name]
        assert change["difference"] == pytest.approx(entry["difference"], abs=1e-14)
        assert change["ci95"] == pytest.approx(entry["ci95"], abs=1e-14)
        control = summary["controls"]["shuffled"][name]
        assert rows["shuffled"]["metrics"][name]["value"] == control["stage2"]
        assert changes["shuffled"]["metrics"][name]["ci95"] == pytest.approx(control["ci95"], abs=1e-14)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_two_runs_on_the_same_stimuli_are_compared(tmp_path: Path) -> None:
    given = {"a": "abcde", "b": "abcde", "c": "edcba"}
    first, second, third = (write_run(tmp_path / name, shown)[0] for name, shown in given.items())
    content = evaluate([first, second], settings=EvaluateSettings(metrics=select("pixcorr"), n_permutations=0))
    names = [f"{run} {kind}" for run in "ab" for kind in ("stage1", "stage2", "shuffled")]
    assert [row["name"] for row in content["rows"]] == names
    with pytest.raises(InputError, match="have other stimuli: score them one by one"):
        evaluate([first, third])


def test_a_run_with_other_stimuli_goes_by_ids_or_numbers(tmp_path: Path) -> None:
    run, _ = write_run(tmp_path / "run", "abcdef")
    (run / "trials.json").write_text(
        json.dumps([{"trial": n, "id": f"test/{name}"} for n, name in enumerate("abcdef")])
    )
    for name in "fedcba":
        write_png(tmp_path / "named" / f"test-{name}.png", picture(ord(name)))
    for number, name in enumerate("abcdef"):
        write_png(tmp_path / "numbered" / f"{number}.png", picture(ord(name)))
    own, named, numbered = (
        evaluate([run], stimuli, EvaluateSettings(metrics=asked(), n_permutations=0))
        for stimuli in (None, tmp_path / "named", tmp_path / "numbered")
    )
    first = own["rows"][1]["metrics"]["pixcorr"]["value"]
    assert named["rows"][1]["metrics"]["pixcorr"]["value"] == pytest.approx(first)
    assert numbered["rows"][1]["metrics"]["pixcorr"]["value"] == pytest.approx(first)
    assert own["rows"][1]["metrics"]["pixcorr"]["p_value"] is None


def test_takagis_direction_has_no_p_value_of_differences(folders: Path) -> None:
    both = replace(settings(), metrics=select("clip_vit_l14,clip_vit_l14_takagi"))
    content = evaluate([folders / "one", folders / "two"], folders / "stimuli", both)
    change = content["differences"][0]["metrics"]
    assert change["clip_vit_l14"]["p_value"] is not None
    assert change["clip_vit_l14_takagi"]["p_value"] is None
    assert content["rows"][0]["metrics"]["clip_vit_l14_takagi"]["p_value"] is not None


def test_sizes_and_kinds_of_pictures_may_differ(tmp_path: Path) -> None:
    for number in range(5):
        stimulus = Image.fromarray(picture(number))
        (tmp_path / "stimuli").mkdir(exist_ok=True)
        stimulus.resize((SIDE, SIDE) if number else (20, 16)).save(tmp_path / "stimuli" / f"{number}.png")
        (tmp_path / "given").mkdir(exist_ok=True)
        mode, suffix = [("RGB", "png"), ("L", "png"), ("RGBA", "png"), ("RGB", "webp"), ("RGB", "jpg")][number]
        stimulus.resize((30, 24)).convert(mode).save(tmp_path / "given" / f"{number}.{suffix}")
    plain = EvaluateSettings(metrics=select("ssim"), n_permutations=0)
    values = evaluate([tmp_path / "given"], tmp_path / "stimuli", plain)["per_picture"]["values"]["given"]["ssim"]
    stimuli, given = (sorted((tmp_path / place).iterdir()) for place in ("stimuli", "given"))
    one, other = (read_image(path)[None].transpose(0, 3, 1, 2) / 255 for path in (stimuli[0], given[0]))
    assert values[0] == pytest.approx(METRICS["ssim"].function(one, other)[0], abs=1e-6)
    assert min(values) > 0.5


def test_names_of_stimuli_have_captions(folders: Path) -> None:
    labels = np.arange(N)
    seen: list[Any] = []

    def open_labels(given: Given) -> Features:
        seen.append(given.captions)
        return Features(identity="labels", of_pictures=lambda images: np.zeros(len(images), np.int64), truth=labels)

    (folders / "captions.json").write_text(json.dumps({f"{n:04d}": f"a thing {n}" for n in range(N)}))
    concepts = EvaluateSettings(
        metrics=select("concept_top1"), networks=Networks(captions=folders / "captions.json"), n_permutations=0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXTRACTORS, "labels", Extractor(name="labels", open=open_labels))
        content = evaluate([folders / "one"], folders / "stimuli", concepts)
    assert seen[0][3] == ("a thing 3",)
    assert content["per_picture"]["values"]["one"]["concept_top1"] == [1, 0, 0, 0, 0, 0]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: object) -> tuple[int, str, str]:
        code = cli.main(["evaluate", *map(str, words)])
        return code, *capsys.readouterr()

    return run


def test_the_command_writes_every_format_and_goes_on(folders: Path, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out = folders / "out"
    words = (folders / "one", folders / "two", "--stimuli", folders / "stimuli", "--out", out)
    metrics = ("--metrics", "pixcorr,effnet,clip_vit_l14")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("minddiffuser.runtime.evaluate.evaluate.differences", interrupted)
        assert told(*words, *metrics)[0] == 130
    code, printed, progress = told(*words, *metrics)
    assert code == DONE
    assert "measuring pictures" not in progress  # was kept
    assert "im0_0 belongs to 0000" in progress
    assert printed.splitlines()[0].split() == [
        "PixCorr",
        "↑",
        *METRICS["clip_vit_l14"].label.split(),
        "↑",
        *METRICS["effnet"].label.split(),
        "↓",
    ]
    content = json.loads((out / "evaluation.json").read_text())
    assert content["finished"]
    assert content["command"]["metrics"] == ["pixcorr", "effnet", "clip_vit_l14"]
    rows = list(csv.DictReader(io.StringIO((out / "table.csv").read_text())))
    assert [(row["row"], row["against"]) for row in rows] == [("one", "")] * 3 + [("two", "")] * 3 + [
        ("two", "one")
    ] * 3
    assert float(rows[0]["value"]) == content["rows"][0]["metrics"]["pixcorr"]["value"]
    each = list(csv.DictReader(io.StringIO((out / "per_picture.csv").read_text())))
    assert len(each) == 2 * N
    assert float(each[N]["effnet"]) == content["per_picture"]["values"]["two"]["effnet"][0]
    assert (out / "table.md").read_text().count("| two − one |") == 3
    latex = (out / "table.tex").read_text()
    assert latex.count(r"\\") == 3
    assert r"\toprule" in latex
    assert r"$\downarrow$" in latex
    assert not [path.name for path in out.iterdir() if path.name.endswith(".draft")]


def test_what_is_printed_is_what_was_found() -> None:
    score = {"value": 0.9417, "ci95": [0.9, 0.97], "other_stimuli": 0.5, "p_value": 1e-5}
    low = {"value": -0.0004, "ci95": None, "other_stimuli": None, "p_value": None}
    content = {
        "stimuli": {"n": 9},
        "metrics": {
            "a": {"label": "A", "better": "higher", "rate": True},
            "b_c": {"label": "B_C", "better": "lower", "rate": False},
        },
        "rows": [{"name": "50% & co", "metrics": {"a": score, "b_c": low}}],
        "differences": [],
    }
    assert table.text(content).splitlines() == [
        "          A ↑     B_C ↓",
        "50% & co  94.2 %  0.000",
        "",
        "          metric  value   95 % interval     other stimuli  p",
        "50% & co  A       94.2 %  90.0 % to 97.0 %  50.0 %         1.0e-05",
        "50% & co  B_C     0.000   –                 –              –",
    ]
    assert r"50\% \& co & 94.2\% & 0.000 \\" in table.latex(content)
    assert r"B\_C $\downarrow$" in table.latex(content)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{f}/one"], "is not a run folder, which has its own stimuli: give --stimuli"),
        (["{f}/none", "--stimuli", "{f}/stimuli"], "do not exist"),
        (["{f}/fewer", "--stimuli", "{f}/stimuli"], "1 of 6 stimuli have no picture in .*fewer .0005.*--allow-missing"),
        (["{f}/stimuli", "--stimuli", "{f}/fewer"], "1 of 6 pictures in .*stimuli have no stimulus in .*fewer .0005"),
        (["{f}/damaged", "--stimuli", "{f}/stimuli"], "0002.png cannot be decoded .*--allow-missing"),
        (["{f}/words", "--stimuli", "{f}/stimuli"], "no picture in .*words is named as a stimulus"),
        (["{f}/fewer", "--stimuli", "{f}/stimuli", "--by-order"], "5 pictures and .* 6 stimuli"),
        (["{f}/one", "--stimuli", "{f}/stimuli", "--against", "x"], "--against x is none of what is scored: .* one"),
        (["{f}/one", "--stimuli", "{f}/stimuli", "--out", "{f}/one"], "is or lies in .* which is read"),
        (
            ["{f}/one", "--stimuli", "{f}/stimuli", "--out", "{f}/two"],
            "two holds .* is not a folder of an evaluation",
        ),
        (["{f}/one", "--stimuli", "{f}/stimuli", "--metrics", "pixcor"], "did you mean pixcorr"),
        (["{f}/one", "--stimuli", "{f}/stimuli", "--seed", "-1"], "seed is -1"),
        (["{f}/one", "--stimuli", "{f}/stimuli", "--permutations", "x"], "not a whole number"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], said: str, folders: Path, told: Any) -> None:
    for number in range(N):
        data = (folders / "stimuli" / f"{number:04d}.png").read_bytes()
        for place, name in (("damaged", f"{number:04d}"), ("words", "abcdef"[number]), ("fewer", f"{number:04d}")):
            if place != "fewer" or number < 5:
                (folders / place).mkdir(exist_ok=True)
                whole = place != "damaged" or number != 2
                (folders / place / f"{name}.png").write_bytes(data if whole else data[:60])
    code, printed, error = told(*[word.replace("{f}", str(folders)) for word in words])
    assert code == USERS_MISTAKE
    assert printed == ""
    line = error.splitlines()[-1]
    assert line.startswith("md-reconstruct: ")
    import re

    assert re.search(said, line), line


def test_what_is_missing_or_damaged_is_left_out_where_asked(folders: Path) -> None:
    (folders / "one" / "4_recon.png").unlink()
    (folders / "two" / "im1_1.png").write_bytes(b"no picture")
    (folders / "two" / "im2_0.png").write_bytes(b"no picture")
    (folders / "two" / "im2_1.png").write_bytes(b"no picture")
    paths = [folders / "one", folders / "two"]
    content = evaluate(paths, folders / "stimuli", settings(allow_missing=True, n_permutations=0))
    assert content["per_picture"]["stimuli"] == ["0000", "0001", "0003", "0005"]
    assert content["rows"][1]["images_per_stimulus"] == [1, 2]
    assert content["left_out"][0]["stimuli_without_picture"] == ["0004"]
    assert len(content["left_out"][1]["unreadable"]) == 3
    assert content["rows"][0]["metrics"]["pixcorr"]["ci95"] is None  # four pictures
    for name in ("one", "two"):
        values = content["per_picture"]["values"][name]["pixcorr"]
        assert len(values) == 4
        assert values[1] == pytest.approx(
            correlation(
                pixels(folders / "stimuli" / "0001.png"),
                pixels(folders / name / ("1_recon.png" if name == "one" else "im1_0.png")),
            )
        )


def test_pixels_alone_need_no_pytorch(folders: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['torchvision'] = sys.modules['scipy'] = None\n"
        "from minddiffuser.runtime.cli import main\n"
        f"sys.exit(main(['evaluate', r'{folders / 'one'}', '--stimuli', r'{folders / 'stimuli'}', "
        "'--metrics', 'pixcorr,ssim', '--permutations', '20']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SSIM" in done.stdout
