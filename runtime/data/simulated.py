"""Which kind of simulated brain made a data folder, by its provenance."""

from __future__ import annotations

# Folders of earlier releases do not say it: there was one kind.
FIRST_BRAIN = "clip"


def simulated_brain(provenance: object) -> str | None:
    """The kind of brain that a simulated subject has; None for any other subject.

    Parameters
    ----------
    provenance
        Of a data folder, as it was read: anything.
    """
    if not isinstance(provenance, dict) or not str(provenance.get("kind", "")).startswith("simulated"):
        return None
    return str(provenance.get("brain", FIRST_BRAIN))
