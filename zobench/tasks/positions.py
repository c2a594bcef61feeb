"""The longest text that a model takes, and its token ids."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from zobench.errors import UserError
from zobench.interface import embeddings_of

_NO_LIMIT = 2048  # tokens of a model that names no limit


def longest_text(model: Any) -> int:
    """How many tokens of a text fit, after the virtual ones that tuning puts before it."""
    config = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = getattr(text, "max_position_embeddings", None) or _NO_LIMIT
    positions = int(limit) if limit > 0 else _NO_LIMIT  # XLNet's -1 is no limit
    return min([positions, *_tables(model, positions)]) - virtual_tokens(model)


def virtual_tokens(model: Any) -> int:
    """Positions that a prefix or soft prompt takes."""
    tuned = getattr(model, "active_peft_config", None)
    return int(getattr(tuned, "num_virtual_tokens", None) or 0)


def _tables(model: Any, positions: int) -> Iterator[int]:
    """Places in learnt tables of positions; those of RoBERTa's kind begin after the padding id."""
    for name, part in model.named_modules() if isinstance(model, nn.Module) else ():
        table, padding = getattr(part, "weight", None), getattr(part, "padding_idx", None)
        if table is None or padding is None or not name.endswith("position_embeddings"):
            continue
        if len(table) <= positions:
            yield len(table) - padding - 1


def switches_at(model: Any) -> float:
    """The length of a row, in tokens, above which rotations are others for a whole batch.

    Models with long and short factors (Phi-3, MiniCPM) choose by the longest row.
    """
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else None
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, Mapping))]
    switched = [
        kind.get("original_max_position_embeddings")
        or getattr(config, "original_max_position_embeddings", None)
        for kind in kinds
        if kind.get("rope_type", kind.get("type")) == "longrope"
    ]
    lengths = [int(length) for length in switched if length]
    return min(lengths) - virtual_tokens(model) if lengths else float("inf")


def check_ids(ids: Sequence[int], model: Any, tokenizer: Any, where: str) -> None:
    """Raise UserError for a token that the model has no embedding for."""
    rows = embeddings_of(model)
    if rows is not None and ids and max(ids) >= rows:
        token = tokenizer.convert_ids_to_tokens(max(ids))
        raise UserError(
            f"{where}: token {token!r} has the id {max(ids)} and the model embeddings for {rows}"
            " tokens: the tokenizer has tokens that this model was not resized for"
        )
