from __future__ import annotations

import threading

from minddiffuser.streaming.generation.newest import Newest


def test_the_newest_comes_first_and_the_oldest_makes_room() -> None:
    queue: Newest[int] = Newest(3)
    dropped = [queue.put(number) for number in range(5)]
    assert dropped == [[], [], [], [0], [1]]
    assert [queue.take(), queue.take(), queue.take()] == [4, 3, 2]
    assert len(queue) == 0


def test_a_closed_queue_gives_what_waits_and_takes_no_more() -> None:
    queue: Newest[int] = Newest(3)
    queue.put(1)
    queue.close()
    assert queue.put(2) == [2]
    assert [queue.take(), queue.take()] == [1, None]


def test_kinds_are_looked_for_and_taken_out() -> None:
    queue: Newest[int] = Newest(5)
    for number in range(5):
        queue.put(number)
    assert queue.waits(lambda number: number == 3)
    assert queue.remove(lambda number: number % 2 == 0) == [0, 2, 4]
    assert not queue.waits(lambda number: number == 4)
    assert [queue.take(), queue.take()] == [3, 1]


def test_who_waits_is_woken() -> None:
    queue: Newest[int] = Newest(1)
    taken: list[int | None] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    queue.put(7)
    thread.join(30)
    assert taken == [7]
