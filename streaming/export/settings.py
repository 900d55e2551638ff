"""What an export is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from ...runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Options of ``md-stream export``.

    Attributes
    ----------
    single
        FIF: float32, half the size; else float64, which keeps every bit of what was received times its unit.
    subject, session, task
        BIDS: letters and digits; `session` may be "".
    line_freq
        BIDS: of the mains in Hz, or None where it is not known.
    """

    single: bool = False
    subject: str = "01"
    session: str = ""
    task: str = "live"
    line_freq: float | None = None

    def __post_init__(self) -> None:
        for name in ("subject", "session", "task"):
            value = getattr(self, name)
            if not (value.isascii() and value.isalnum()) and not (name == "session" and value == ""):
                option = "--session-label" if name == "session" else f"--{name}"
                raise InputError(f"{option} is {value!r}: BIDS takes letters and digits only")
