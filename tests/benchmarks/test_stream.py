"""The table of lateness: what is counted as late, lost and beside the event, on turns that are written here."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("pylsl")
START, SFREQ = 100.0, 1000.0
# What a reader says of itself; the second process is there with md-stream alone.
COSTS = {"cpu_share": 0.03, "memory_mb": 100.0, "beside_cpu_share": None, "beside_memory_mb": None}


def test_lateness_is_from_the_push_of_the_last_sample_and_a_missing_epoch_is_lost(
    load: Callable[[str], ModuleType],
) -> None:
    stream = load("stream")
    pushed = START + (np.arange(20_000) // 10 * 10 + 9) / SFREQ  # chunks of ten samples
    first, last = stream.FIRST, stream.LAST
    numbers = range(2, 20)
    epochs = []
    for number in numbers:
        sample = stream.marker_sample(number)
        beside = 2 if number == 4 else 0
        at = pushed[sample + last + beside] + 0.001 * number
        epochs.append([at, sample + beside, sample + last + beside, at + 0.01 if number > 10 else None])
    del epochs[5]
    ready = START + (stream.marker_sample(2) + first) / SFREQ - 0.001
    stopped = START + (stream.marker_sample(19) + last) / SFREQ + 0.301
    report = {"ready": ready, "stopped": stopped, "epochs": epochs, **COSTS}
    row = stream.row_of("md-stream", 64, 10, [report], START, pushed)
    assert (row.n_epochs, row.n_lost, row.error_samples) == (17, 1, 2)
    late = [number for number in numbers if number != 7]
    assert row.max_ms == pytest.approx(19.0)
    assert row.p50_ms == pytest.approx(sorted(late)[8])
    assert row.features_p50_ms == pytest.approx(10 + 15)  # of 11 to 19
    missed = {verdict["goal"] for verdict in stream.verdicts([row]) if not verdict["met"]}
    assert missed == {"p50_ms at most 2", "p99_ms at most 5", "n_lost at most 0", "error_samples at most 0"}
    assert "10 ms chunks" in stream.table([row])


def test_no_error_is_claimed_where_a_filter_has_changed_the_numbers(load: Callable[[str], ModuleType]) -> None:
    stream = load("stream")
    pushed = START + np.arange(20_000) / SFREQ
    epochs = [[START + 9.0, None, stream.marker_sample(number) + stream.LAST, None] for number in range(2, 9)]
    report = {"ready": START + 1.7, "stopped": START + 4.2, "epochs": epochs, **COSTS}
    row = stream.row_of("md-stream, filter and decimation", 64, 1, [report], START, pushed)
    assert row.n_epochs > 0
    assert row.error_samples is row.features_p50_ms is row.beside_cpu_share is None
    assert not any(verdict["goal"].startswith("error") for verdict in stream.verdicts([row]))
    assert "   -" in stream.table([row])


def test_a_rival_has_no_goals(load: Callable[[str], ModuleType]) -> None:
    stream = load("stream")
    report = {"ready": START, "stopped": START + 1, "epochs": [], **COSTS}
    row = stream.row_of("plain pylsl loop", 64, 1, [report], START, np.zeros(10))
    assert stream.verdicts([row]) == []


def test_the_second_process_is_the_mean_of_its_share_and_its_largest_memory(load: Callable[[str], ModuleType]) -> None:
    stream = load("stream")
    turn = {"ready": START, "stopped": START + 1, "epochs": [], **COSTS}
    turns = [{**turn, "beside_cpu_share": share, "beside_memory_mb": mb} for share, mb in ((0.1, 70.0), (0.3, 50.0))]
    row = stream.row_of("md-stream", 64, 1, turns, START, np.zeros(10))
    assert (row.beside_cpu_share, row.beside_memory_mb) == (pytest.approx(0.2), 70.0)
