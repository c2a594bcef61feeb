"""Where the Hydra tree and the shipped assets are: a checkout, an editable install or a wheel."""

from pathlib import Path

from zobench.errors import UserError

PACKAGE_DIR = Path(__file__).resolve().parent
ASSETS_DIR = PACKAGE_DIR / "assets"
SHIPPED = "zobench:"  # before the name of a file or folder that ships in the package


def place_of(path: str) -> Path:
    """Where a path of the user's is; `zobench:NAME` is inside the package's assets."""
    if path.startswith(SHIPPED):
        return ASSETS_DIR / path.removeprefix(SHIPPED)
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}") from None


def conf_dir() -> Path:
    """Folder that holds `config.yaml`: beside the package in a checkout, inside it in a wheel.

    Raises FileNotFoundError when neither place has one (a broken installation).
    """
    for folder in (PACKAGE_DIR.parent / "conf", PACKAGE_DIR / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"zobench's conf/ folder was not found beside or inside {PACKAGE_DIR}")
