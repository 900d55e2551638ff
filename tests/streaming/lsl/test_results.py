"""Results as another program receives them, by pylsl alone."""

import json
import os

import numpy as np
import pylsl
import pytest

from minddiffuser.runtime.errors import ShapeError
from minddiffuser.streaming.clock import now
from minddiffuser.streaming.lsl.results import HEAD, NUMBERS_TYPE, TYPE, Result, ResultOutlet

PATIENCE = 60.0


def inlet(name: str, kind: str) -> pylsl.StreamInlet:
    found = pylsl.resolve_bypred(f"name='{name}' and type='{kind}'", timeout=PATIENCE)
    assert len(found) == 1
    opened = pylsl.StreamInlet(found[0])
    opened.open_stream(PATIENCE)
    return opened


def test_both_streams_say_the_same_with_one_stamp() -> None:
    name = f"results-{os.getpid()}"
    outlet = ResultOutlet(name, "semantic", 3)
    texts, numbers = inlet(name, TYPE), inlet(f"{name}-embedding", NUMBERS_TYPE)
    assert numbers.info(PATIENCE).get_channel_labels() == [*HEAD, "semantic/0", "semantic/1", "semantic/2"]
    embedding = np.array([0.25, -1.0, 3.0], np.float32)
    named = Result(
        ordinal=7,
        text="stimulus/\ufffd",
        n_averaged=2,
        nearest=(("cat", 0.5), ("dog", 0.25)),
        chance=1 / 24,
        latency=0.125,
        embedding=embedding,
    )
    bare = Result(ordinal=8, text="", n_averaged=1, nearest=(), chance=None, latency=0.5, embedding=-embedding)
    stamps = now(), now() + 1
    outlet.push(named, stamps[0])
    outlet.push(bare, stamps[1])
    [first], at = texts.pull_sample(PATIENCE)
    assert json.loads(first) == {
        "ordinal": 7,
        "text": "stimulus/\ufffd",
        "n_averaged": 2,
        "concept": "cat",
        "similarity": 0.5,
        "nearest": [["cat", 0.5], ["dog", 0.25]],
        "chance": 1 / 24,
        "latency": 0.125,
    }
    row, same = numbers.pull_sample(PATIENCE)
    assert at == same == stamps[0]
    assert row == [7.0, 2.0, 0.125, 0.5, 0.25, -1.0, 3.0]
    [second], at = texts.pull_sample(PATIENCE)
    assert (json.loads(second)["concept"], json.loads(second)["similarity"]) == (None, None)
    row, same = numbers.pull_sample(PATIENCE)
    assert at == same == stamps[1]
    np.testing.assert_array_equal(row, [8.0, 1.0, 0.5, np.nan, -0.25, 1.0, -3.0])
    with pytest.raises(ShapeError, match="opened for"):
        outlet.push(
            Result(ordinal=9, text="", n_averaged=1, nearest=(), chance=None, latency=0.0, embedding=embedding[:2]), 1.0
        )
    outlet.close()
    outlet.close()
    outlet.push(named, stamps[0])
