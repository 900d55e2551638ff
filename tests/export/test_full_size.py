"""Stable Diffusion 1.4 and ViT-B/32 at full size with random weights: exported, verified, built for TensorRT-RTX.

Run with: pytest -m full_size tests/export/test_full_size.py   (21 GB of memory, 25 GB of disk, an hour on two cores)
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minddiffuser.export.graphs import NETWORK_GRAPHS
from minddiffuser.export.memory import give_back
from minddiffuser.export.verify.parity import GUIDED_PICTURES, PICTURES, TOLERANCES
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.models.open import load_models

DECODERS = ("decode_context", "decode_latent", "decode_structure")


def write_models(folder: Path, clip: Path) -> None:
    """As the test of the models themselves writes them."""
    path = Path(__file__).parents[1] / "runtime" / "models" / "test_full_size.py"
    spec = importlib.util.spec_from_file_location("full_size_models", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_full_size(folder, clip)


def write_checkpoint(folder: Path, models: Any) -> int:
    """Random sparse decoders; returns the bytes of the weights that a bundle needs, each once."""
    from small_checkpoint import world_of, write_small_checkpoint

    write_small_checkpoint(folder, models.hash, world=world_of(models, "sd14"))
    parts = (models.unet, models.vae.decoder, models.vae.post_quant_conv, models.clip)
    return sum(p.numel() * 4 for part in parts for p in part.parameters())


def md_export(*arguments: object) -> list[str]:
    """Run the command in a process of its own, whose memory is given back; its lines on standard output."""
    command = [sys.executable, "-m", "minddiffuser.export.cli", *map(str, arguments)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert printed.returncode == 0, printed.stdout
    return printed.stdout.splitlines()


@pytest.mark.full_size
@pytest.mark.timeout(10 * 3600)
def test_the_whole_of_stable_diffusion(
    tmp_path: Path, small_world: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small fixtures only make the helpers of the same names importable."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder, clip, checkpoint = tmp_path / "sd14", tmp_path / "ViT-B-32", tmp_path / "checkpoint"
    write_models(folder, clip)
    models = load_models(folder, clip=f"local-dir:{clip}")
    weights = write_checkpoint(checkpoint, models)
    del models
    give_back()

    out = tmp_path / "bundle"
    md_export("bundle", checkpoint, "--models", folder, "--clip", f"local-dir:{clip}", "--out", out)
    bundle = Bundle.open(out)
    assert set(bundle.graphs) == {*NETWORK_GRAPHS, *DECODERS}
    for graph in bundle.graphs.values():
        (variant,) = graph.variants
        assert variant.file.stat().st_size < 1 << 28  # weights lie beside it
        for tensors in variant.parity["inputs"].values():
            for deviation in tensors.values():
                jump, turn = deviation.get("jump", 0.0), deviation.get("turn", 0.0)
                assert jump == 0 or graph.name == "structure_gradient"
                assert jump < 0.1  # of pixels at the edge there are few
                assert turn < 1e-3
                assert deviation["worst"] <= TOLERANCES["fp32"].worst + jump, (graph.name, deviation)
                assert deviation["cosine"] >= TOLERANCES["fp32"].cosine - turn, (graph.name, deviation)
    pictures = bundle.manifest["end_to_end"]["fp32"]
    assert pictures["psnr_db"] >= PICTURES["fp32"].psnr
    assert all(abs(value) <= PICTURES["fp32"].metric for value in pictures["differences"].values())
    assert pictures["guided"]["psnr_db"] >= GUIDED_PICTURES["fp32"].psnr
    # The UNet is in two graphs, the VAE and CLIP in two each: on the disk they are there once.
    assert (out / "engines" / "weights.bin").stat().st_size < 1.1 * weights

    lines = md_export("check", out)
    assert lines[-1] == f"{len(bundle.graphs) + 2} ok"

    md_export("build", out, "--target", "tensorrt-rtx", "--batch", 1, 1, 1)
    built = Bundle.open(out)
    for name in NETWORK_GRAPHS:
        onnx, plan = built.graphs[name].variants
        assert (onnx.target, plan.target, plan.precision) == ("onnx", "tensorrt-rtx", "fp32")
        assert plan.file.stat().st_size > 1 << 20
        assert plan.batch_sizes == (1,)
        relative = onnx.file.relative_to(built.folder).as_posix()
        assert plan.builder["graph"]["sha256"] == built.files[relative].sha256
    assert json.loads(json.dumps(built.manifest["end_to_end"])) == bundle.manifest["end_to_end"]
