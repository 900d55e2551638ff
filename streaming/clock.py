"""The one clock of a session: seconds of LSL's `local_clock()`, which all processes of a machine share."""

from __future__ import annotations

import sys
import time

if sys.platform == "linux":

    def now() -> float:
        """Seconds of LSL's local clock, which is CLOCK_MONOTONIC here: pylsl is not needed to read it."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

else:

    def now() -> float:
        """Seconds of LSL's local clock."""
        from pylsl import local_clock

        return float(local_clock())
