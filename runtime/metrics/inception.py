"""Two-way identification by Inception v3."""

from __future__ import annotations

from .variants import identification_family

INCEPTION = identification_family(
    "inception", "Inception", "How often Inception v3's last layer, kinds of things, picks the right stimulus."
)
