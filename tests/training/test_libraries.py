"""Versions of work that was begun, and begun again."""

from __future__ import annotations

from minddiffuser.training.libraries import merged


def test_each_change_is_kept_once_however_often_work_goes_on() -> None:
    found = {"torch": "2.3.0"}
    for here in ("2.4.1", "2.4.1", "2.4.1+cpu", "2.5.0", "2.5.0"):
        found = merged(found, {"torch": here})
    assert found == {"torch": "2.3.0, then 2.4.1, then 2.5.0"}
    assert merged({}, {"torch": "2.4.1"}) == {"torch": "?, then 2.4.1"}
