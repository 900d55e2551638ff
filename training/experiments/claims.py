"""What the paper says in words, beside the difference that was found."""

from __future__ import annotations

from typing import Any

from .experiment import Experiment
from .results import Estimate, Results, modalities_of, of_gains
from .verdicts import verdict


def claims_of(experiment: Experiment, results: Results) -> list[dict[str, Any]]:
    """What the paper says in words, each with the difference that was found and the word for it.

    Each is {"text", "source", "difference", "ci95", "n_pictures", "agreement"}; experiments that judge by themselves
    give {"text", "source", "found", "agreement"} and what else they like, `found` for people. So does a sentence whose
    metric or cells were not measured, whose "agreement" is None.
    """
    if experiment.judged is not None:
        return experiment.judged(results)
    made = []
    for claim in experiment.claims(modalities_of(results.subjects)):
        found = results.claim(claim)
        unit = "%" if of_gains(claim) else ""
        measured = {"found": "not measured"} if found is None else _estimate(found) | {"unit": unit}
        made.append({"text": claim.text, "source": claim.source, **measured, "agreement": verdict(1, found)})
    return made


def _estimate(found: Estimate) -> dict[str, Any]:
    return {
        "difference": found.mean,
        "ci95": None if found.ci95 is None else list(found.ci95),
        "n_pictures": found.n_pictures,
    }


def claim_text(claim: dict[str, Any]) -> str:
    """The difference with its interval, or what was found, in words."""
    if "found" in claim:
        return str(claim["found"])
    ends, unit = claim["ci95"], claim["unit"]
    form, behind = ("+.1f", f" {unit}") if unit else ("+.3f", "")
    text = f"{claim['difference']:{form}}{behind}"
    return text if ends is None else f"{text} [{ends[0]:{form}}, {ends[1]:{form}}]"
