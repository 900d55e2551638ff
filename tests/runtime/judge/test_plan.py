"""What is shown is decided by the seed before anybody answers, and by nothing else."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from judge_runs import planned, write_run

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.images import pixel_hash, read_image
from minddiffuser.runtime.judge.contrasts import contrasts_of
from minddiffuser.runtime.judge.plan import draw_order
from minddiffuser.runtime.judge.study import open_study


def test_the_same_seed_plans_the_same(run: Path, tmp_path: Path) -> None:
    plans = [planned(tmp_path / name, run, seed=seed).plan for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    assert plans[0]["items"] == plans[1]["items"]
    assert plans[0]["items"] != plans[2]["items"]
    assert (tmp_path / "a" / "plan.json").read_bytes() == (tmp_path / "b" / "plan.json").read_bytes()


def test_items_are_the_runs_own_pictures(run: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", run)
    assert len(study.plan["items"]) == 12
    for item in study.plan["items"]:
        number = int(item["trial"].removeprefix("trial-"))
        for name, folder in (("stimulus", "stimuli"), ("first", "images/stage1"), ("second", "images/stage2")):
            image = read_image(run / folder / f"{number:06d}.png")
            assert item[name] == pixel_hash(image)
            assert (read_image(study.picture(item[name])) == image).all()


def test_what_cannot_be_told_apart_is_left_out_and_counted(tmp_path: Path) -> None:
    study = planned(tmp_path / "study", write_run(tmp_path / "run", identical=(0, 5)))
    (contrast,) = study.plan["contrasts"]
    assert (contrast["n_pairs"], contrast["n_identical"], contrast["n_choices"]) == (12, 2, 10)
    assert {item["trial"] for item in study.plan["items"]}.isdisjoint({"trial-0", "trial-5"})


def test_choices_are_spread_over_stimuli(tmp_path: Path) -> None:
    study = planned(tmp_path / "study", write_run(tmp_path / "run", n=20, n_stimuli=4), n_choices=6)
    counts = Counter(item["stimulus"] for item in study.plan["items"])
    assert sorted(counts.values()) == [1, 1, 2, 2]


def test_catch_trials_take_other_stimuli_where_there_are_some(tmp_path: Path) -> None:
    study = planned(tmp_path / "study", write_run(tmp_path / "run"), n_choices=6, n_catch=6)
    judged = {item["stimulus"] for item in study.plan["items"]}
    assert len(study.plan["catches"]) == 6
    for catch in study.plan["catches"]:
        assert catch["stimulus"] not in judged
        assert catch["foil"] != catch["stimulus"]


@pytest.mark.parametrize(("n_catch", "most"), [(0, 0), (4, 0), (5, 0), (8, 1), (10, 1), (20, 5)])
def test_who_guesses_rarely_passes(run: Path, tmp_path: Path, n_catch: int, most: int) -> None:
    assert planned(tmp_path / "study", run, n_catch=n_catch).plan["rules"]["most_catch_failures"] == most


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n_choices", [2, 7, 12])
def test_an_order_shows_everything_once_and_each_side_half(seed: int, n_choices: int) -> None:
    n_repeats = n_choices // 2
    items = [{"contrast": number % 2} for number in range(n_choices)]
    plan = {
        "items": items,
        "catches": [{}] * 5,
        "contrasts": [{}, {}],
        "settings": {"n_repeats": n_repeats},
    }
    order = draw_order(plan, seed)
    assert order == draw_order(plan, seed)
    choices = [showing for showing in order if showing["role"] == "choice"]
    assert sorted(showing["number"] for showing in choices) == list(range(n_choices))
    for contrast in (0, 1):
        lefts = Counter(s["left"] for s in choices if items[s["number"]]["contrast"] == contrast)
        assert abs(lefts["first"] - lefts["second"]) <= 1
    assert sorted(s["number"] for s in order if s["role"] == "catch") == list(range(5))
    assert order[0]["role"] == "choice"
    places = {s["number"]: place for place, s in enumerate(choices)}
    among = [s for s in order if s["role"] != "catch"]
    repeats = [s for s in among if s["role"] == "repeat"]
    assert len(repeats) == len({s["number"] for s in repeats}) == n_repeats
    for repeat in repeats:
        first = choices[places[repeat["number"]]]
        assert {repeat["left"], first["left"]} == {"first", "second"}
        between = among[among.index(first) + 1 : among.index(repeat)]
        assert sum(s["role"] == "choice" for s in between) >= n_choices // 2


def test_catch_trials_stand_all_over_the_order(run: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path / "study", run, n_catch=4).plan
    for seed in range(20):
        places = [place for place, s in enumerate(draw_order(plan, seed)) if s["role"] == "catch"]
        assert all(4 * stretch <= place <= 4 * stretch + 4 for stretch, place in enumerate(places))


def test_sides_do_not_follow_from_anything(run: Path, tmp_path: Path) -> None:
    """Over judges: each item has its second picture on the left in about half of the orders."""
    plan = planned(tmp_path / "study", run).plan
    lefts = np.zeros(12)
    for seed in range(400):
        for showing in draw_order(plan, seed):
            if showing["role"] == "choice":
                lefts[showing["number"]] += showing["left"] == "second"
    assert np.abs(lefts / 400 - 0.5).max() < 4 * 0.5 / np.sqrt(400)


def test_two_judges_have_two_orders_of_the_same_pairs(run: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", run, n_judges=2)
    orders = [study.begin(name) for name in ("anna", "ben")]
    assert orders[0].showings != orders[1].showings
    assert study.order("anna") == orders[0]
    assert study.judges() == ["anna", "ben"]


def test_two_runs_meet_by_the_trials_ids(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", seed=1, n=8)
    study = planned(tmp_path / "study", one, two, compare=("stage2",))
    (contrast,) = study.plan["contrasts"]
    assert (contrast["first"]["label"], contrast["second"]["label"]) == ("one stage2", "two stage2")
    assert {item["trial"] for item in study.plan["items"]} == {f"trial-{n}" for n in range(8)}
    for item in study.plan["items"]:
        name = f"{int(item['trial'].removeprefix('trial-')):06d}.png"
        assert item["first"] == pixel_hash(read_image(one / "images" / "stage2" / name))
        assert item["second"] == pixel_hash(read_image(two / "images" / "stage2" / name))


def test_two_runs_of_two_sizes_are_shown_at_one(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", size=32)
    study = planned(tmp_path / "study", one, two, compare=("stage2",))
    sizes = {read_image(path).shape for path in (study.folder / "pictures").iterdir()}
    assert sizes == {(32, 32, 3)}


def test_pictures_are_alike_in_all_but_their_pixels(run: Path, tmp_path: Path) -> None:
    """One size, one encoder, no text, no time: nothing but the look says what a picture is."""
    from PIL import Image

    study = planned(tmp_path / "study", run)
    for path in (study.folder / "pictures").iterdir():
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size, picture.info) == ("PNG", "RGB", (16, 16), {})


WRONG = [
    (("stage1:stage2",), {"n_choices": 13}, "12 pairs that differ.*smaller --n-choices"),
    (("stage1:stage1",), {}, "with itself"),
    (("stage2",), {}, "two runs, 1 given"),
    (("stage1:oracle",), {}, "no pictures of the kind 'oracle': it has stage1, stage2"),
    (("a:b:c",), {}, "no comparison"),
    ((":stage2",), {}, "no comparison"),
    (("stage1:stage2", "stage1:stage2"), {}, "given twice"),
    ((), {"n_repeats": 7}, "more than half"),
    ((), {"n_catch": 99}, "24 catch trials"),
    ((), {"n_catch": -1}, "--catch is -1"),
    ((), {"minimum_ms": -1}, "--minimum-ms"),
    ((), {"seed": -1}, "--seed"),
]


@pytest.mark.parametrize(("compare", "given", "said"), WRONG)
def test_what_cannot_be_planned_is_said(
    run: Path, tmp_path: Path, compare: tuple[str, ...], given: dict[str, int], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        planned(tmp_path / "study", run, compare=compare, **given)
    assert not (tmp_path / "study").exists()


def test_runs_that_do_not_fit_are_said(run: Path, tmp_path: Path) -> None:
    others = write_run(tmp_path / "others", n=12, n_stimuli=3)
    with pytest.raises(InputError, match=r"trial-\d+ showed one stimulus"):
        planned(tmp_path / "study", run, others, compare=("stage2",))
    with pytest.raises(InputError, match="pool runs of one size"):
        planned(tmp_path / "study", run, write_run(tmp_path / "large", size=32))
    bare = write_run(tmp_path / "bare")
    for path in (bare / "stimuli").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="holds no stimuli"):
        planned(tmp_path / "study", bare)
    with pytest.raises(FileError, match="lies in the run folder"):
        planned(run / "study", run)
    with pytest.raises(FileError, match="does not exist"):
        planned(tmp_path / "study", tmp_path / "nothing")
    with pytest.raises(InputError, match="no study yet"):
        planned(tmp_path / "study")


def test_a_plan_is_gone_on_with_and_not_changed(run: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", run, seed=3, n_choices=6)
    for again in (planned(tmp_path / "study"), planned(tmp_path / "study", run, n_choices=6, seed=3)):
        assert again == study
    for given, said in (({"seed": 4}, "seed: 3 there, 4 now"), ({"n_choices": 5}, "n choices: 6 there, 5 now")):
        with pytest.raises(FileError, match=said):
            planned(tmp_path / "study", **given)
    with pytest.raises(FileError, match="compare: stage1:stage2 there, stage2:stage1 now"):
        planned(tmp_path / "study", compare=("stage2:stage1",))
    with pytest.raises(FileError, match="the runs"):
        planned(tmp_path / "study", write_run(tmp_path / "other", seed=9))


@pytest.mark.parametrize("file", ["plan.json", "orders/anna.json"])
def test_a_plan_that_was_edited_is_none(run: Path, tmp_path: Path, file: str) -> None:
    study = planned(tmp_path / "study", run)
    study.begin("anna")
    path = study.folder / file
    content = json.loads(path.read_text())
    content["question"] = "Is it pretty?"
    path.write_text(json.dumps(content))
    with pytest.raises(FileError, match="was changed since it was written"):
        open_study(study.folder).order("anna")


def test_a_picture_that_was_exchanged_is_not_shown(run: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", run)
    item = study.plan["items"][0]
    study.picture(item["first"]).write_bytes(study.picture(item["second"]).read_bytes())
    with pytest.raises(FileError, match="not the picture that was planned"):
        study.read_picture(item["first"])


def test_a_label_says_which_run(tmp_path: Path) -> None:
    (contrast,) = contrasts_of(("stage2",), [tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert contrast.first.label == f"{tmp_path / 'a' / 'run'} stage2"
