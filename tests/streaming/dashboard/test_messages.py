"""The JSON of every kind of message: hostile texts are tamed, numbers are numbers, arrays come back bit for bit."""

import base64
import json
import unicodedata
from dataclasses import fields, replace

import numpy as np
import pytest
from dashboard_story import story

from minddiffuser.streaming.dashboard.messages import (
    LONGEST_TEXT,
    MESSAGES,
    MOST_ITEMS,
    Entry,
    Ledger,
    Marker,
    Message,
    Montage,
    Notice,
    Picture,
    Signal,
    Stream,
    clean,
    encoded,
)

EXAMPLES = {type(message): message for _, message in story(4.5)}


def test_the_story_has_every_kind() -> None:
    assert set(EXAMPLES) == set(MESSAGES)
    assert len({kind.kind for kind in MESSAGES}) == len(MESSAGES)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.kind)
def test_every_kind_is_json_on_one_line(kind: type[Message]) -> None:
    text = encoded(EXAMPLES[kind])
    assert "\n" not in text
    assert text.isascii()
    content = json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert content["kind"] == kind.kind
    assert set(content) == {"kind", *(field.name for field in fields(kind))}


def test_what_is_not_finite_is_null() -> None:
    for value in (np.nan, np.inf, -np.inf, np.float32("nan")):
        assert json.loads(encoded(Stream(state="running", name="a", nominal=1.0, age=value)))["age"] is None


def test_numbers_of_numpy_are_numbers() -> None:
    content = json.loads(encoded(Stream(state="running", name="a", nominal=np.float32(0.5), gaps=np.int64(3))))
    assert (content["nominal"], content["gaps"]) == (0.5, 3)


def test_arrays_and_bytes_come_back(rng: np.random.Generator) -> None:
    lows = rng.standard_normal((3, 4)).astype(np.float32)
    lows[1, 2] = np.nan
    text = encoded(Signal(first=0, at=0.0, column=0.01, lows=lows.T.copy().T, highs=lows))  # one in Fortran's order
    for name in ("lows", "highs"):
        raw = base64.b64decode(json.loads(text)[name])
        assert raw == lows.tobytes()  # this machine is little-endian, as all that run this are
    png = rng.bytes(50)
    picture = Picture(ordinal=1, text="", stage=1, frame=1, n_frames=1, png=png)
    assert base64.b64decode(json.loads(encoded(picture))["png"]) == png


@pytest.mark.parametrize(
    "text",
    ["a\x00b", "a\x1b[2Jb", "evil\u202egnp.exe", "a\u2066b", "a\ud800b", "a\u200bb", "a\u2028b", "\x7f", "\ufeff"],
)
def test_what_acts_on_a_screen_is_replaced(text: str) -> None:
    shown = clean(text)
    assert len(shown) == len(text)
    assert "\ufffd" in shown
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_what_people_write_stays() -> None:
    for text in ("Straße 1/2", "猫", "µV", "<b>bold</b> & \"more\" 'still'", "😀 emoji", "قط"):
        assert clean(text) == text
    assert clean("two\nlines\tand a tab") == "two lines and a tab"


def test_long_texts_and_tables_are_capped() -> None:
    assert len(clean("x" * 10_000)) == LONGEST_TEXT
    assert clean("x" * LONGEST_TEXT) == "x" * LONGEST_TEXT
    marker = json.loads(encoded(Marker(at=0.0, ordinal=0, text="y" * 1_000_000)))
    assert len(marker["text"]) == LONGEST_TEXT
    names = tuple(f"c{index}" for index in range(5000))
    montage = json.loads(encoded(Montage(names=names, types=names, units=names, places=(None,) * 5000)))
    assert {len(montage[name]) for name in ("names", "types", "units", "places")} == {MOST_ITEMS}
    totals = {"z" * 1000: 1}
    entry = Entry(ordinal=0, text="a\x1bb", state="decoded", reason="r" * 1000)
    ledger = json.loads(encoded(Ledger(received=1, totals=totals, pictures={}, entries=(entry,))))
    assert len(next(iter(ledger["totals"]))) == LONGEST_TEXT
    assert (ledger["entries"][0]["text"], len(ledger["entries"][0]["reason"])) == ("a\ufffdb", LONGEST_TEXT)


def test_a_message_can_be_changed_only_into_another_one() -> None:
    notice = Notice(at=0.0, level="note", text="one")
    assert replace(notice, text="two").text == "two"
    with pytest.raises(AttributeError):
        notice.text = "two"  # type: ignore[misc]
