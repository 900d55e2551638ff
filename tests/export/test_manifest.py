"""What a bundle's manifest says of the checkpoint that it was made of."""

import json
import shutil
from pathlib import Path

from minddiffuser.export.manifest import describe_checkpoint
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint


def test_rois_are_handed_on_where_they_are_known(small_checkpoint: Path, tmp_path: Path) -> None:
    assert "rois" not in describe_checkpoint(open_checkpoint(small_checkpoint))["checkpoint"]
    folder = shutil.copytree(small_checkpoint, tmp_path / "checkpoint")
    path, rois = folder / "checkpoint.json", {"V1": [0, 10], "LO": [10, 24]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rois": rois}))
    assert describe_checkpoint(open_checkpoint(folder))["checkpoint"]["rois"] == rois
