"""Run folder ▶ report.html: one self-contained file that can be mailed, printed and read on a phone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from ..data.json_types import number_or_none
from ..files import write_bytes
from ..leaks import FIELD as LEAKS
from ..leaks import leaks_line
from .cards import card, glance, sort_options
from .contents import RunContents, mapping_or_empty, read_run
from .decoded import decoded_section
from .evidence import evidence_section
from .metrics import metrics_section, verdicts
from .refiners import refiner_words
from .words import caveat_of, counted, explanation

MOST_TRIALS = 512
_DEEPEST = 20
_PARTS = ("given", "settings", "versions", "hashes", "data")


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path.

    Nothing but the run folder is read. Without stimuli or metrics the page holds the pictures alone.

    Raises
    ------
    FileError
        The folder holds no picture, one of its files is damaged, or the page cannot be written.
    """
    run = Path(run)
    path = run / "report.html"
    write_bytes(path, page(read_run(run)).encode(errors="replace"))  # what JSON may escape, UTF-8 may not hold
    return path


def page(contents: RunContents) -> str:
    """The whole page as HTML. Every text that comes from a file is escaped."""
    style, script = _part("page.css"), _part("page.js")
    shown = contents.trials[:MOST_TRIALS]
    caveat = caveat_of(mapping_or_empty(contents.settings.get("data")))
    metrics = metrics_section(contents.summary, caveat=caveat)
    decoded = decoded_section(contents.summary)
    evidence = evidence_section(contents.evidence)
    return Template(_part("page.html")).substitute(
        policy=_policy(style, script),
        title=escape(f"{_heading(contents)} · MindDiffuser"),
        style=style,
        script=script,
        navigation=_navigation(
            evidence=bool(evidence), metrics=bool(metrics), decoded=bool(decoded), settings=bool(contents.settings)
        ),
        heading=escape(_heading(contents)),
        banner=_banner(contents),
        facts=_facts(contents),
        explanation=explanation(
            caveat=caveat,
            stage2=refiner_words(contents.settings).does,
            has_stage2="stage2" in contents.pictures,
        ),
        glance=glance(contents.trials),
        verdicts=verdicts(contents.summary),
        notes=_notes(contents.settings, contents.summary),
        evidence=evidence,
        metrics=metrics,
        decoded=decoded,
        trials_hint=_trials_hint(contents, len(shown)),
        sort_options=sort_options(shown),
        cards="\n".join(card(trial, refiner_words(contents.settings)) for trial in shown),
        failed=_listed(contents.summary, "failed", "Failed trials"),
        skipped=_listed(contents.summary, "skipped", "Skipped trials"),
        settings=_settings(contents),
        version=_version(contents),
    )


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """A content security policy that allows this very style, this very script and embedded pictures: nothing else."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; img-src data:; style-src {source(style)}; script-src {source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _version(contents: RunContents) -> str:
    version = mapping_or_empty(contents.settings.get("versions")).get("minddiffuser")
    return escape(f" {version}") if version else ""


def _heading(contents: RunContents) -> str:
    if "stimulus" in contents.pictures:
        return "What was shown, and what was reconstructed from brain responses"
    return "Pictures reconstructed from brain responses"


def _facts(contents: RunContents) -> str:
    data, settings, given = (mapping_or_empty(contents.settings.get(name)) for name in ("data", "settings", "given"))
    facts = [counted(len(contents.trials), "trial")]
    if data.get("subject"):
        facts.append(f"subject {data['subject']}")
    if given.get("models"):
        facts.append(f"models {given['models']}")
    refined = refiner_words(contents.settings).fact(mapping_or_empty(settings.get("refine")))
    if refined is not None and "stage2" in contents.pictures:
        facts.append(refined)
    seconds = [number_or_none(value) for value in mapping_or_empty(contents.summary.get("seconds")).values()]
    total = sum(value for value in seconds if value is not None)
    if total > 0:
        facts.append(f"{total:.0f} s of computing" if total < 120 else f"{total / 60:.1f} min of computing")
    return escape(" · ".join(facts))


def _banner(contents: RunContents) -> str:
    """That the decoders were fitted with a leak on purpose, before anything else."""
    found = contents.settings.get(LEAKS) or contents.summary.get(LEAKS)
    names = [str(name) for name in found] if isinstance(found, list) else []
    if not names:
        return ""
    line = leaks_line(names)
    return f'<p class="leaks" role="note"><strong>With a leak.</strong> {escape(line[0].upper() + line[1:])}.</p>'


def _notes(*parts: Mapping[str, Any]) -> str:
    """The user's notes in settings.json, and those of summary.json about what could not be measured."""
    lists = [part.get("notes") for part in parts]
    notes = [note for some in lists if isinstance(some, list) for note in some]
    lines = "".join(f"<p>{escape(str(note))}</p>" for note in notes)
    return f'<aside class="notes" aria-label="About this run">{lines}</aside>' if lines else ""


def _navigation(*, evidence: bool, metrics: bool, decoded: bool, settings: bool) -> str:
    links = [
        ("evidence", "Evidence", evidence),
        ("metrics", "Metrics", metrics),
        ("decoded", "Decoded features", decoded),
        ("trials", "Trials", True),
        ("settings", "Settings", settings),
    ]
    return "".join(f'<a href="#{anchor}">{label}</a>' for anchor, label, there in links if there)


def _trials_hint(contents: RunContents, n_shown: int) -> str:
    words = []
    if n_shown < len(contents.trials):
        words.append(f"The first {n_shown} of {len(contents.trials)} trials; all pictures are in the run folder.")
    if any(trial.loss for trial in contents.trials):
        words.append(refiner_words(contents.settings).curve)
    if any(trial.metrics for trial in contents.trials):
        words.append("Metrics are those of stage 2, with the change from stage 1.")
    return escape(" ".join(words))


def _listed(summary: Mapping[str, Any], key: str, title: str) -> str:
    """A section of trials with their reasons. A failed trial that has a picture says so on its card."""
    entries = summary.get(key)
    rows = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    rows = [row for row in rows if row.get("picture") is not True]
    if not rows:
        return ""
    items = "".join(f"<li>Trial {escape(_name(row))}: {escape(_text(row.get('reason')))}</li>" for row in rows)
    return (
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>'
        f'<ul class="skipped-list">{items}</ul></section>'
    )


def _name(row: Mapping[str, Any]) -> str:
    """A trial's number, and its id where there is one."""
    number = _text(row.get("trial"))
    return f"{number} ({_text(row['id'])})" if "id" in row else number


def _settings(contents: RunContents) -> str:
    if not contents.settings:
        return ""
    parts = [name for name in _PARTS if contents.settings.get(name)]
    body = "".join(_settings_part(name.capitalize(), contents.settings[name]) for name in parts)
    seconds = contents.summary.get("seconds")
    body += _settings_part("Seconds", seconds) if seconds else ""
    return (
        '<section id="settings" aria-labelledby="settings-title"><h2 id="settings-title">Settings</h2>'
        '<p class="hint">Everything that decides the pictures of this run.</p>'
        f'<table class="settings-table"><tbody>{body}</tbody></table></section>'
    )


def _settings_part(title: str, content: object) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(_text(value))}</td></tr>' for name, value in _flat(content)
    )
    return f'<tr class="part"><th scope="rowgroup" colspan="2">{escape(title)}</th></tr>{rows}'


def _flat(content: object, prefix: str = "", depth: int = 0) -> list[tuple[str, object]]:
    if not isinstance(content, dict) or depth > _DEEPEST:
        return [(prefix or "value", content)]
    return [pair for key, value in content.items() for pair in _flat(value, f"{prefix} {key}".strip(), depth + 1)]


def _text(value: object, depth: int = 0) -> str:
    if depth > _DEEPEST:
        return "…"  # no setting of ours lies so deep
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item, depth + 1)}" for name, item in value.items())
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if number_or_none(value) is None else f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_text(item, depth + 1) for item in value)
    return str(value)
