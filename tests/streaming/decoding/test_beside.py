"""What stands beside the decoded features: averages, the shuffled markers, the scrambled copies, the training range."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.decoders.scale import TrainingStatistics
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.streaming.decoding.average import Averages
from minddiffuser.streaming.decoding.concept_table import read_concepts_of
from minddiffuser.streaming.decoding.control import Control
from minddiffuser.streaming.decoding.drift import Drift
from minddiffuser.streaming.decoding.null import Null
from minddiffuser.streaming.session.page import why_no_control

NAMES = ("cat", "dog", "sea lion", "fish", "owl", "bee", "ant")


def test_an_average_forgets_the_event_that_came_longest_ago() -> None:
    averages, epoch = Averages(most_events=2), np.ones((2, 3), np.float32)
    for event in ("a", "b", "a", "c"):
        averages.add(event, epoch)
    assert averages.add("a", epoch)[1] == 3
    assert averages.add("b", epoch)[1] == 1


@pytest.mark.parametrize(
    ("text", "concept"),
    [
        ("cat", "cat"),
        ("stimulus/Sea_Lion", "sea lion"),
        ("show:dog;block=3", "dog"),
        ('{"concept": "fish", "block": 3}', "fish"),
        ('{"concept": ', None),
        ("caterpillar", None),
        ("17", None),
        ("", None),
        ("cat" * 1000, None),
    ],
)
def test_a_marker_names_a_candidate_or_none(text: str, concept: str | None) -> None:
    assert Control(NAMES).concept_of(text) == concept


def test_the_control_is_the_mean_over_all_pairings(rng: np.random.Generator) -> None:
    control, markers, decoded = Control(NAMES), [], []
    for _ in range(30):
        marker, order = str(rng.choice(NAMES[:4])), [str(name) for name in rng.permutation(NAMES)]
        control.add(f"stimulus/{marker}", order)
        control.add("no event of a concept", order)
        markers.append(marker)
        decoded.append(order)
    pairs = list(itertools.permutations(range(30), 2))
    for score in control.scores():
        assert score.n == 30
        assert score.right == np.mean([markers[i] in decoded[i][: score.k] for i in range(30)])
        assert score.shuffled == pytest.approx(np.mean([markers[j] in decoded[i][: score.k] for i, j in pairs]))
        assert score.chance == score.k / 7


def test_a_decoder_that_always_says_the_same_is_no_better_than_its_control() -> None:
    control = Control(NAMES)
    for _ in range(10):
        control.add("cat", NAMES)
    assert control.scores()[0].right == control.scores()[0].shuffled == 1


def test_nothing_is_said_of_no_epoch() -> None:
    assert [(score.right, score.shuffled) for score in Control(NAMES).scores()] == [(None, None)] * 2


@pytest.fixture
def training() -> TrainingStatistics:
    channels = tuple(Channel(name=name, type="eeg") for name in ("O1", "Oz", "O2"))
    layout = ResponseLayout(modality="eeg", shape=(3, 40), channels=channels, sfreq=100.0, tmin=0.0, unit="V")
    mean = np.random.default_rng(1).normal(0, 1e-5, (3, 40)).astype(np.float32)
    std = np.full((3, 40), 2e-5, np.float32)
    std[1, 5] = 0
    return TrainingStatistics(mean=mean, std=std, layout=layout)


def test_copies_have_the_epochs_scores_at_other_times(training: TrainingStatistics, rng: np.random.Generator) -> None:
    response = (training.mean + training.std * rng.standard_normal((3, 40))).astype(np.float32)
    copies = Null(training, seed=3).copies(response, "today/4")
    scores = training.scores(response[None])[0]
    for copy in copies:
        found = training.scores(copy[None])[0]
        shifts = [shift for shift in range(40) if np.allclose(np.roll(scores[0], shift), found[0], atol=1e-4)]
        assert len(shifts) == 1
        assert 10 <= shifts[0] <= 30
        np.testing.assert_allclose(np.roll(scores[2], shifts[0]), found[2], atol=1e-4)
    np.testing.assert_array_equal(copies, Null(training, seed=3).copies(response, "today/4"))
    assert not np.array_equal(copies, Null(training, seed=3).copies(response, "today/5"))


def test_confidence_is_the_share_of_copies_that_were_less_near(training: TrainingStatistics) -> None:
    null = Null(training, seed=3)
    null.add(np.array([[value, -1.0] for value in np.arange(19) / 20], np.float32))
    assert null.confidence(0.5) is None
    null.add(np.array([[0.1, 0.5]], np.float32))
    pool = np.sort([*np.float32(np.arange(19) / 20), 0.5])
    assert null.confidence(0.5) == pytest.approx((10 + 0.5 * 2) / 20)
    assert null.confidence(-1.0) == 0
    assert null.confidence(2.0) == 1
    assert len(pool) == 20


def test_a_loud_channel_is_named_once_and_its_return_too(
    training: TrainingStatistics, rng: np.random.Generator
) -> None:
    drift, said = Drift(training), []
    for number in range(60):
        scores = rng.standard_normal((3, 40))
        if 10 <= number < 25:
            scores[2] *= 8
        said.append(drift.add((training.mean + training.std * scores).astype(np.float32)))
    spoken = [(number, text) for number, text in enumerate(said) if text is not None]
    assert len(spoken) == 2
    assert "in 1 of 3 channels (O2)" in spoken[0][1]
    assert 10 <= spoken[0][0] < 16
    assert "back in the range" in spoken[1][1]
    assert 25 <= spoken[1][0] <= 25 + 16
    assert drift.outside == ()


def test_quiet_is_far_too_unless_epochs_are_averaged(training: TrainingStatistics, rng: np.random.Generator) -> None:
    for averaging, names in ((False, ("O1", "Oz", "O2")), (True, ())):
        drift = Drift(training, averaging=averaging)
        for _ in range(8):
            drift.add((training.mean + 0.1 * training.std * rng.standard_normal((3, 40))).astype(np.float32))
        assert drift.outside == names


def test_numbers_are_of_a_concept_by_a_table(tmp_path: Path) -> None:
    """Trigger codes as amplifiers and tables write them; a picture of no candidate says nothing of the decoder."""
    path = tmp_path / "shown.tsv"
    path.write_text("event\tconcept\tpicture\n11\tDog\ta.png\n12.0\tSea_Lion\tb.png\n13\tvolcano\tc.png\n")
    events = read_concepts_of(path, NAMES)
    assert events == {"11": "dog", "12": "sea lion"}
    control = Control(NAMES, events)
    assert [control.concept_of(text) for text in ("11", " 11.0 ", "12", "13", "1", "stimulus/cat")] == [
        "dog", "dog", "sea lion", None, None, "cat",
    ]  # fmt: skip
    for marker, first in (("11", "dog"), ("12", "dog"), ("13", "dog"), ("99", "cat")):
        control.add(marker, [first, *(name for name in NAMES if name != first)])
    score = control.scores()[0]
    assert (score.n, score.n_unnamed, score.right, score.shuffled) == (2, 2, 0.5, 0.5)


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("event,picture\n1,a.png", "concept is missing: give which concept each marker is of"),
        ("event,concept\n7,dog\n7.0,cat", "line 3: the event '7.0' is of 'cat' here and of 'dog' before"),
        ("event,concept\n7,volcano", "names no event of one of the decoder's 7 concepts"),
    ],
)
def test_a_table_of_concepts_that_says_nothing_is_refused(tmp_path: Path, table: str, error: str) -> None:
    (tmp_path / "shown.csv").write_text(table)
    with pytest.raises((FileError, InputError), match=error):
        read_concepts_of(tmp_path / "shown.csv", NAMES)


def test_why_there_is_no_control_is_said() -> None:
    control = Control(NAMES)
    assert why_no_control(control.scores(), 7) is None
    control.add("17", NAMES)
    assert why_no_control(control.scores(), 7) == (
        "No control: the first marker names none of the 7 concepts; --concepts FILE says which one each marker is of."
    )
    control.add("18", NAMES)
    said = why_no_control(control.scores(), 7)
    assert said is not None
    assert said.startswith("No control: none of 2 markers names one of the 7 concepts;")
    control.add("cat", NAMES)
    assert why_no_control(control.scores(), 7) is None
