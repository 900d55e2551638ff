"""Make bundles of verified engines, verify them again, look into them, and add engines for this machine's GPU."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..runtime.bundle.manifest import DECODE, PRECISIONS
from ..runtime.command import DONE, Parser, add_command, count, program, run_command, tell
from ..runtime.engines.tensorrt.identity import HARDWARE_COMPATIBILITY
from ..runtime.engines.trust import Trust, trust_list, trust_plans
from ..runtime.errors import InputError
from ..runtime.progress import Phases

PROG = "md-export"
CHECK_FAILED = 1
BUILD_TARGETS = ("onnx", "tensorrt", "tensorrt-rtx", "ort-tensorrt")
# Where each is missing, the extra that brings it.
_EXTRAS = {"onnxruntime": "edge", "tensorrt": "gpu", "cuda": "gpu", "tensorrt_rtx": "rtx"} | dict.fromkeys(
    "torch torchvision diffusers transformers open_clip onnx onnxscript onnx_ir ml_dtypes scipy".split(), "export"
)
_UNTRUSTED = "the new engines are not in your list of trusted plans, which has no folder: set HOME or XDG_CONFIG_HOME"
_EXAMPLE = """
example (offline, on the tiny world that comes with the package):
  md-train simulate fmri --out data --seed 7
  md-train fit data --models tiny --out checkpoint
  md-export bundle checkpoint --models tiny --data data --out bundle
  md-export check bundle
  md-reconstruct run bundle data --out run --backprop-steps 4

exit codes: 0 done, 1 a check failed, 2 an error that you can fix, 130 interrupted,
141 the reader of the output closed the pipe.
"""


def parser() -> Parser:
    """The command line of ``md-export``."""
    top, commands = program(PROG, __doc__, _EXAMPLE)
    _add_bundle(commands)
    _add_check(commands)
    _add_inspect(commands)
    _add_build(commands)
    _add_trust(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    return run_command(
        PROG,
        parser,
        argv,
        interrupted="nothing was changed; run the same command again",
        out_of_memory="export fewer graphs at a time with --graphs, or on a machine with more memory",
        extras=_EXTRAS,
    )


def _add_bundle(commands: Any) -> None:
    bundle = add_command(
        commands,
        "bundle",
        _bundle,
        help="export, verify and pack",
        description="Export a checkpoint and its models as a bundle of engines, each verified against PyTorch.",
        epilog=_EXAMPLE,
    )
    bundle.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder that md-train fit wrote")
    bundle.add_argument("--models", default="tiny", help="tiny, a model folder, or a hub id (default: %(default)s)")
    bundle.add_argument(
        "--clip", help="open_clip folder, ARCHITECTURE:PRETRAINED or hf-hub:ID (default: the models' own)"
    )
    bundle.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="output folder, new or empty")
    bundle.add_argument(
        "--force",
        action="store_true",
        help="replace an existing bundle; engines built for it are kept where their graphs are unchanged",
    )
    bundle.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="data folder whose training trials engines are verified and calibrated on (default: responses drawn from "
        "the training statistics)",
    )
    bundle.add_argument(
        "--stimuli-root",
        type=Path,
        metavar="DIR",
        help="the folder that holds the pictures of a data folder that only names them (default: the one it states)",
    )
    bundle.add_argument(
        "--target",
        action="append",
        choices=BUILD_TARGETS,
        help="engines to build in addition to the ONNX graphs; repeatable",
    )
    bundle.add_argument(
        "--precision",
        action="append",
        choices=PRECISIONS,
        help="precision in addition to fp32, which is always included; repeatable",
    )
    bundle.add_argument("--graphs", nargs="+", metavar="GRAPH", help="export only these graphs (default: all)")
    bundle.add_argument(
        "--graphs-from",
        type=Path,
        metavar="BUNDLE",
        help="reuse the networks' graphs of a bundle that was made for the same models with the same libraries, "
        "instead of tracing them again; they are verified like all others",
    )
    bundle.add_argument(
        "--verify-trials", type=count, metavar="N", help="trials to verify on (default: 4, or 1 for large images)"
    )
    bundle.add_argument(
        "--keep-failed",
        type=Path,
        metavar="DIR",
        help="save graphs that are out of tolerance in this folder (new, empty, or from an earlier export)",
    )
    bundle.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: all)")
    _add_trt(bundle)


def _add_check(commands: Any) -> None:
    check = add_command(
        commands,
        "check",
        _check,
        help="verify a bundle on this machine",
        description="Verify hashes, plans, and every engine that runs here against PyTorch's outputs; one line each.",
        epilog="example (offline):\n  md-export check bundle",
    )
    check.add_argument("bundle", type=Path, metavar="BUNDLE")
    check.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: all)")


def _add_inspect(commands: Any) -> None:
    inspect = add_command(
        commands,
        "inspect",
        _inspect,
        help="show what a bundle contains",
        description="Show what a bundle contains, where it comes from, and what it can run on here.",
        epilog="example (offline):\n  md-export inspect bundle",
    )
    inspect.add_argument("bundle", type=Path, metavar="BUNDLE")


def _add_build(commands: Any) -> None:
    build = add_command(
        commands,
        "build",
        _build,
        help="add engines for a GPU",
        description="Build engines from a bundle's graphs, on the machine that will run them, and add them to it.",
        epilog="example (on any machine):\n  md-export build bundle --target tensorrt-rtx",
    )
    build.add_argument("bundle", type=Path, metavar="BUNDLE")
    build.add_argument("--target", required=True, choices=BUILD_TARGETS[1:], help="kind of engine to build")
    build.add_argument(
        "--precision",
        action="append",
        choices=("fp32", "fp16", "bf16"),
        help="precision to build; repeatable (default: all in the bundle)",
    )
    build.add_argument(
        "--graphs", nargs="+", metavar="GRAPH", help="build only these graphs (default: all but the decoders)"
    )
    _add_trt(build)


def _add_trust(commands: Any) -> None:
    trust = add_command(
        commands,
        "trust",
        _trust,
        help="allow a bundle's TensorRT engines to run",
        description="A TensorRT plan is native code: one that was built elsewhere runs only if its SHA-256 is in your "
        "list of trusted plans. This adds all plans of BUNDLE to that list: do so only if you trust whoever made it.",
        epilog="example (offline):\n  md-export trust bundle",
    )
    trust.add_argument("bundle", type=Path, metavar="BUNDLE")


def _add_trt(command: Any) -> None:
    trt = command.add_argument_group("TensorRT")
    trt.add_argument(
        "--batch", type=count, nargs=3, metavar=("MIN", "OPT", "MAX"), help="trials per run (default: 1 1 16)"
    )
    trt.add_argument(
        "--optimization-level",
        type=int,
        choices=range(6),
        metavar="0-5",
        help="0 builds fastest, 5 runs fastest (default: 3)",
    )
    trt.add_argument("--workspace", type=count, metavar="MIB", help="GPU memory limit per kernel, in MiB")
    trt.add_argument("--timing-cache", type=Path, metavar="DIR", help="folder for measured kernel times (tensorrt)")
    trt.add_argument(
        "--hardware-compatibility", choices=HARDWARE_COMPATIBILITY, help="other GPUs that plans also run on (tensorrt)"
    )
    trt.add_argument("--version-compatible", action="store_true", help="plans also run in later releases (tensorrt)")
    trt.add_argument("--strip", action="store_true", help="plans without weights, which are read from the ONNX file")
    trt.add_argument(
        "--compute-capability",
        action="append",
        metavar="X.Y",
        help="GPU to build for, or current; repeatable (tensorrt-rtx)",
    )


def _bundle(args: argparse.Namespace) -> int:
    targets = list(dict.fromkeys(target for target in args.target or () if target != "onnx"))
    settings = {target: _trt_settings(args, target) for target in targets}
    if not targets:
        _refuse_trt_options(args)
    from .bundle.assemble import export_bundle
    from .settings import ExportSettings
    from .tensorrt.build import add_engines, check_target

    choices: dict[str, Any] = {} if args.threads is None else {"threads": args.threads}
    wanted = ExportSettings(
        precisions=tuple(args.precision or ("fp32",)),
        graphs=None if args.graphs is None else tuple(args.graphs),
        n_verify=args.verify_trials,
        graphs_from=args.graphs_from,
        keep_failed=args.keep_failed,
        **choices,
    )
    trusted = trust_list(os.environ)
    for target in targets:
        _check_buildable(wanted, target)
        check_target(target, settings[target])
        if trusted is not None:
            trust_plans(trusted, {})
    with Phases(stream=sys.stderr) as phases:

        def finish(draft: Path) -> None:
            for target in targets:
                add_engines(draft, target, settings[target], trusted, phases)

        export_bundle(
            args.checkpoint,
            args.out,
            wanted,
            models=args.models,
            clip=args.clip,
            data=args.data,
            stimuli_root=args.stimuli_root,
            force=args.force,
            finish=finish,
            rebuilt=targets,
            progress=phases,
            say=_note,
        )
    print(args.out)
    if targets and trusted is None:
        _note(_UNTRUSTED)
    return DONE


def _check(args: argparse.Namespace) -> int:
    from .verify.check import BAD, NOT_RUN, OK, check_bundle

    lines = check_bundle(args.bundle, threads=args.threads, trust=_trust_of_user(), on_line=_say)
    bad = [line for line in lines if line.verdict == BAD]
    n_ok, n_not = (sum(line.verdict == verdict for line in lines) for verdict in (OK, NOT_RUN))
    if bad:
        return tell(PROG, f"{len(bad)} of {len(lines)} checks failed in {args.bundle}", CHECK_FAILED)
    if not n_ok:
        return tell(PROG, f"no engine in {args.bundle} runs on this machine", CHECK_FAILED)
    print(f"{n_ok} ok" + (f", {n_not} not run here" if n_not else ""))
    return DONE


def _inspect(args: argparse.Namespace) -> int:
    from .bundle.inspect import describe

    for line in describe(args.bundle, _trust_of_user()):
        _say(line)
    return DONE


def _build(args: argparse.Namespace) -> int:
    from .tensorrt.build import build_engines

    settings = _trt_settings(args, args.target)
    trusted = trust_list(os.environ)
    with Phases(stream=sys.stderr) as phases:
        build_engines(
            args.bundle,
            args.target,
            settings,
            precisions=args.precision,
            graphs=args.graphs,
            trust_list=trusted,
            progress=phases,
            say=_note,
        )
    print(args.bundle)
    if trusted is None:
        _note(_UNTRUSTED)
    return DONE


def _trust(args: argparse.Namespace) -> int:
    from ..runtime.bundle.manifest import native_files
    from ..runtime.bundle.open import Bundle

    bundle = Bundle.open(args.bundle)
    found: dict[str, str] = {}
    for variant in bundle.variants:
        for name in native_files(variant, bundle.folder, bundle.files):
            found[bundle.files[name].sha256] = f"{name} of {bundle.folder}"
            _say(f"{variant.graph} {variant.target} {variant.precision} {name} {bundle.files[name].sha256}")
    if not found:
        print(f"{args.bundle} holds no built engines: there is nothing to trust")
        return DONE
    file = trust_list(os.environ)
    added = trust_plans(file, found)
    print(f"{added} of {len(found)} added to {file}" if added else f"all {len(found)} are in {file} already")
    return DONE


def _trust_of_user() -> Trust:
    return Trust(file=trust_list(os.environ))


def _note(line: str) -> None:
    """Print a note, which is no result, to stderr."""
    sys.stderr.write(f"{PROG}: {line}\n")


def _check_buildable(wanted: Any, target: str) -> None:
    """Refuse an export that would end without a graph to build from."""
    names = wanted.graphs
    if names is not None and all(name.startswith(DECODE) for name in names):
        raise InputError(
            f"--target {target} builds engines of the networks, and --graphs names decoders alone, which the CPU runs: "
            "leave --target out, or name a network"
        )


def _trt_settings(args: argparse.Namespace, target: str) -> Any:
    from ..runtime.engines.cuda.gpu import find_gpu
    from .tensorrt.settings import TrtSettings

    if target in ("tensorrt", "ort-tensorrt") and find_gpu() is None:
        raise InputError(
            f"build target {target} needs the NVIDIA GPU that the engines are for, and none was found: build on the "
            "machine that has it, or give --target tensorrt-rtx"
        )
    if args.batch is not None and args.batch[0] != 1:
        raise InputError(
            f"--batch begins with {args.batch[0]}: give 1 there, since the last batch of a run may be a single trial"
        )
    if args.batch is not None and not args.batch[0] <= args.batch[1] <= args.batch[2]:
        raise InputError(f"--batch is {' '.join(map(str, args.batch))}: give MIN OPT MAX in rising order")
    if target == "ort-tensorrt":
        _refuse_trt_options(args, but="batch")
        return None if args.batch is None else tuple(args.batch)
    given = {
        "optimization_level": args.optimization_level,
        "workspace_bytes": None if args.workspace is None else args.workspace << 20,
        "timing_cache": args.timing_cache,
        "hardware_compatibility": args.hardware_compatibility,
        "version_compatible": args.version_compatible or None,
        "refit": "strip" if args.strip else None,
        "compute_capabilities": tuple(args.compute_capability) if args.compute_capability else None,
        "profile": {"batch": tuple(args.batch)} if args.batch else None,
    }
    return TrtSettings(target=target, **{name: value for name, value in given.items() if value is not None})


def _refuse_trt_options(args: argparse.Namespace, *, but: str = "") -> None:
    names = ("batch", "optimization_level", "workspace", "timing_cache", "hardware_compatibility", "compute_capability")
    given = [name for name in names if name != but and getattr(args, name) is not None]
    given += [name for name in ("version_compatible", "strip") if getattr(args, name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(
            f"{options} apply only to the build targets tensorrt and tensorrt-rtx: give one with --target, or drop them"
        )


def _say(line: object) -> None:
    """Print a line without control characters, since a bundle from somebody else may hold some."""
    print("".join(letter if letter.isprintable() else "?" for letter in str(line)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
