import pylsl

from minddiffuser.streaming.clock import now


def test_it_is_the_clock_of_lsl() -> None:
    for _ in range(100):
        before, theirs, after = now(), pylsl.local_clock(), now()
        assert before <= theirs <= after
