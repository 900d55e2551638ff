"""pylsl and the liblsl under it, which pip does not bring for every machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ...runtime.errors import MissingExtra

# Where liblsl looks for its settings, in this order, after LSLAPICFG.
_SETTINGS = ("lsl_api.cfg", "~/lsl_api/lsl_api.cfg", "/etc/lsl_api/lsl_api.cfg")
# Nothing below a crash: by default liblsl writes each interface, connection and lost stream to standard error.
_QUIET = "[log]\nlevel = -3\n"
HOW_TO_GET_IT = (
    "install liblsl (conda install -c conda-forge liblsl, or a package of github.com/sccn/liblsl/releases) and, where "
    "it is not found by itself, put its path into the environment variable PYLSL_LIB; md-stream doctor says more"
)


def pylsl_library() -> Any:
    """The module pylsl, with liblsl loaded.

    Raises
    ------
    MissingExtra
        One of both is missing or does not load here; the message says what to do.
    """
    try:
        import pylsl
    except ModuleNotFoundError as error:
        raise MissingExtra(f"LSL needs {error.name}: pip install 'minddiffuser[stream]'") from error
    except (RuntimeError, OSError, AttributeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingExtra(f"pylsl cannot load liblsl ({reason[0]:.160}): {HOW_TO_GET_IT}") from error
    _be_quiet()
    return pylsl


def settings_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file that liblsl takes its settings from: None where there is none."""
    given = environment.get("LSLAPICFG", "")
    places = ([given] if given else []) + list(_SETTINGS)
    return next((path for place in places if (path := Path(place).expanduser()).is_file()), None)


@cache
def _be_quiet() -> None:
    """Ask liblsl to keep its log to itself, unless the lab has settings of its own; it listens once, at the start."""
    import pylsl

    if settings_file() is None and hasattr(pylsl.lib.lib, "lsl_set_config_content"):
        pylsl.set_config_content(_QUIET)
