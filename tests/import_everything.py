"""Import every module of the installed package; run by CI from an environment that has only the wheel."""

import importlib
import pathlib
import pkgutil

import minddiffuser

names = [module.name for module in pkgutil.walk_packages(minddiffuser.__path__, "minddiffuser.")]
for name in names:
    importlib.import_module(name)

world = pathlib.Path(minddiffuser.__path__[0]) / "training" / "tinyworld" / "world"
missing = [part for part in ("unet", "vae", "text_encoder", "clip", "judge") if not (world / part).is_dir()]
if len(names) < 40 or missing:
    raise SystemExit(f"imported {len(names)} modules; the wheel misses {missing or 'modules'}")
print(f"{len(names)} modules imported from {minddiffuser.__path__[0]}")  # noqa: T201
