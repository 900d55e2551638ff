"""What a study says in words: the plan before it begins, and the analysis as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..leaks import leaks_line
from .exact import detectable
from .plan import ALPHA, POWER

_SIMULATED = "The subject is simulated: this says how well the method works as designed, not on a real brain."


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """The plan and its power, for the terminal."""
    settings = plan["settings"]
    judges = _counted(settings["n_judges"], "judge")
    lines = []
    for number, row in enumerate(plan["contrasts"]):
        n_stimuli = len({item["stimulus"] for item in plan["items"] if item["contrast"] == number})
        same = f", {row['n_identical']} identical pairs left out" if row["n_identical"] else ""
        lines.append(
            f"{row['first']['label']} against {row['second']['label']}: {_counted(row['n_choices'], 'choice')} by "
            f"{judges}, of {_counted(row['n_pairs'], 'pair')}{same}"
        )
        lines.append(f"  {power_line(row['n_choices'] * settings['n_judges'], n_stimuli)}")
    most, n_catch = plan["rules"]["most_catch_failures"], settings["n_catch"]
    allowed = f" (a judge may miss at most {most})" if n_catch else ""
    lines.append(
        f"{_counted(n_catch, 'catch trial')}{allowed}, "
        f"{_counted(settings['n_repeats'], 'repeat')}, seed {settings['seed']}"
    )
    return lines


def power_line(n: int, n_stimuli: int) -> str:
    """What `n` choices for so many stimuli can find out."""
    share = detectable(n, ALPHA, POWER)
    if share is None or 2.0 ** (1 - n_stimuli) > ALPHA:  # all of one sign, both ways: no pattern is rarer
        return (
            f"power: none. The test over {_counted(n_stimuli, 'stimulus')} cannot reach p <= {ALPHA}, even if all "
            "choices agree: use more stimuli"
        )
    return (
        f"power: {_counted(n, 'choice')}, if independent, detect a preference of {_percent(share)} or more with "
        f"{_percent(POWER, 0)} probability (exact binomial test, alpha = {ALPHA})"
    )


def markdown(content: Mapping[str, Any]) -> str:
    """The analysis as a page of Markdown."""
    return "\n".join([*_head(content), *_results(content), *_judges(content), *_rules(content)]) + "\n"


def _head(content: Mapping[str, Any]) -> list[str]:
    lines = ["# Blind choice between two pictures", "", f"Question: “{content['question']}”", ""]
    done = sum(judge["answered"] for judge in content["judges"])
    if not content["complete"]:
        lines += [
            f"**Interim: the study is not complete** ({_counted(done, 'answer')} so far; it is complete "
            f"{content['rules']['complete']}).",
            "",
        ]
        if "contrasts" not in content:
            lines += [
                "Results are withheld until then: stopping a study because of its results invalidates its tests.",
                "",
            ]
        else:
            lines += [
                "The numbers below are an interim look. Stopping or continuing because of them invalidates the "
                "p-values: report them as interim.",
                "",
            ]
    if content["interim_looks"]:
        lines += [f"There {_looks(content['interim_looks'])} before the study was complete.", ""]
    if any(run["simulated"] for run in content["runs"]):
        lines += [_SIMULATED, ""]
    leaks = sorted({leak for run in content["runs"] for leak in run["leaks"]})
    return lines + ([f"Warning: {leaks_line(leaks)}.", ""] if leaks else [])


def _looks(n: int) -> str:
    return "was 1 interim look at the results" if n == 1 else f"were {n} interim looks at the results"


def _results(content: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    several = len(content.get("contrasts", ())) > 1
    for row in content.get("contrasts", ()):
        lines += [f"## {row['first']} against {row['second']}", "", *_result(row, content, several=several), ""]
    return lines


def _result(row: Mapping[str, Any], content: Mapping[str, Any], *, several: bool) -> list[str]:
    choices, stimuli, judges = row["choices"], row["stimuli"], row["over_judges"]
    if not choices["n"]:
        return ["There are no choices yet by a judge who is not excluded."]
    p_value = row["p_holm"] if several else stimuli["p"]
    verdict = (
        "no significant preference"
        if p_value > content["rules"]["alpha"]
        else f"significant preference for **{row['second' if choices['share'] > 0.5 else 'first']}**"
    )
    corrected = f", {_p(row['p_holm'])} corrected for {len(content['contrasts'])} comparisons" if several else ""
    over_judges = [_table_row("judges", judges["n"], judges["share"], None, judges["p"], "exact sign-flip")]
    lines = [
        f"{row['second']} was chosen in {choices['second']} of {_counted(choices['n'], 'choice')}. Over "
        f"{_counted(stimuli['n'], 'stimulus')}: {_p(stimuli['p'])} (exact sign-flip test{corrected}): {verdict}.",
        "",
        f"| share of {row['second']} over | n | share | 95 % interval | p | test |",
        "|---|---|---|---|---|---|",
        _table_row(
            "stimuli (primary)",
            stimuli["n"],
            stimuli["share"],
            stimuli["ci95"],
            stimuli["p"],
            "exact sign-flip; bootstrap interval",
        ),
        _table_row(
            "choices", choices["n"], choices["share"], choices["ci95"], choices["p"], "exact binomial; Clopper-Pearson"
        ),
        *(over_judges if judges["n"] > 1 else []),
        *(
            _table_row(
                f"choices of {name}", one["n"], one["share"], one["ci95"], one["p"], "exact binomial; Clopper-Pearson"
            )
            for name, one in row["judges"].items()
            if len(row["judges"]) > 1 and one["n"]
        ),
        "",
    ]
    if judges["n"] > 1:
        lines += [
            "Several judges' choices for one stimulus are not independent. The test over stimuli keeps them together; "
            "the one over choices does not. The test over judges keeps each judge's choices together; with "
            f"{judges['n']} judges its p cannot be below {judges['smallest_p']:.3g}.",
            "",
        ]
    if stimuli["smallest_p"] > content["rules"]["alpha"]:
        lines.append(
            f"With {_counted(stimuli['n'], 'stimulus')} the primary p cannot be below {stimuli['smallest_p']:.3g}: no "
            "preference could have been significant."
        )
    elif choices["detectable"] is not None:
        lines.append(
            f"Power: the planned number of choices, if independent, detects a preference of "
            f"{_percent(choices['detectable'])} with {_percent(POWER, 0)} probability."
        )
    if row["n_identical"]:
        lines.append(
            f"{row['n_identical']} of {_counted(row['n_pairs'], 'pair')} were identical pixel for pixel and were not "
            "shown: the share refers to the pairs that differ."
        )
    return lines


def _judges(content: Mapping[str, Any]) -> list[str]:
    if not content["judges"]:
        return ["No judge has started.", ""]
    rows = [
        "## Judges",
        "",
        "| judge | answered | catch trials missed | repeats consistent | left chosen | median response time | |",
        "|---|---|---|---|---|---|---|",
    ]
    for judge in content["judges"]:
        left, time = judge["left"], judge["median_response_ms"]
        state = "excluded" if judge["excluded"] else "finished" if judge["finished"] else "not finished"
        side = f"{left['left']} of {left['n']} ({_p(left['p'])})" if left["n"] else "–"
        rows.append(
            f"| {judge['judge']} | {judge['answered']} of {judge['planned']} | {judge['catch_failures']} of "
            f"{judge['catch_trials']} | {judge['repeats_consistent']} of {judge['repeats']} | {side} | "
            f"{'–' if time is None else f'{time / 1000:.1f} s'} | {state} |"
        )
    return [*rows, ""]


def _rules(content: Mapping[str, Any]) -> list[str]:
    rules, settings = content["rules"], content["settings"]
    return [
        "## Fixed before the first answer",
        "",
        f"- Primary test: {rules['primary']}; alpha = {rules['alpha']}.",
        f"- Exclusion: {rules['exclusion']}.",
        f"- The study is complete {rules['complete']}.",
        f"- {rules['identical'][0].upper()}{rules['identical'][1:]}; {rules['repeats']}.",
        f"- Pairs, order and sides were drawn with seed {settings['seed']}; answers were accepted once the pictures "
        f"had been shown for {settings['minimum_ms']} ms.",
    ]


def _table_row(what: str, n: int, share: float, interval: Sequence[float] | None, p_value: float, test: str) -> str:
    between = "–" if interval is None else f"{_percent(interval[0])} to {_percent(interval[1])}"
    return f"| {what} | {n} | {_percent(share)} | {between} | {_p(p_value).removeprefix('p = ')} | {test} |"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.4f}" if value < 0.1 else f"p = {value:.2f}"


def _counted(n: int, noun: str) -> str:
    plural = {"stimulus": "stimuli"}.get(noun, f"{noun}s")
    return f"{n} {noun if n == 1 else plural}"
