"""What waits for a page is bounded, the newest counts, and who publishes never waits."""

import json
import threading

from minddiffuser.streaming.dashboard.hub import Client, Hub
from minddiffuser.streaming.dashboard.messages import Ledger, Marker, Message, Notice, Picture, Stream


def stream(n: int) -> Stream:
    return Stream(state="running", name="s", nominal=100.0, n_samples=n)


def picture(ordinal: int, frame: int = 1) -> Picture:
    return Picture(ordinal=ordinal, text="", stage=2, frame=frame, n_frames=9, png=b"")


def joined(hub: Hub) -> Client:
    client = hub.join(lambda: None)
    assert client is not None
    return client


def taken(client: Client) -> list[dict]:
    return [json.loads(text) for text in client.take()]


def test_of_a_state_the_newest_counts() -> None:
    hub = Hub()
    client = joined(hub)
    for n in range(5):
        hub.publish(stream(n))
    assert [message["n_samples"] for message in taken(client)] == [4]
    assert taken(client) == []


def test_of_a_picture_the_newest_frame_counts_and_of_many_the_last() -> None:
    hub = Hub()
    client = joined(hub)
    for ordinal in range(20):
        for frame in range(3):
            hub.publish(picture(ordinal, frame))
    waiting = taken(client)
    assert [(m["ordinal"], m["frame"]) for m in waiting] == [(o, 2) for o in range(20 - Picture.keep, 20)]


def test_messages_come_in_the_order_in_which_they_were_published() -> None:
    hub = Hub()
    client = joined(hub)
    said: list[Message] = [
        Notice(at=0.0, level="note", text="a"),
        stream(1),
        Marker(at=1.0, ordinal=0, text="m"),
        Notice(at=1.0, level="note", text="b"),
        picture(0),
        Ledger(received=1, totals={}, pictures={}),
    ]
    for message in said:
        hub.publish(message)
    assert [m["kind"] for m in taken(client)] == [m.kind for m in said]


def test_a_page_that_opens_late_is_given_what_counts() -> None:
    hub = Hub()
    for n in range(200):
        hub.publish(Notice(at=float(n), level="note", text=str(n)))
        hub.publish(stream(n))
    early = joined(hub)
    assert [m["text"] for m in taken(early) if m["kind"] == "notice"] == [str(n) for n in range(150, 200)]
    assert [m["n_samples"] for m in taken(joined(hub)) if m["kind"] == "stream"] == [199]
    assert taken(early) == [], "what another page reads is not read by this one, nor twice"


def test_what_waits_for_a_page_that_never_reads_is_bounded() -> None:
    hub = Hub()
    client = joined(hub)
    for n in range(3000):
        hub.publish(stream(n))
        hub.publish(Notice(at=0.0, level="note", text=str(n)))
        hub.publish(picture(n))
    assert len(client.take()) == Stream.keep + Notice.keep + Picture.keep


def test_there_is_room_for_so_many_pages_and_no_more() -> None:
    hub = Hub(most_clients=2)
    first, second = joined(hub), joined(hub)
    assert hub.join(lambda: None) is None
    first.leave()
    first.leave()
    assert hub.n_clients == 1
    assert hub.join(lambda: None) is not None
    hub.publish(stream(1))
    assert taken(first) == [], "nothing is kept for a page that left"
    assert len(taken(second)) == 1


def test_many_threads_publish_and_nothing_is_lost_or_doubled() -> None:
    hub = Hub()
    client = joined(hub)
    woken = threading.Semaphore(0)
    client.wake = woken.release  # type: ignore[method-assign]
    counts = range(12)  # as many as a slow page is kept: each one is seen by a page that reads at its leisure

    def publish(thread: int) -> None:
        for n in counts:
            hub.publish(Notice(at=float(n), level="note", text=f"{thread}/{n}"))

    threads = [threading.Thread(target=publish, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = [m["text"] for m in taken(client)]
    assert sorted(texts) == sorted(f"{thread}/{n}" for thread in range(4) for n in counts)
    for thread in range(4):
        mine = [int(text.split("/")[1]) for text in texts if text.startswith(f"{thread}/")]
        assert mine == sorted(mine), "what one thread says stays in its order"
    assert all(woken.acquire(blocking=False) for _ in range(4 * len(counts)))
