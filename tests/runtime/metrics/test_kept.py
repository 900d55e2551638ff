import re
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.metrics import kept
from minddiffuser.runtime.metrics.kept import Kept, key_of

RUNTIME = Path(kept.__file__).parents[1]
ONE, TWO = key_of("aa", "bb"), key_of("bb", "aa")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "measured.safetensors"
    made = Kept(path)
    made.put("a value", ONE, np.float64(0.25))
    made.put("a value", TWO, np.float64(-1))
    made.put("features", ONE, np.arange(3, dtype=np.float32))
    made.save(all_used=True)
    return path


def test_rows_come_back_as_they_were(path: Path) -> None:
    kept = Kept(path)
    assert kept.get("a value", ONE) == 0.25
    assert kept.get("a value", TWO) == -1
    row = kept.get("features", ONE)
    assert row is not None
    assert row.dtype == np.float32
    assert row.tolist() == [0, 1, 2]
    assert kept.rows("a value", [TWO, ONE, TWO]).tolist() == [-1, 0.25, -1]
    assert kept.get("features", TWO) is None
    assert kept.get("another value", ONE) is None


def test_what_is_not_used_any_more_goes_unless_the_work_was_stopped(path: Path) -> None:
    for all_used in (False, True):
        kept = Kept(path)
        kept.get("a value", ONE)
        kept.put("a value", key_of("cc"), np.float64(3))
        kept.save(all_used=all_used)
        again = Kept(path)
        assert again.get("a value", key_of("cc")) == 3
        assert again.get("a value", ONE) == 0.25
        assert (again.get("features", ONE) is None) == all_used


def test_nothing_new_writes_nothing(path: Path) -> None:
    before = path.stat().st_mtime_ns
    kept = Kept(path)
    for identity, key in (("a value", ONE), ("a value", TWO), ("features", ONE)):
        kept.get(identity, key)
    kept.save(all_used=True)
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("place", [0, 9, -40, -1])
def test_a_changed_or_truncated_file_counts_as_empty(path: Path, place: int) -> None:
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[place] ^= 1
    for data in (bytes(changed), whole[:place], b""):
        path.write_bytes(data)
        assert Kept(path).get("a value", ONE) is None


def test_the_code_that_reads_and_enlarges_pictures_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a metric computes with; the rest of what they import holds no arithmetic."""
    plain = {"errors.py", "fields.py", "files.py", "locks.py", "environment.py"}
    names = {path.relative_to(RUNTIME).as_posix() for path in kept.sources()}
    for path in (RUNTIME / "metrics").rglob("*.py"):
        imported = re.findall(r"^\s*from (\.{2,})(\w+) import", path.read_text(), re.MULTILINE)
        rooms = [path.relative_to(RUNTIME).parents[len(dots) - 1] / f"{name}.py" for dots, name in imported]
        assert {room.as_posix() for room in rooms} <= names | plain, path
    before = kept.code_identity()
    for changed in ("images.py", "resampling.py", "metrics/ssim.py"):
        with monkeypatch.context() as patch:
            read = Path.read_bytes
            patch.setattr(Path, "read_bytes", lambda p, c=changed, r=read: r(p) + b"#" * (p == RUNTIME / c))
            kept.code_identity.cache_clear()
            assert kept.code_identity() != before, changed
    kept.code_identity.cache_clear()
