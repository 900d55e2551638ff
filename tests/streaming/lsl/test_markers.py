"""Markers in all their kinds; the stimulus channel is compared with MNE's own search."""

import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.streaming.lsl.markers import StimulusChannel, number, number_rows, text_rows


def test_texts_are_kept_to_the_byte() -> None:
    rows = np.empty((3, 1), object)
    rows[:, 0] = [b"face/7", b"\xff\xfe", b""]
    assert text_rows(rows) == [[b"face/7"], [b"\xff\xfe"], [b""]]
    two = np.empty((1, 2), object)
    two[0] = [b"face", b"7"]
    assert text_rows(two) == [[b"face\t7"]]


@pytest.mark.parametrize(("value", "raw"), [(7, b"7"), (-3, b"-3"), (7.0, b"7"), (0.5, b"0.5"), (2**31, b"2147483648")])
def test_numbers_are_decimal_digits(value: float, raw: bytes) -> None:
    assert number(value) == raw


def test_numbers_of_several_channels_are_the_labels_of_those_that_are_on() -> None:
    rows = np.array([[0, -1, 0], [2, 0, 3], [0, 0, 0]])
    assert number_rows(rows, ["face", "house", ""]) == [[b"house"], [b"face", b"3"], []]
    assert number_rows(rows[:, :1], ["face"]) == [[b"0"], [b"2"], [b"0"]]


@given(
    codes=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_codes_are_those_that_mne_finds_for_every_partition(codes: list, cuts: list[int]) -> None:
    values = np.repeat([float(code) for code, _ in codes], [length for _, length in codes])
    raw = mne.io.RawArray(values[None], mne.create_info(["STI"], 100.0, "stim"), verbose="error")
    expected = mne.find_events(raw, "STI", shortest_event=1, verbose="error")[:, [0, 2]].tolist()
    channel = StimulusChannel(0)
    found = []
    edges = sorted({0, len(values), *(cut for cut in cuts if cut <= len(values))})
    for start, stop in zip(edges, edges[1:], strict=False):
        assert channel.codes(values[start:start]) == []
        found += [[start + sample, code] for sample, code in channel.codes(values[start:stop])]
    assert found == expected


def test_a_mask_leaves_the_bits_that_are_no_codes() -> None:
    # BioSemi's status: bits above the 16th tell of the amplifier, and change on their own.
    values = np.array([1 << 20, (1 << 20) | 3, (1 << 21) | 3, 1 << 20, 5.0])
    assert StimulusChannel(0, mask=0xFF).codes(values) == [(1, 3), (4, 5)]


def test_numbers_that_are_no_codes_do_not_stop_it() -> None:
    assert StimulusChannel(0).codes(np.array([0.0, np.nan, 2.0, np.inf, -np.inf, 1e300])) == [(2, 2), (5, 2**53)]
