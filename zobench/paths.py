"""Where the Hydra tree and the shipped assets are: a checkout, an editable install or a wheel."""

from importlib.util import find_spec
from pathlib import Path

from zobench.errors import UserError

PACKAGE_DIR = Path(__file__).resolve().parent
ASSETS_DIR = PACKAGE_DIR / "assets"
SHIPPED = "zobench:"  # before the name of a file or folder that ships in the package
PACKAGED = "package:"  # before NAME/FILE: a file that another installed Python package carries


def place_of(path: str) -> Path:
    """Where a path of the user's is; `zobench:NAME` is inside the package's assets.

    `package:NAME/FILE` is inside another package. Raises UserError where that is not installed.
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
    """Whether a model's path means files of this machine, not an id of the hub's."""
    return path.startswith((SHIPPED, PACKAGED, ".", "/", "~")) or path.endswith(".gguf")


def conf_dir() -> Path:
    """Folder that holds `config.yaml`: beside the package in a checkout, inside it in a wheel.

    Raises FileNotFoundError when neither place has one (a broken installation).
    """
    for folder in (PACKAGE_DIR.parent / "conf", PACKAGE_DIR / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"zobench's conf/ folder was not found beside or inside {PACKAGE_DIR}")
