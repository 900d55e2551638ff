"""Trials that run together against the same trials alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from minddiffuser.export.verify import rows
from minddiffuser.export.verify.parity import TOLERANCES, Spread
from minddiffuser.export.verify.rows import compare_rows, free_of, tells_rows_apart
from minddiffuser.runtime.bundle.graph_specs import TensorSpec

FP32 = TOLERANCES["fp32"]
SPECS = (
    {"x": TensorSpec("float32", ("batch", 4)), "shared": TensorSpec("float32", (4,))},
    {"y": TensorSpec("float32", ("batch", 4)), "sum": TensorSpec("float32", ("batch",))},
)
X = np.random.default_rng(3).standard_normal((1, 4)).astype(np.float32)
FEEDS = {"x": X, "shared": np.ones(4, np.float32)}
Arrays = Mapping[str, np.ndarray]


def good(feeds: Arrays) -> dict[str, np.ndarray]:
    y = feeds["x"] * feeds["shared"]
    return {"y": y, "sum": y.sum(1)}


FAULTS: dict[str, Callable[[Arrays], dict[str, np.ndarray]]] = {
    "the first for all": lambda f: {name: np.repeat(a[:1], len(a), 0) for name, a in good(f).items()},
    "the last for all": lambda f: {name: np.repeat(a[-1:], len(a), 0) for name, a in good(f).items()},
    "reversed": lambda f: {name: a[::-1] for name, a in good(f).items()},
    "the mean of all": lambda f: {name: 0 * a + a.mean(0) for name, a in good(f).items()},
    "normalised over the batch": lambda f: {name: a - 0.1 * a.mean(0) + 0.1 * a for name, a in good(f).items()},
    "only one output": lambda f: {**good(f), "sum": np.repeat(good(f)["sum"][:1], len(f["x"]))},
    "one row too few": lambda f: {name: a[:1] for name, a in good(f).items()},
    "nothing": lambda f: {name: a * np.nan if len(a) > 1 else a for name, a in good(f).items()},
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("sizes", [None, (1, 16), (1, 2)])
def test_every_way_to_mix_trials_is_found(name: str, sizes: tuple[int, ...] | None) -> None:
    assert compare_rows(FAULTS[name], SPECS, FEEDS, FP32, sizes=sizes).reason is not None
    assert compare_rows(good, SPECS, FEEDS, FP32, sizes=sizes).reason is None


def test_an_engine_for_one_trial_at_a_time_is_not_asked_for_two() -> None:
    def one(feeds: Arrays) -> dict[str, np.ndarray]:
        assert len(feeds["x"]) == 1
        return good(feeds)

    assert compare_rows(one, SPECS, FEEDS, FP32, sizes=(1,)) == rows.Rows()


@pytest.mark.parametrize("sizes", [(1, 4), (2, 2), (3, 8)])
def test_only_batches_that_the_engine_takes_are_run(sizes: tuple[int, int]) -> None:
    ran: list[int] = []

    def watched(feeds: Arrays) -> dict[str, np.ndarray]:
        ran.append(len(feeds["x"]))
        return good(feeds)

    assert compare_rows(watched, SPECS, FEEDS, FP32, sizes=sizes).reason is None
    assert all(sizes[0] <= n <= sizes[1] for n in ran)
    assert max(ran) >= 2


def test_no_memory_for_two_is_said() -> None:
    def small(feeds: Arrays) -> dict[str, np.ndarray]:
        if len(feeds["x"]) > 1:
            raise MemoryError
        return good(feeds)

    assert compare_rows(small, SPECS, FEEDS, FP32).no_room == "there is no memory for two trials at once"


def test_rounding_that_decides_a_branch_is_no_mixture() -> None:
    """A difference of a thousandth of how far the trials are apart, where the spread of the case allows none."""

    def noisy(feeds: Arrays) -> dict[str, np.ndarray]:
        found = good(feeds)
        return {name: a + np.float32(1e-3) * (len(a) > 1) for name, a in found.items()}

    assert compare_rows(noisy, SPECS, FEEDS, FP32).reason is None


def test_a_reference_tells_rows_apart_only_where_they_differ_in_every_output() -> None:
    two = good({"x": np.concatenate([X, -X]), "shared": FEEDS["shared"]})
    free = free_of(SPECS[1])
    assert free == ["y", "sum"]
    assert free_of(SPECS[0]) == ["x"]
    assert tells_rows_apart(two, free, FP32)
    assert not tells_rows_apart({name: a[:1] for name, a in two.items()}, free, FP32)
    assert not tells_rows_apart({name: np.repeat(a[:1], 2, 0) for name, a in two.items()}, free, FP32)
    assert not tells_rows_apart({**two, "sum": np.ones(2, np.float32)}, free, FP32)
    assert not tells_rows_apart(two, free, FP32, {"y": Spread(1.0, 0.0)})


def test_memory_is_measured_or_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from minddiffuser.export import memory_probe

    given, needed = memory_probe.measured(lambda: float(np.ones(4 << 20).sum()))
    assert given == 4 << 20
    assert needed is None or needed > 8 << 20
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 12 kB\n")
    (tmp_path / "memory.max").write_text("9000\n")
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1000\n")
    monkeypatch.setattr(memory_probe, "_MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(memory_probe, "_GROUP", tmp_path)
    assert memory_probe.available() == 5000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_probe.available() == 12 << 10
    monkeypatch.setattr(memory_probe, "_MACHINE", tmp_path / "absent")
    assert memory_probe.available() is None
    monkeypatch.setattr(memory_probe, "_SELF", tmp_path / "absent")
    assert memory_probe.measured(lambda: 3) == (3, None)


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/job/step", {"job/memory.max": "9000", "job/memory.current": "5000", "job/memory.stat": ""}, 4000),
        (
            "0::/job",
            {"job/memory.max": "max", "memory.max": "700", "memory.current": "100", "memory.stat": "inactive_file 5"},
            605,
        ),
        (
            "0::/\n4:cpu:/\n5:hugetlb,memory:/job",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "1",
                "memory/memory.stat": "",
                "memory/job/memory.limit_in_bytes": "5000",
                "memory/job/memory.usage_in_bytes": "3000",
                "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 50",
            },
            2050,
        ),
        ("0::/elsewhere", {"memory.max": "max"}, 12 << 10),
    ],
)
def test_the_smallest_limit_of_all_control_groups_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, line: str, files: dict[str, str], expected: int
) -> None:
    from minddiffuser.export import memory_probe

    for name, text in {"self/cgroup": line, "meminfo": "MemAvailable: 12 kB", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n" if text else "")
    monkeypatch.setattr(memory_probe, "_MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(memory_probe, "_GROUP", tmp_path)
    monkeypatch.setattr(memory_probe, "_SELF", tmp_path / "self")
    assert memory_probe.available() == expected
