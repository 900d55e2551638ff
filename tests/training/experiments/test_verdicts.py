"""The word for a comparison: by the paper's direction and the interval that was found."""

from importlib import import_module

import pytest

from minddiffuser.training.experiments import EXPERIMENTS
from minddiffuser.training.experiments.paper import METRICS, TABLE_4, TABLE_5, TABLE_6, TABLE_7, TABLE_8, PaperTable
from minddiffuser.training.experiments.results import Estimate
from minddiffuser.training.experiments.verdicts import (
    AGREES,
    DISAGREES,
    PARTLY,
    UNDECIDED,
    direction,
    number_text,
    of_row,
    verdict,
)

PAPER = PaperTable(
    name="Table 0",
    rows={"full": {"ssim": (0.5, 0.01)}, "less": {"ssim": (0.4, 0.02)}, "alike": {"ssim": (0.49, 0.02)}},
)


def found(low: float, high: float) -> Estimate:
    return Estimate(mean=(low + high) / 2, ci95=(low, high), n_pictures=9)


def test_the_papers_direction() -> None:
    assert direction(PAPER, "less", "full", "ssim") == -1
    assert direction(PAPER, "alike", "full", "ssim") == 0  # within both "±"
    assert direction(PAPER, "full", None, "ssim") is None
    assert direction(PAPER, "less", "full", "pixcorr") is None
    assert direction(TABLE_8, "lambda-1", None, "pixcorr") == -1  # a gain's own sign


@pytest.mark.parametrize(
    ("paper", "estimate", "word"),
    [
        (-1, found(-0.3, -0.1), AGREES),
        (1, found(-0.3, -0.1), DISAGREES),
        (1, found(-0.1, 0.3), UNDECIDED),
        (0, found(0.1, 0.3), None),
        (None, found(0.1, 0.3), None),
        (1, None, None),
    ],
)
def test_the_word(paper: int | None, estimate: Estimate | None, word: str | None) -> None:
    assert verdict(paper, estimate) == word


def test_the_word_of_a_row() -> None:
    assert of_row([None, AGREES, UNDECIDED]) == AGREES
    assert of_row([DISAGREES, AGREES]) == PARTLY
    assert of_row([UNDECIDED]) == UNDECIDED
    assert of_row([None]) is None


def test_the_papers_numbers() -> None:
    """A few, as they stand in its tables."""
    assert TABLE_5.rows["without-lvc"]["pixcorr"] == (0.030, 0.007)
    assert TABLE_5.rows["all"]["swav"] == (0.551, 0.031)
    assert TABLE_6.rows["without-context"]["clip_vit_l14"] == (0.549, 0.023)
    assert TABLE_4.rows["meg.stage2"]["pixcorr"] == (0.016, None)
    assert TABLE_8.rows["lambda-0.5"]["alexnet5"] == (-5.236, None)
    assert number_text(TABLE_5.rows["all"]["ssim"], gain=False) == "0.344 ± 0.014"
    assert number_text(TABLE_8.rows["lambda-0"]["ssim"], gain=True) == "+7.2 %"
    for table in (TABLE_4, TABLE_5, TABLE_6, TABLE_7, TABLE_8):
        assert all(tuple(row) == METRICS for row in table.rows.values())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_the_paper_says_in_words_holds_in_its_own_numbers(name: str) -> None:
    module, attribute = EXPERIMENTS[name]
    experiment = getattr(import_module(module, "minddiffuser.training.experiments"), attribute)
    table = experiment.paper
    rows = {} if table is None else table.rows

    def number(cell: str, column: str) -> float | None:
        metric, _, kind = column.partition(".")
        metric = {"clip_two_way": "clip_vit_l14"}.get(metric, metric)
        if kind == "gain" and f"{cell}.stage2" in rows:
            before, after = (rows[f"{cell}.{stage}"][metric][0] for stage in ("stage1", "stage2"))
            return 100 * (after - before) / before
        found = rows.get(cell, rows.get(cell.replace("-", "."), {})).get(metric)  # of rows that share stage 1, gains
        return None if found is None else found[0]

    for claim in experiment.claims(experiment.modalities):
        more, less = number(*claim.more), number(*claim.less)
        assert more is None or less is None or more > less, claim


def test_gains_are_those_of_table_4() -> None:
    """Tables 7 and 8 begin with the rows of Table 4 in per cent: read from one text, they check each other."""
    better = {name: -1 if name in ("effnet", "swav") else 1 for name in METRICS}
    for table, row, signal in (
        (TABLE_8, "lambda-0", "fmri"),
        (TABLE_7, "eeg.ridge", "eeg"),
        (TABLE_7, "meg.ridge", "meg"),
    ):
        for metric in METRICS:
            before, after = (TABLE_4.rows[f"{signal}.{stage}"][metric][0] for stage in ("stage1", "stage2"))
            gain = 100 * better[metric] * (after - before) / before
            # Table 4 has three digits, which leave a gain so uncertain; one of the 24 (AlexNet(2) of fMRI, 4.457
            # against 4.313) is just beyond it.
            rounded = 1.02 * 100 * 0.0005 * (1 + after / before) / before
            assert table.rows[row][metric][0] == pytest.approx(gain, abs=rounded), (row, metric)
