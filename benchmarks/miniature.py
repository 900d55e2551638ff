"""The paper in miniature as pages: what `md-train experiment` wrote, copied into docs/ with its figure and its command.

python benchmarks/miniature.py FOLDER [--docs docs]

FOLDER holds the experiments' folders, each named as its experiment, beside the data folders. Of each there will be
docs/miniature/NAME.md (table.md and the figure), docs/images/miniature/NAME.png, and docs/measured/miniature/NAME.json
(table.json); docs/results.md, which sums them up, is written by hand. Nothing is computed here, so that the pages say
what was measured. On standard output: how many of each experiment's sentences and rows agree.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from gpu import make_importable

NAMES = ("rois", "features", "retention", "fitting", "semantic", "iterations", "modality", "interpretation")
PARTS = {"docs": "miniature/{}.md", "figure": "images/miniature/{}.png", "numbers": "measured/miniature/{}.json"}


# What the command takes where nothing else is asked for; of interpretation all trials.
DEFAULTS = {"seeds": [42], "n_trials": 32, "full": False, "models": "tiny", "clip": None}


def command_of(name: str, labels: list[str], settings: dict[str, Any]) -> str:
    """The command that gives these numbers.

    Raises
    ------
    ValueError
        It was made with settings of its own, which a page would have to say.
    """
    expected = {**DEFAULTS, **({"n_trials": None} if name == "interpretation" else {})}
    own = [key for key, value in expected.items() if settings[key] != value]
    if own:
        raise ValueError(f"the experiment {name} was made with other settings than the command's own: {', '.join(own)}")
    return f"md-train experiment {name} --data {' '.join(labels)} --out {name} --cache shared"


def page_of(name: str, markdown: str, command: str) -> str:
    """table.md with the command and the figure behind the facts, which are its third paragraph."""
    title, source, facts, rest = markdown.split("\n\n", 3)
    shown = f"```sh\n{command}\n```"
    figure = f"![{title.removeprefix('# ')}](../images/miniature/{name}.png)"
    back = "What it comes to, and why it may differ: [the paper in miniature](../results.md#the-paper-in-miniature)."
    return "\n\n".join([title, source, facts, back, shown, figure, rest.rstrip("\n")]) + "\n"


def verdicts(numbers: dict[str, Any]) -> Counter[str]:
    """How many of the paper's sentences and rows agree, disagree, or are undecided."""
    words = [claim["agreement"] for claim in numbers["claims"]]
    words += [row.get("agreement") for table in numbers["tables"] for row in table["rows"]]
    return Counter(word for word in words if word)


def write_pages(folder: Path, docs: Path) -> dict[str, Counter[str]]:
    """Copy every experiment that is there; returns what is to be said of each."""
    make_importable()
    from minddiffuser.runtime.files import write_bytes

    found = {}
    for name in NAMES:
        out = folder / name
        if not (out / "table.json").is_file():
            continue
        content = (out / "table.json").read_bytes()
        numbers = json.loads(content)
        command = command_of(name, [subject["label"] for subject in numbers["subjects"]], numbers["settings"])
        parts = {
            "docs": page_of(name, (out / "table.md").read_text(encoding="utf-8"), command).encode(),
            "figure": (out / "figure.png").read_bytes(),
            "numbers": content,
        }
        for kind, pattern in PARTS.items():
            path = docs / pattern.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, parts[kind])
        found[name] = verdicts(numbers)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path, default=Path(__file__).resolve().parents[1] / "docs")
    args = parser.parse_args()
    try:
        found = write_pages(args.folder, args.docs)
    except (OSError, ValueError, KeyError) as error:
        print(f"{args.folder} cannot be shown: {error}", file=sys.stderr)
        return 2
    if not found:
        print(f"{args.folder} holds no experiment with a table.json: run md-train experiment there", file=sys.stderr)
        return 2
    for name, words in found.items():
        print(f"{name}: {', '.join(f'{count} {word}' for word, count in sorted(words.items()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
