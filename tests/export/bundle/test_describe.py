"""What a bundle's manifest says of the checkpoint that it was made of."""

import json
import shutil
from pathlib import Path

from minddiffuser.export.bundle.describe import describe_checkpoint
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint


def test_the_layout_is_handed_on_as_it_is(small_checkpoint: Path, tmp_path: Path) -> None:
    given = json.loads((small_checkpoint / "checkpoint.json").read_text())
    assert describe_checkpoint(open_checkpoint(small_checkpoint))["layout"] == given["layout"]
    folder = shutil.copytree(small_checkpoint, tmp_path / "checkpoint")
    rois = {"V1": [0, 10], "all but one": {"indices": [0, 1, *range(3, 24)]}}
    (folder / "checkpoint.json").write_text(json.dumps({**given, "layout": {**given["layout"], "rois": rois}}))
    assert describe_checkpoint(open_checkpoint(folder))["layout"] == {**given["layout"], "rois": rois}
