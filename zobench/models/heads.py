"""The head of a language model: for the next token, for masked tokens, or for classes."""

from collections.abc import Sequence
from typing import Any

from zobench.errors import UserError
from zobench.interface import Interface


def interface_of(config: Any, path: str) -> Interface:
    """Causal or masked, by the config of a checkpoint.

    The class it was saved from decides; where that has no language-model head, what its kind of
    config can become, masked before causal unless it is a decoder.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    for name in config.architectures or ():
        if name.endswith("ForMaskedLM"):
            return Interface.MASKED
        if name.endswith(
            ("ForCausalLM", "LMHeadModel")
        ):  # XLM and Flaubert have one class for both
            return Interface.CAUSAL if getattr(config, "causal", True) else Interface.MASKED
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    if masked and not (causal and getattr(config, "is_decoder", False)):
        return Interface.MASKED
    if causal:
        return Interface.CAUSAL
    raise UserError(
        f"model.path={path}: {config.model_type} is neither a causal nor a masked language model"
    )


def interface_with(config: Any, head: str, labels: Sequence[Any] | None, path: str) -> Interface:
    """The interface of a model with this config under `model.head`.

    The config learns the classes of a classification head. Raises UserError for any other head.
    """
    if head == "lm":
        return interface_of(config, path)
    if head == "classification":
        config.id2label, config.label2id = classes(labels)
        return Interface.CLASSIFIER
    raise UserError(f"model.head={head}: choose lm or classification")


def auto_class(interface: Interface) -> Any:
    """The class of transformers that loads such a model."""
    import transformers

    return {
        Interface.CAUSAL: transformers.AutoModelForCausalLM,
        Interface.MASKED: transformers.AutoModelForMaskedLM,
        Interface.CLASSIFIER: transformers.AutoModelForSequenceClassification,
    }[interface]


def classes(labels: Sequence[Any] | None) -> tuple[dict[int, str], dict[str, int]]:
    """(id2label, label2id) of a classification head; their number is that of its logits."""
    if not labels:
        raise UserError(
            "model.head=classification: this task names no labels; choose model.head=lm or give "
            "model.labels"
        )
    names = dict(enumerate(map(str, labels)))
    return names, {name: index for index, name in names.items()}


def pad_with(model: Any, padding: int) -> None:
    """Name the padding token in the config: a classifying decoder takes no batch without one."""
    model.config.pad_token_id = padding
    model.config.get_text_config().pad_token_id = padding
