"""Models in a GGUF file, which transformers de-quantises: one file instead of a folder."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zobench.errors import UserError

ENDING = ".gguf"
_MAGIC = b"GGUF"


def source_of(place: Path, path: str) -> dict[str, Any]:
    """The argument by which transformers finds the file in its folder.

    path: as the user has written it, for messages. Raises UserError for a missing package, and for
    a file that is not there or is no GGUF file.
    """
    if not place.is_file():
        raise UserError(f"model.path={path}: no such file")
    with place.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"model.path={path}: is no GGUF file; download it again")
    if find_spec("gguf") is None:
        raise UserError(f"model.path={path}: needs the package gguf: pip install 'zobench[gguf]'")
    return {"gguf_file": place.name}


def refuse_with(path: str, **settings: Any) -> None:
    """Raise UserError for settings of a folder that a GGUF file cannot have."""
    given = [name for name, value in settings.items() if value]
    if given:
        raise UserError(
            f"model.{given[0]}={settings[given[0]]}: {path} is a GGUF file; leave it null, or give"
            " a folder"
        )


def without_quantization(model: Any, path: str) -> None:
    """Make a de-quantised model an ordinary one, which transformers saves."""
    print(f"{path}: de-quantised to {str(model.dtype).removeprefix('torch.')}", file=sys.stderr)
    for owner, name in (
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model.config, "quantization_config"),
    ):
        if name in vars(owner):
            delattr(owner, name)
    model.is_quantized = False
