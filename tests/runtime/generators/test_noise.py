import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.generators.noise import fresh_noise, trial_noise

SHAPE = (4, 6, 6)


def test_noise_belongs_to_the_trial_and_not_to_its_batch() -> None:
    together, alone = trial_noise(3, ["5", "test/9/0", "2"], SHAPE), trial_noise(3, ["test/9/0"], SHAPE)
    assert together.shape == (3, *SHAPE)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(together[1], alone[0])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(alone, trial_noise(4, ["test/9/0"], SHAPE))


def test_noise_is_standard_normal() -> None:
    noise = trial_noise(0, [str(row) for row in range(20)], (4, 16, 16))
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03


def test_fresh_noise_replays_and_begins_at_the_fixed_noise() -> None:
    at = fresh_noise(3, ["5", "9"], SHAPE)
    np.testing.assert_array_equal(at(0), trial_noise(3, ["5", "9"], SHAPE))
    np.testing.assert_array_equal(at(2), fresh_noise(3, ["5", "9"], SHAPE)(2))
    assert not np.array_equal(at(1), at(2))
    np.testing.assert_array_equal(at(2)[1:], fresh_noise(3, ["9"], SHAPE)(2))


def test_seed_id_candidate_and_iteration_never_stand_for_each_other() -> None:
    """Numbers and ids with the same characters in another place give other noise."""
    drawn = [
        trial_noise(seed, [name], SHAPE, candidate).tobytes()
        for seed, name, candidate in [(1, "1", 0), (11, "", 0), (1, "0/1", 0), (0, "1", 1), (1, "1", 1), (1, "01", 0)]
    ]
    drawn += [fresh_noise(1, ["1"], SHAPE)(1).tobytes(), fresh_noise(1, ["1"], SHAPE, 1)(1).tobytes()]
    assert len(set(drawn)) == len(drawn)


def test_noise_is_the_documented_one_in_every_process() -> None:
    digest = hashlib.sha256("42/1/0/tête/3".encode()).hexdigest()
    expected = np.random.default_rng(int(digest, 16)).standard_normal(SHAPE, dtype=np.float32)
    np.testing.assert_array_equal(trial_noise(42, ["tête/3"], SHAPE, candidate=1)[0], expected)
    code = (
        "import sys; from minddiffuser.runtime.generators.noise import trial_noise; "
        f"sys.stdout.buffer.write(trial_noise(42, ['t\\u00eate/3'], {SHAPE}, candidate=1).tobytes())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment).stdout
    assert found == expected.tobytes()


@pytest.mark.parametrize("ids", [range(3), [0, 1], "abc", ["a", None]])
def test_rows_are_no_ids(ids: object) -> None:
    with pytest.raises(InputError, match="expected texts"):
        trial_noise(0, ids, SHAPE)
