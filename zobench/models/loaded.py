"""What every loader returns."""

from typing import Any, NamedTuple


class LoadedModel(NamedTuple):
    """A model in evaluation mode on the CPU, and its tokenizer if it reads text."""

    model: Any
    tokenizer: Any = None
