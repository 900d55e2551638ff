"""Import every module of the installed package; run by CI from an environment that has only the wheel."""

import importlib
import pathlib
import pkgutil

import minddiffuser

names = [module.name for module in pkgutil.walk_packages(minddiffuser.__path__, "minddiffuser.")]
for name in names:
    importlib.import_module(name)

if len(names) < 90:
    raise SystemExit(f"only {len(names)} modules found")

# What is not Python has to be in the wheel too: the tiny world with all its parts, and the report's templates.
from minddiffuser.runtime.metrics.classifier import open_classifier  # noqa: E402
from minddiffuser.runtime.metrics.locator import open_locator  # noqa: E402
from minddiffuser.runtime.models.open import load_models  # noqa: E402

models = load_models("tiny")
open_classifier(models.folder / "classifier")
open_locator(models.folder / "locator")
report = pathlib.Path(minddiffuser.__path__[0]) / "runtime" / "report"
for name in ("page.html", "page.css", "page.js"):
    if not (report / name).is_file():
        raise SystemExit(f"the wheel misses runtime/report/{name}")
for part in ("", "eeg/", "meg/"):
    for name in ("packed.json", "packed.bin"):
        if not (report.parent / "demo_files" / f"{part}{name}").is_file():
            raise SystemExit(f"the wheel misses runtime/demo_files/{part}{name}")
print(f"{len(names)} modules and the tiny world, from {minddiffuser.__path__[0]}")  # noqa: T201
