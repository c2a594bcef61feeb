"""What a language model gives back, which decides how a task is put to it."""

import enum


class Interface(enum.Enum):
    """The kinds of models that tasks of text know how to ask."""

    CAUSAL = "logits of the next token, at every token"
    MASKED = "logits at mask tokens"
    CLASSIFIER = "one logit per class, from a sequence-classification head"
