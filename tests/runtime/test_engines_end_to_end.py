"""The tiny world exported by md-export's own code: both stages on ONNX Runtime reach PyTorch's pictures."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.export.verify.parity import psnr
from minddiffuser.runtime import cli
from minddiffuser.runtime.backends.base import Backend, Options, Start
from minddiffuser.runtime.backends.bundle import BundleBackend
from minddiffuser.runtime.backends.torch import TorchBackend
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.data.trial_ids import row_ids
from minddiffuser.runtime.decoders.belonging import Decoded
from minddiffuser.runtime.decoders.bundle import BundleDecoder
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
from minddiffuser.runtime.generators.ddim import ddim_update
from minddiffuser.runtime.generators.noise import trial_noise
from minddiffuser.runtime.images import read_image, write_png
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine import refine
from minddiffuser.runtime.refine.adam import minimise
from minddiffuser.runtime.refine.base import Problem, Refined
from minddiffuser.runtime.refine.settings import AdamSettings, GuidedSettings
from minddiffuser.runtime.refine.weights import StructuralWeights
from minddiffuser.runtime.sampling import Sampling


@pytest.fixture(scope="module")
def rows(readme_story: Any) -> np.ndarray:
    """What the simulated subject answered to two held-out pictures."""
    return open_data(readme_story.until("simulate") / "data").responses("test")


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models("tiny")


@pytest.fixture(scope="module")
def engines(tiny_bundle: Path) -> Iterator[EngineSet]:
    with EngineSet(Bundle.open(tiny_bundle), EngineSettings(backend="ort", threads=1)) as opened:
        yield opened


@pytest.fixture(scope="module")
def decoder(engines: EngineSet) -> BundleDecoder:
    return BundleDecoder(engines.bundle, engines)


@pytest.fixture(scope="module")
def decoded(decoder: BundleDecoder, rows: np.ndarray) -> Decoded:
    return decoder.decode(rows)


@pytest.fixture(scope="module")
def both(engines: EngineSet, models: Models) -> dict[str, Backend[Any]]:
    decoder = BundleDecoder(engines.bundle, engines)
    return {
        "pytorch": TorchBackend(decoder, Options(checkpointing="off"), {}, models=models),
        "engines": BundleBackend(engines),
    }


def generator_of(backend: Backend[Any], decoded: Decoded, backprop_steps: int | None) -> Any:
    noise = trial_noise(42, row_ids(len(decoded.latent)), backend.latent_shape)
    return backend.generator(decoded, noise, backprop_steps=backprop_steps)


def as_numpy(array: Any) -> np.ndarray:
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)


def row_errors(found: Any, expected: Any) -> np.ndarray:
    """Each row's distance to the reference, as a share of its length."""
    reference = as_numpy(expected).astype(np.float64).reshape(len(expected), -1)
    error = np.linalg.norm(as_numpy(found).reshape(len(reference), -1) - reference, axis=1)
    return np.asarray(error / np.linalg.norm(reference, axis=1))


def test_features_are_those_of_the_checkpoint(decoded: Decoded, fitted_checkpoint: Path, rows: np.ndarray) -> None:
    expected = open_checkpoint(fitted_checkpoint).decode(rows)
    for field in fields(expected):
        reference, found = getattr(expected, field.name), getattr(decoded, field.name)
        assert found.shape == reference.shape
        assert reference.std() > 0.1
        np.testing.assert_allclose(found, reference, rtol=1e-4, atol=1e-4)


def test_stage_1_is_pytorchs_picture(both: dict[str, Backend[Any]], decoded: Decoded) -> None:
    images = {k: as_numpy(generator_of(v, decoded, None).stage1()) for k, v in both.items()}
    assert images["pytorch"].std() > 0.05
    assert np.abs(images["pytorch"][0] - images["pytorch"][1]).max() > 0.1
    np.testing.assert_allclose(images["engines"], images["pytorch"], atol=1e-3)


@pytest.mark.parametrize("k", [0, 17, 34])
def test_the_steps_are_pytorchs(both: dict[str, Backend[Any]], decoded: Decoded, k: int) -> None:
    """What guidance inside the sampler takes: estimate, noise, and the gradient pulled back through the network."""
    x, found = None, {}
    rng = np.random.default_rng(k)
    noise, v = (rng.standard_normal(decoded.latent.shape).astype(np.float32) for _ in range(2))
    for name, backend in both.items():
        sampler = generator_of(backend, decoded, None)
        kind: Any = torch.from_numpy if name == "pytorch" else np.asarray
        x = as_numpy(sampler.start(noise))
        found[name] = [*sampler.predict(kind(x), k), sampler.linearise(kind(x), k)[2](kind(v))]
    for ours, theirs in zip(found["engines"], found["pytorch"], strict=True):
        assert row_errors(ours, theirs).max() < 1e-4  # as the gate's: float32 sums taken in another order


def test_the_structural_gradient_is_pytorchs(both: dict[str, Backend[Any]], decoded: Decoded) -> None:
    mask = both["pytorch"].decoder.mask
    weights = StructuralWeights.of_settings(AdamSettings(), decoded.structure, mask)
    found = both["engines"].structural(decoded.latent, decoded.structure, weights)
    expected = both["pytorch"].structural(torch.from_numpy(decoded.latent), decoded.structure, weights)
    for ours, theirs in zip(found, expected, strict=True):
        assert row_errors(ours, theirs).max() < 1e-4


FORMS = {
    "truncated": AdamSettings(steps=3, backprop_steps=2, semantic_weight=0.1),
    "latent alone": AdamSettings(steps=3, backprop_steps=0, layer_weights="reference", loss_mean="all"),
    "full": AdamSettings(steps=1, learning_rate=5e-4),  # through all steps a loss falls along short ways only
}


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=pytest.mark.long if form == "full" else ()) for form in FORMS]
)
def test_stage_2_reaches_pytorchs_picture(form: str, both: dict[str, Backend[Any]], decoded: Decoded) -> None:
    settings = FORMS[form]
    first: dict[str, tuple[Any, Any, Any]] = {}
    found: dict[str, Refined] = {}
    for name, backend in both.items():
        generator = generator_of(backend, decoded, settings.backprop_steps)
        objective: Any = backend.objective(generator, decoded.structure, settings, decoded.semantic)
        real = objective.value_and_gradient

        def once(params: Any, *, name: str = name, real: Any = real) -> Any:
            result = real(params)
            first.setdefault(name, result)
            return result

        objective.value_and_gradient = once
        found[name] = minimise(objective, generator.initial(), settings)
    gradients, expected = first["engines"][1], first["pytorch"][1]
    assert set(gradients) == set(expected) == ({"latent"} if form == "latent alone" else {"latent", "context"})
    for name, gradient in expected.items():
        reference = as_numpy(gradient).reshape(len(gradient), -1).astype(np.float64)
        norms = np.linalg.norm(reference, axis=1)
        assert norms.min() > 0
        error = np.linalg.norm(gradients[name].reshape(len(gradient), -1) - reference, axis=1)
        assert (error / norms).max() < 1e-4, name
    np.testing.assert_allclose(found["engines"].loss_curve, found["pytorch"].loss_curve, rtol=1e-3)
    stage1, image = as_numpy(first["pytorch"][2]), as_numpy(found["pytorch"].image)
    assert np.abs(image - stage1).max() > 0.01, "the refinement moves the pictures"
    assert (found["pytorch"].loss_curve[-1] < found["pytorch"].loss_curve[0]).all()
    np.testing.assert_allclose(found["engines"].image, image, atol=1e-3)


# Of a size at which guidance enlarges differences some hundred times from the first step to the last, so that float32
# comes out as float32 by PyTorch does; with steps of 0.25 it is a million times, and PyTorch's own float32 and float64
# part in some trials.
PASS = GuidedSettings(
    candidates=1,
    start_steps=0,
    finish_steps=0,
    n_steps=25,
    strength=0.56,
    guided_share=0.7,
    step_size=0.1,
    semantic_weight=0.0,
)
# A descent of smaller steps than the default, for the same reason: see docs/engines.md, Verification.
SEVERAL = replace(
    PASS,
    candidates=3,
    start_steps=4,
    start_step_size=0.03,
    finish_steps=4,
    finish_step_size=0.03,
    n_steps=12,
    strength=0.5,
    semantic_weight=0.1,
)


def guided(backend: Backend[Any], decoded: Decoded, settings: GuidedSettings, at: Any = None) -> Refined:
    """Stage 2 by the guided refiner; `at` is called with the sampler, x and step whenever one is guided."""

    def noise(candidate: int) -> np.ndarray:
        return trial_noise(42, row_ids(len(decoded.latent)), backend.latent_shape, candidate)

    class Computing:
        structural = staticmethod(backend.structural)

        @staticmethod
        def generator(*given: Any) -> Any:
            sampler = backend.generator(*given)
            real = sampler.linearise

            def linearise(x: Any, k: int) -> Any:
                if at is not None:
                    at(x, k)
                return real(x, k)

            sampler.linearise = linearise
            return sampler

    generator = backend.generator(decoded, noise(0))
    problem = Problem(
        backend=Computing(),
        start=lambda rows: Start(context=decoded.context[list(rows)], latent=decoded.latent[list(rows)]),
        noise=noise,
        generator=generator,
        stage1=generator.stage1(),
        sampling=Sampling(),
        target=decoded.structure,
        mask=backend.decoder.mask,
        semantic=decoded.semantic,
        rows_at_once=4,
    )
    return refine(problem, settings, lambda _step: None)


@pytest.mark.long
def test_each_guided_step_is_pytorchs(both: dict[str, Backend[Any]], decoded: Decoded) -> None:
    """From the same x: what is guided, and where it leads. x is that of PyTorch's own pass."""
    seen: dict[int, np.ndarray] = {}
    guided(both["pytorch"], decoded, PASS, at=lambda x, k: seen.update({k: as_numpy(x)}))
    assert list(seen) == list(range(10))
    weights = StructuralWeights.of_settings(PASS, decoded.structure, both["pytorch"].decoder.mask)
    for k, x in seen.items():
        after: dict[str, Any] = {}
        for name, backend in both.items():
            sampler = backend.generator(decoded, x, PASS.sampling(Sampling()))
            kind: Any = torch.from_numpy if name == "pytorch" else np.asarray
            (_, keep, keep_next) = list(sampler.schedule)[k]
            clean, noise, pull_back = sampler.linearise(kind(x), k)
            gradient = as_numpy(pull_back(backend.structural(clean, decoded.structure, weights)[1]))
            lengths = np.linalg.norm(gradient.reshape(len(x), -1).astype(np.float64), axis=1)[:, None, None, None]
            step = PASS.step_size * ((1 - keep) * x[0].size) ** 0.5 * gradient / lengths
            after[name] = ddim_update(x, as_numpy(noise), keep, keep_next) - step
            assert (lengths > 0).all()
        # As the gate's: float32 sums taken in another order.
        assert row_errors(after["engines"], after["pytorch"]).max() < 1e-4, k


def test_a_guided_pass_reaches_pytorchs_picture(both: dict[str, Backend[Any]], decoded: Decoded) -> None:
    found = {name: guided(backend, decoded, PASS) for name, backend in both.items()}
    image, expected = (as_numpy(found[name].image) for name in ("engines", "pytorch"))
    plain = as_numpy(guided(both["pytorch"], decoded, replace(PASS, step_size=0.0)).image)
    assert psnr(plain, expected) < 30, "guidance changes the pictures"
    assert psnr(image, expected) >= 40


@pytest.mark.long
def test_a_search_keeps_pytorchs_candidates(both: dict[str, Backend[Any]], decoded: Decoded) -> None:
    found = {name: guided(backend, decoded, SEVERAL) for name, backend in both.items()}
    losses, expected = (found[name].candidate_losses for name in ("engines", "pytorch"))
    assert losses.shape == (3, len(decoded.latent))
    np.testing.assert_allclose(losses, expected, rtol=1e-2)
    assert psnr(as_numpy(found["engines"].image), as_numpy(found["pytorch"].image)) >= 40


# Put before a program: the libraries that an edge box has not.
BARE = """
import sys
ABSENT = ("torch", "torchvision", "diffusers", "transformers", "open_clip", "scipy", "onnx", "onnxscript", "sklearn")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
RUN = """
import sys
from minddiffuser.runtime.cli import main
code = main(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
sys.exit(code)
"""
FAST = ["--refiner", "adam", "--steps", "2", "--backprop-steps", "2", "--learning-rate", "0.05", "--threads", "1"]


@pytest.fixture(scope="module")
def runs(tiny_bundle: Path, rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same trials by the command: on engines without PyTorch, and on PyTorch's networks."""
    folder = tmp_path_factory.mktemp("runs")
    np.save(folder / "responses.npy", rows)
    for trial in range(len(rows)):
        picture = np.random.default_rng(trial).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        write_png(folder / "seen" / f"{trial}.png", picture)
    shared = ["run", str(tiny_bundle), str(folder / "responses.npy"), "--stimuli", str(folder / "seen"), *FAST]
    bare = [*shared, "--backend", "ort", "--out", str(folder / "ort")]
    done = subprocess.run([sys.executable, "-c", BARE + RUN, *bare], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split("\n")[1].split()
    assert "torch" not in loaded
    assert "onnxruntime" in loaded
    options = ["--backend", "pytorch", "--models", "tiny", "--device", "cpu"]
    assert cli.main([*shared, *options, "--out", str(folder / "pytorch")]) == 0
    return {name: folder / name for name in ("ort", "pytorch")}


def pictures(run: Path) -> dict[str, np.ndarray]:
    return {
        str(path.relative_to(run)): read_image(path).astype(int) for path in sorted((run / "images").rglob("*.png"))
    }


def test_both_stages_run_without_pytorch(runs: dict[str, Path]) -> None:
    found = pictures(runs["ort"])
    assert set(found) == {f"images/{kind}/{t:06d}.png" for kind in ("stage1", "stage2") for t in range(2)}
    assert all(picture.shape == (64, 64, 3) and picture.std() > 5 for picture in found.values())
    assert (found["images/stage2/000000.png"] != found["images/stage1/000000.png"]).any()
    assert (runs["ort"] / "report.html").is_file()
    settings = json.loads((runs["ort"] / "settings.json").read_text())
    assert (settings["settings"]["backend"], settings["settings"]["dtype"]) == ("ort", "fp32")
    metrics = json.loads((runs["ort"] / "summary.json").read_text())["metrics"]
    assert set(metrics) == {"pixcorr", "ssim", "ssim_columns", "clip_two_way", "place", "size", "overlap"}


def test_pytorch_gives_the_same_pictures_and_figures(runs: dict[str, Path]) -> None:
    found, expected = (pictures(runs[name]) for name in ("ort", "pytorch"))
    assert set(found) == set(expected)
    for name, picture in expected.items():
        assert np.abs(found[name] - picture).max() <= 1, name
    by_engines, by_torch = (json.loads((runs[n] / "summary.json").read_text())["metrics"] for n in ("ort", "pytorch"))
    for metric, row in by_torch.items():
        for stage in ("stage1", "stage2"):
            assert by_engines[metric][stage] == pytest.approx(row[stage], abs=0.005), metric


FIRST_TRIAL = """
import sys
import numpy as np
import onnxruntime
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.decoders.bundle import BundleDecoder
from minddiffuser.runtime.engines.open import EngineSet
opened, real = [], onnxruntime.InferenceSession
onnxruntime.InferenceSession = lambda *given, **named: opened.append(real(*given, **named)) or opened[-1]
bundle = Bundle.open(sys.argv[1])
with EngineSet(bundle) as engines:
    decoded = BundleDecoder(bundle, engines).decode(np.ones((1, *bundle.layout.shape), np.float32), screened=True)
assert decoded.structure.shape == (1, *bundle.shapes["structure"])
print(*sorted(output.name for session in opened for output in session.get_outputs()))
"""


def test_a_first_trial_waits_for_its_decoders_alone(tiny_bundle: Path) -> None:
    """No other graph is opened before it is decoded, and nothing is loaded that an edge box has not."""
    command = [sys.executable, "-c", BARE + FIRST_TRIAL, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["context", "latent", "semantic", "structure"]
