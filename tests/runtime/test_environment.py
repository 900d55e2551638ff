"""What the process runs on and with."""

import numpy as np

from minddiffuser.runtime.environment import versions


def test_versions_of_what_is_installed() -> None:
    found = versions(("numpy", "no-such-library-anywhere"))
    assert found == {"numpy": np.__version__}
