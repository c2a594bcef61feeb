"""The local files of a model."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zobench.models.gguf import ENDING
from zobench.paths import is_local, place_of

_TEXTS = re.compile(  # what loading reads of a folder, a tokenizer's files among it
    r"(config|generation_config|adapter_config|added_tokens|special_tokens_map|.*tokenizer.*"
    r"|.*vocab.*|merges.*|.*\.index)\.json|.*\.(model|spm|bpe|tiktoken|codes|jinja|py)"
    r"|(vocab|merges|dict).*\.txt"
)
_INDEX = "model.safetensors.index.json"


def files_of(node: Mapping[str, Any]) -> list[Path]:
    """The files that loading a model reads: config, tokenizer, weights; none where it has no path.

    Of a hub id, those that the cache holds of its revision. node: the settings of the model.
    """
    path = node.get("path")
    if isinstance(path, str) and path.endswith(ENDING):
        return [file for file in [place_of(path)] if file.is_file()]
    place = _place(path, node.get("revision")) if isinstance(path, str) else None
    if place is None:
        return []
    if node.get("weights") == "random":
        return [place / "config.json"] if not node.get("architecture") else []
    there = sorted(file for file in place.iterdir() if file.is_file())
    texts = [file for file in there if _TEXTS.fullmatch(file.name)]
    return texts + _weights(there, place)


def is_from_hub(path: str) -> bool:
    """Whether the files of a model path are the hub's, which change only with its revision."""
    return not is_local(path) and not Path(path).is_dir()


def _place(path: str, revision: str | None) -> Path | None:
    """The folder that a path means, or that the hub's cache has for it; None for none."""
    if not is_from_hub(path):
        place = place_of(path)
        return place if place.is_dir() else None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(path, "config.json", revision=revision)
    except ValueError:  # no id of the hub's
        return None
    return Path(found).parent if isinstance(found, str) else None


def _weights(there: list[Path], place: Path) -> list[Path]:
    """One file, or those that its index names; of a folder without safetensors, the pickles."""
    safe = [file for file in there if file.suffix == ".safetensors"]
    if not safe:
        return [file for file in there if re.fullmatch(r"pytorch_model.*\.bin", file.name)]
    names = {"model.safetensors", "adapter_model.safetensors"}
    if place / "model.safetensors" not in safe and (place / _INDEX).is_file():
        try:
            names |= set(json.loads((place / _INDEX).read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return safe  # damaged, as loading will say
    return [file for file in safe if file.name in names]
