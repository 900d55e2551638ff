"""Sessions as files that other programs read: a new format is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping

# Name of --to: the module here and its function; see write_fif for what it takes.
FORMATS: Mapping[str, tuple[str, str]] = {
    "fif": (".fif", "write_fif"),
    "bids": (".bids", "write_bids"),
}
