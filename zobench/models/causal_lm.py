"""A Hugging Face decoder and its tokenizer, from a folder, the hub or the package itself."""

from pathlib import Path

import torch

from zobench.errors import UserError
from zobench.models.loaded import LoadedModel
from zobench.paths import ASSETS_DIR

SHIPPED = "zobench:"  # `zobench:tiny` is a checkpoint inside the package


def load(*, path: str, dtype: str = "float32", revision: str | None = None) -> LoadedModel:
    """Load a causal language model.

    path: a folder, a hub id, or `zobench:NAME`. dtype: storage of the weights: float32, bfloat16 or
    float16. Raises UserError when nothing usable is there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"model.dtype={dtype}: choose float32, bfloat16 or float16")
    place = str(ASSETS_DIR / path.removeprefix(SHIPPED)) if path.startswith(SHIPPED) else path
    if place.startswith((".", "/", "~")) or path.startswith(SHIPPED):
        place = str(Path(place).expanduser())
        if not (Path(place) / "config.json").is_file():
            raise UserError(f"model.path={path}: no Hugging Face model folder there")
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            place, dtype=getattr(torch, dtype), revision=revision
        )
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise UserError(
            f"model.path={path}: could not be loaded ({reason}); give a folder or a hub id"
        ) from error
    if tokenizer.pad_token_id is None:  # padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return LoadedModel(model.eval(), tokenizer)


def preload() -> None:
    """Import what `load` imports: half of the seconds that it takes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
