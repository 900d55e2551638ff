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
    for row in plan["contrasts"]:
        same = f", {row['n_identical']} identical pairs left out" if row["n_identical"] else ""
        lines.append(
            f"{row['first']['label']} against {row['second']['label']}: {_counted(row['n_choices'], 'choice')} by "
            f"{judges}, of {_counted(row['n_pairs'], 'pair')}{same}"
        )
        lines.append(f"  {power_line(row['n_choices'] * settings['n_judges'])}")
    most = plan["rules"]["most_catch_failures"]
    lines.append(
        f"{_counted(settings['n_catch'], 'catch trial')} (at most {most} may be missed), "
        f"{_counted(settings['n_repeats'], 'repeat')}, seed {settings['seed']}"
    )
    return lines


def power_line(n: int) -> str:
    """What so many choices can find out."""
    share = detectable(n, ALPHA, POWER)
    if share is None:
        return f"{_counted(n, 'choice')} can show nothing at alpha = {ALPHA}: even if all agree, p is above it"
    return (
        f"{_counted(n, 'choice')}, were they independent, detect a preference of {_percent(share)} or more with "
        f"{_percent(POWER, 0)} probability at alpha = {ALPHA} (exact binomial test)"
    )


def markdown(content: Mapping[str, Any]) -> str:
    """The analysis as a page of Markdown."""
    return "\n".join([*_head(content), *_results(content), *_judges(content), *_rules(content)]) + "\n"


def _head(content: Mapping[str, Any]) -> list[str]:
    lines = ["# Blind choice between two pictures", "", f"Question: “{content['question']}”", ""]
    done = sum(judge["answered"] for judge in content["judges"])
    if not content["complete"]:
        lines += [
            f"**Interim: the planned number of choices is not reached** ({done} answers so far; complete "
            f"{content['rules']['complete']}).",
            "",
        ]
        if "contrasts" not in content:
            lines += ["No result is given before that, since a study must not be stopped by what it shows.", ""]
        else:
            lines += [
                "The numbers below are an early look. Whoever stops or goes on by them makes the p-values wrong: "
                "report them as interim.",
                "",
            ]
    if content["interim_looks"]:
        lines += [f"There {_looks(content['interim_looks'])} before the planned number was reached.", ""]
    if any(run["simulated"] for run in content["runs"]):
        lines += [_SIMULATED, ""]
    leaks = sorted({leak for run in content["runs"] for leak in run["leaks"]})
    return lines + ([f"Warning: {leaks_line(leaks)}.", ""] if leaks else [])


def _looks(n: int) -> str:
    return "was 1 look at the results" if n == 1 else f"were {n} looks at the results"


def _results(content: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    several = len(content.get("contrasts", ())) > 1
    for row in content.get("contrasts", ()):
        lines += [f"## {row['first']} against {row['second']}", "", *_result(row, content, several=several), ""]
    return lines


def _result(row: Mapping[str, Any], content: Mapping[str, Any], *, several: bool) -> list[str]:
    choices, stimuli, judges = row["choices"], row["stimuli"], row["over_judges"]
    if not choices["n"]:
        return ["No judge that is not excluded has chosen yet."]
    p_value = row["p_holm"] if several else stimuli["p"]
    verdict = (
        "no preference beyond guessing was found"
        if p_value > content["rules"]["alpha"]
        else f"**{row['second' if choices['share'] > 0.5 else 'first']}** was preferred beyond guessing"
    )
    corrected = f", {_p(row['p_holm'])} corrected for {len(content['contrasts'])} comparisons" if several else ""
    over_judges = [_table_row("judges", judges["n"], judges["share"], None, judges["p"], "exact sign flip")]
    lines = [
        f"{row['second']} was chosen in {choices['second']} of {_counted(choices['n'], 'choice')}. Over "
        f"{_counted(stimuli['n'], 'stimulus')}: {_p(stimuli['p'])} (exact sign flip{corrected}); {verdict}.",
        "",
        f"| share of {row['second']} over | n | share | 95 % interval | p | test |",
        "|---|---|---|---|---|---|",
        _table_row(
            "stimuli (primary)",
            stimuli["n"],
            stimuli["share"],
            stimuli["ci95"],
            stimuli["p"],
            "exact sign flip; bootstrap interval",
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
            "Choices of one stimulus by several judges are not independent: the test over stimuli keeps them together, "
            "the one over choices does not. The test over judges keeps each judge's together: with "
            f"{judges['n']} judges no p below {judges['smallest_p']:.3g} is possible.",
            "",
        ]
    if choices["detectable"] is not None:
        lines.append(
            f"The planned number detects a preference of {_percent(choices['detectable'])} with "
            f"{_percent(POWER, 0)} probability, were the choices independent."
        )
    if row["n_identical"]:
        lines.append(
            f"{row['n_identical']} of {_counted(row['n_pairs'], 'pair')} are identical pixel for pixel and were not "
            "shown: the share is of pairs that differ."
        )
    return lines


def _judges(content: Mapping[str, Any]) -> list[str]:
    if not content["judges"]:
        return ["No judge has begun.", ""]
    rows = [
        "## Judges",
        "",
        "| judge | answered | catch trials missed | repeats alike | left chosen | median time | |",
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
        f"- Complete {rules['complete']}.",
        f"- {rules['identical'][0].upper()}{rules['identical'][1:]}; {rules['repeats']}.",
        f"- Order, sides and pairs were drawn with seed {settings['seed']}; an answer counted after "
        f"{settings['minimum_ms']} ms.",
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
