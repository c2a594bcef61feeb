"""What a language model gives back, which decides how a task is put to it."""

import enum
from typing import Any


class Interface(enum.Enum):
    """The kinds of models that tasks of text know how to ask."""

    CAUSAL = "logits of the next token, at every token"
    MASKED = "logits at mask tokens"
    CLASSIFIER = "one logit per class, from a sequence-classification head"


def padding_id(model: Any, tokenizer: Any) -> int:
    """The id that fills up the rows of a batch: one that the model has an embedding for.

    Attention masks hide it, so any id in range does. The tokenizer's own padding token is taken
    where there is one, then the end of a text, then 0.
    """
    rows = embeddings_of(model)
    for found in (tokenizer.pad_token_id, getattr(tokenizer, "eos_token_id", None)):
        if found is not None and found >= 0 and (rows is None or found < rows):
            return int(found)
    return 0


def embeddings_of(model: Any) -> int | None:
    """How many ids the model has input embeddings for; None where it does not say."""
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError, TypeError):
        return None
