"""Two-way identification by an early and a middle layer of AlexNet."""

from __future__ import annotations

from .variants import identification_family

ALEXNET2 = identification_family(
    "alexnet2", "AlexNet(2)", "How often AlexNet's second layer, edges and colours, picks the right stimulus."
)
ALEXNET5 = identification_family(
    "alexnet5", "AlexNet(5)", "How often AlexNet's fifth layer, parts and textures, picks the right stimulus."
)
