"""What a session said of itself, as far as running it again needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...runtime.backends.base import Needs
from ...runtime.errors import FileError, InputError, shown
from ..generation.plan import Plan
from ..intake.settings import IntakeSettings
from ..recording.names import SESSION_FILE
from ..recording.opened import Session


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """A picture then: the plan, and after how many frames which pixels were kept."""

    trial_id: str
    plan: Plan
    kept: tuple[tuple[int, str], ...]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A session then.

    Attributes
    ----------
    bundle
        The folder, as it was named.
    intake
        Its settings.
    accept_filter_mismatch, average, seed
        See :class:`~..session.run.Request`.
    needs
        What was asked of it.
    computing
        What computed; see :mod:`~..decoding.computing`.
    drawing
        Likewise, of each device on which pictures were drawn, where there were several.
    states
        Of each marker by its ordinal, as the books ended.
    decoded
        By ordinal: the line of the results.
    pictures
        By ordinal.
    """

    bundle: Path
    intake: IntakeSettings
    accept_filter_mismatch: bool
    average: bool
    seed: int
    needs: Needs
    computing: Mapping[str, Any]
    drawing: Sequence[Mapping[str, Any]]
    states: Mapping[int, str]
    decoded: Mapping[int, Mapping[str, Any]]
    pictures: Mapping[int, Pictured]

    @property
    def semantic(self) -> bool:
        """Whether the semantic feature was decoded."""
        return any("semantic" in line["hashes"] for line in self.decoded.values())


def read_recorded(session: Session) -> Recorded:
    """Read a session's folder.

    Raises
    ------
    FileError
        Something is missing or damaged.
    """
    about = session.about["about"]
    where = session.path / SESSION_FILE
    try:
        return Recorded(
            bundle=Path(about["bundle"]["folder"]),
            intake=intake_of(about),
            accept_filter_mismatch=bool(about["accept_filter_mismatch"]),
            average=bool(about["average"]),
            seed=int(about["seed"]),
            needs=Needs(**about["needs"]),
            computing=about["computing"],
            drawing=tuple(about.get("drawing", ())),
            states={int(line["ordinal"]): str(line["state"]) for line in session.ledger() if "ordinal" in line},
            **_results(list(session.results())),
        )
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise FileError(
            f"{where} and its results do not say how the session ran ({shown(error)}): it was not made by md-stream run"
        ) from None


def intake_of(about: Mapping[str, Any]) -> IntakeSettings:
    """The settings of a session's intake."""
    known = {field.name for field in fields(IntakeSettings)}
    settings = {name: value for name, value in about["intake"].items() if name in known}
    return IntakeSettings(**{**settings, "events": tuple(settings.get("events", ()))})


def _results(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    decoded = {int(line["ordinal"]): line for line in lines if line["kind"] == "decoded"}
    plans = {int(line["ordinal"]): line for line in lines if line["kind"] == "plan"}
    kept: dict[int, list[tuple[int, str]]] = {}
    for line in lines:
        if line["kind"] == "picture":
            kept.setdefault(int(line["ordinal"]), []).append((int(line["n_frames"]), str(line["pixels_sha256"])))
    pictures = {
        ordinal: Pictured(trial_id=str(line["trial_id"]), plan=Plan.from_json(line), kept=tuple(kept[ordinal]))
        for ordinal, line in plans.items()
        if ordinal in kept
    }
    return {"decoded": decoded, "pictures": pictures}
