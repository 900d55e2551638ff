"""Silence and staleness, with times given."""

from minddiffuser.streaming.lsl.watch import Watch


def kinds(notices: list) -> list[str]:
    return [notice.kind for notice in notices]


def test_silence_is_said_once_and_its_end_with_its_length() -> None:
    watch = Watch("Amp", silence=1.0, stale=1.0, at=100.0)
    assert watch.nothing(100.9) == []
    assert watch.came(100.95, newest=100.9) == []
    assert watch.nothing(101.9) == []
    said = watch.nothing(102.05)
    assert kinds(said) == ["silent"]
    assert "1.1 s" in said[0].text
    assert watch.nothing(103.0) == []
    again = watch.came(105.95, newest=105.9)
    assert kinds(again) == ["recovered"]
    assert "after 5.0 s" in again[0].text
    assert kinds(watch.nothing(107.0)) == ["silent"]


def test_a_backlog_is_stale_until_it_is_caught_up() -> None:
    watch = Watch("Amp", silence=1.0, stale=1.0, at=0.0)
    assert kinds(watch.came(10.0, newest=6.0)) == ["stale"]
    assert watch.came(10.1, newest=8.0) == []
    assert kinds(watch.came(10.2, newest=10.1)) == ["recovered"]
    assert watch.came(10.3, newest=10.2) == []


def test_stamps_of_another_clock_are_said_once_and_are_not_called_late() -> None:
    for newest in (10.0 + 1.7e9, 10.0 - 1.7e9, 12.0):
        watch = Watch("Amp", silence=1.0, stale=1.0, at=0.0)
        said = watch.came(10.0, newest)
        assert kinds(said) == ["clock"]
        assert watch.came(10.1, newest + 0.1) == []


def test_without_an_offset_nothing_is_said_of_age() -> None:
    assert Watch("Amp", silence=1.0, stale=1.0, at=0.0).came(10.0, None) == []
