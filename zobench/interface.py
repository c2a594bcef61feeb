"""The kinds of model outputs; tasks build their prompts for them."""

import enum
from typing import Any


class Interface(enum.Enum):
    """The kinds of models that text tasks support, by their output."""

    CAUSAL = "logits of the next token, at every token"
    MASKED = "logits at mask tokens"
    CLASSIFIER = "one logit per class, from a sequence-classification head"


def padding_id(model: Any, tokenizer: Any) -> int:
    """A padding id that the model has an embedding for; attention masks hide it.

    The tokenizer's padding token, else its end-of-text token, else 0.
    """
    rows = embeddings_of(model)
    for token in (tokenizer.pad_token_id, getattr(tokenizer, "eos_token_id", None)):
        if token is not None and token >= 0 and (rows is None or token < rows):
            return int(token)
    return 0


def embeddings_of(model: Any) -> int | None:
    """The number of input embeddings of the model; None if unknown."""
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError, TypeError):
        return None
