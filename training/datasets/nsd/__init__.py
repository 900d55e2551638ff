"""The Natural Scenes Dataset (Allen et al. 2022), fMRI: its own files, and arrays that others have prepared of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....runtime.errors import FileError, InputError
from ..reader import DataSet, Reader
from .files import Subject, sessions_of
from .prepared import Prepared, is_prepared
from .rois import ATLASES, MASKS
from .sessions import Z_SCORES, Sessions, SessionSettings

_EXAMPLE = """\
  md-train simulate fmri --format nsd --out nsd_miniature --seed 7
  md-train prepare nsd nsd_miniature --subject 1 --image-size 64 --out data
"""


def open_nsd(  # noqa: PLR0913 (the command's options)
    source: Path,
    *,
    subject: int,
    memory: int,
    sessions: tuple[int, ...] | None = None,
    mask: Sequence[str] | None = None,
    atlas: Sequence[str] | None = None,
    space: str = "func1pt8mm",
    betas: str = "betas_fithrf_GLMdenoise_RR",
    z_score: str = "none",
    coco: Path | None = None,
    caption: str | None = None,
) -> Reader:
    """Find and check a subject's files; the options are those of ``md-train prepare nsd``.

    Raises
    ------
    FileError
        A file is missing, truncated or another one.
    InputError
        An option is given that does not go with the files.
    """
    if not source.is_dir():
        raise FileError(f"{source} is not a folder: give the folder that holds nsddata and nsddata_betas")
    who = Subject(source=source, number=subject, space=space, betas=betas)
    folder = is_prepared(who)
    if folder is not None:
        given = {"--sessions": sessions, "--mask": mask, "--z-score": None if z_score == "none" else z_score}
        for option, value in given.items():
            if value is not None:
                raise InputError(
                    f"{option} is given, and {folder} holds arrays that are prepared already: leave it out"
                )
        return Prepared(folder, who, coco=coco, caption=caption, atlases=atlas or ATLASES)
    settings = SessionSettings(
        sessions=sessions,
        masks=tuple(mask or MASKS),
        atlases=None if atlas is None else tuple(atlas),
        z_score=z_score,
        caption=caption,
        coco=coco,
    )
    return Sessions(who, settings, memory=memory, atlases=ATLASES)


def _add_options(command: Any) -> None:
    command.add_argument(
        "--sessions", type=_sessions, metavar="N-M", help="sessions to read, such as 1-37 (default: all there are)"
    )
    command.add_argument(
        "--mask",
        action="append",
        metavar="NAME",
        help=f"read the voxels above 0 in roi/NAME.nii.gz; repeatable (default: {', '.join(MASKS)})",
    )
    command.add_argument(
        "--atlas",
        action="append",
        metavar="NAME",
        help="name regions by roi/NAME.nii.gz, such as HCP_MMP1; repeatable (default: those there are of "
        f"{', '.join(ATLASES)})",
    )
    command.add_argument(
        "--space", default="func1pt8mm", help="func1pt8mm or func1mm, the volumes' resolution (default: %(default)s)"
    )
    command.add_argument(
        "--betas",
        default="betas_fithrf_GLMdenoise_RR",
        metavar="VERSION",
        help="which estimate of the responses (default: %(default)s)",
    )
    command.add_argument(
        "--z-score",
        choices=tuple(Z_SCORES),
        default="none",
        help="z-score each voxel within each session, by its training trials, or by all of its trials, test trials "
        "among them: a leak, as in some published preparations (default: %(default)s)",
    )
    command.add_argument(
        "--coco", type=Path, metavar="DIR", help="folder of captions_train2017.json and captions_val2017.json"
    )
    command.add_argument(
        "--caption", metavar="TEXT", help="one caption for every picture, where COCO's captions are not at hand"
    )


def _sessions(text: str) -> tuple[int, ...]:
    try:
        return sessions_of(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


NSD = DataSet(
    help="Natural Scenes Dataset, fMRI",
    description="The Natural Scenes Dataset (Allen et al. 2022). SOURCE holds nsddata, nsddata_betas and "
    "nsddata_stimuli as NSD's bucket does, or the arrays that Brain-Diffuser's or MindDiffuser's scripts have made of "
    "them. Test pictures are the 1,000 that all subjects saw.",
    example=_EXAMPLE,
    open=open_nsd,
    add_options=_add_options,
    averages=("train", "test"),
)
