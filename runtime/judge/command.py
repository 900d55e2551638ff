"""``md-reconstruct judge`` and ``judged``: their options, and what they run."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..command import DONE, add_command, count
from ..errors import InputError
from ..progress import Phases, Progress

_EXAMPLE = """
example (offline, with the demonstration's run):
  md-reconstruct demo --out demo
  md-reconstruct judge demo/run --out study --judge anna
  md-reconstruct judge demo/run --out trust --compare stage1:stage2 --compare shuffled:stage2
  md-reconstruct judged study

a judge that stopped goes on with the same command; the run folders may then be left out.
"""
_ANALYSE_EXAMPLE = """
example (offline, after md-reconstruct judge demo/run --out study):
  md-reconstruct judged study
"""
_TICK_S = 0.2


def add_judge(commands: Any) -> None:
    """Add the command that plans a study and serves its page."""
    judge = add_command(
        commands,
        "judge",
        _judge,
        help="let people choose blindly which picture is closer",
        description="Plan a blind two-alternative choice between pictures of RUNs, and serve its page to one judge: "
        "which of two pictures is closer to the stimulus? All that decides the result is drawn from the seed and "
        "written before the first answer.",
        epilog=_EXAMPLE,
    )
    judge.add_argument(
        "runs", type=Path, nargs="*", metavar="RUN", help="run folders with stimuli; none to go on with a study"
    )
    judge.add_argument("--out", type=Path, required=True, metavar="STUDY", help="folder of the study: new, or there")
    plan = judge.add_argument_group("the plan (fixed before the first answer)")
    plan.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="KIND:KIND",
        help="two kinds of picture, such as stage1:stage2 or shuffled:stage2, or one kind of two runs, such as stage2; "
        "repeatable, each is tested (default: stage1:stage2)",
    )
    numbers: Mapping[str, tuple[Callable[[str], int], str, str]] = {
        "n_choices": (count, "N", "choices of each judge and comparison (default: one for each pair, at most 100)"),
        "n_judges": (count, "N", "judges (default: 1)"),
        "n_catch": (int, "N", "trials with the stimulus itself among the two (default: a tenth of the choices, at "
        "least 5); who misses more than a guesser would in one of twenty cases is excluded"),
        "n_repeats": (int, "N", "choices that come again, sides exchanged (default: 0)"),
        "minimum_ms": (int, "MS", "time that the pictures are shown before an answer counts (default: 400)"),
        "seed": (int, "S", "seed of pairs, order and sides (default: 0)"),
    }  # fmt: skip
    for name, (kind, metavar, text) in numbers.items():
        option = {"n_catch": "--catch", "n_repeats": "--repeats"}.get(name, f"--{name.replace('_', '-')}")
        # What is left out is no attribute: a study that is there has its own.
        plan.add_argument(option, dest=name, type=kind, metavar=metavar, default=argparse.SUPPRESS, help=text)
    judge.add_argument(
        "--judge", default="judge", metavar="NAME", help="who answers; each has an order of their own (default: judge)"
    )
    judge.add_argument("--port", type=int, default=0, metavar="P", help="port of the page (default: a free one)")
    judge.add_argument(
        "--lan",
        nargs="?",
        const=True,  # a text would be taken for an address
        type=_address,
        metavar="ADDRESS",
        help="listen in the network, for a phone: on the address that leads out, or on this one of the machine. The "
        "page is then sent unencrypted (default: this machine alone)",
    )


def add_judged(commands: Any) -> None:
    """Add the command that analyses a study."""
    judged = add_command(
        commands,
        "judged",
        _judged,
        help="analyse what judges chose",
        description="Write STUDY/analysis.json and analysis.md, and print the latter. Before the planned number of "
        "choices is reached it says how far the judges are, and nothing of the result.",
        epilog=_ANALYSE_EXAMPLE,
    )
    judged.add_argument("study", type=Path, metavar="STUDY", help="folder of md-reconstruct judge")
    judged.add_argument(
        "--interim",
        action="store_true",
        help="give the result so far, labelled as interim; the look is kept and later analyses say so",
    )


def _judge(args: argparse.Namespace) -> int:
    from .answers import AnswerFile
    from .judges import admit
    from .plan import StudySettings
    from .session import Session
    from .study import check_judge, plan_study
    from .text import plan_lines

    name = check_judge(args.judge)
    given = {field: getattr(args, field) for field in StudySettings.__dataclass_fields__ if hasattr(args, field)}
    with Phases(stream=sys.stderr) as phases:
        study = plan_study(args.out, args.runs, args.compare, given, phases)
    for line in plan_lines(study.plan):
        _say(line)
    with study.lock_judge(name):
        order = admit(study, name)
        with AnswerFile(study.answers(name), order.hash) as answers:
            session = Session(study, order, answers, time.monotonic, _now)
            if session.finished:
                _say(f"{name} has answered everything: {session.n_all} of {session.n_all}")
            else:
                _serve(session, name, args)
    print(study.answers(name))
    _say(f"analyse the study with: md-reconstruct judged {args.out}")
    return DONE


def _serve(session: Any, name: str, args: argparse.Namespace) -> None:
    """Show the page until everything is answered."""
    from ..web.door import HOST
    from ..web.invite import invite
    from .server import JudgeServer

    host = HOST if args.lan is None else _lan_host(args.lan)
    with (
        JudgeServer(session, port=args.port, host=host, said=_say) as server,
        Progress(session.n_all, f"answers of {name}", stream=sys.stderr, done=session.n_done) as progress,
    ):
        if host == HOST:
            lines = invite("judge", server.address(), server.port, os.environ)
        else:
            lines = [
                f"judge: open this on the phone: {server.address()}",
                "  (it opens one browser, once; pictures and answers go through the network unencrypted)",
            ]
        for line in lines:
            _say(line)
        while not server.finished.wait(_TICK_S):
            if session.n_done > progress.done:  # a log would fill with lines while the judge thinks
                progress(session.n_done)
        progress(session.n_done)


def _lan_host(given: str | bool) -> str:
    from ..web.listen import network_address

    found = given if isinstance(given, str) else network_address()
    if found is None:
        raise InputError("this machine is in no network: connect it, or give one of its addresses, --lan ADDRESS")
    return found


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address such as 192.168.1.7: give one, or --lan behind the run folders"
        ) from None


def _judged(args: argparse.Namespace) -> int:
    from .analysis import analyse, write_analysis
    from .study import open_study
    from .text import markdown

    study = open_study(args.study)
    content = analyse(study, interim=args.interim, now=_now)
    for path in write_analysis(study, content):
        _say(f"written: {path}")
    print(markdown(content), end="")
    return DONE


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
