"""The kind of a language model, and the parameters of its head."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from zobench.errors import UserError


def check_text(model: nn.Module, tuning: str) -> None:
    """Raises UserError unless the model is a transformer that reads text."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise UserError(f"tuning={tuning}: this model does not read text; choose tuning=full")


def check_floats(parameters: Iterable[nn.Parameter], tuning: str) -> None:
    """Raises UserError for weights that `model.quantization` has made integers."""
    if any(is_traceable_wrapper_subclass(p) or not p.is_floating_point() for p in parameters):
        raise UserError(
            f"tuning={tuning}: the weights that model.quantization stores as integers do not train;"
            " choose tuning=lora, prefix or prompt"
        )


def classifies(model: nn.Module) -> bool:
    """Whether the model ends in a sequence-classification head."""
    from transformers.models.auto import modeling_auto

    names = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    return type(model).__name__ in names.values()


def task_type(model: nn.Module) -> Any:
    """peft's word for the model: SEQ_CLS, CAUSAL_LM, or for a masked LM FEATURE_EXTRACTION.

    The last is the plain wrapper: what the model returns is passed on, logits and all.
    """
    from peft import TaskType
    from transformers.models.auto import modeling_auto

    if classifies(model):
        return TaskType.SEQ_CLS
    masked = type(model).__name__ in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()
    return TaskType.FEATURE_EXTRACTION if masked else TaskType.CAUSAL_LM


def head_parts(model: Any) -> list[str]:
    """Names of the parts of a classifier that are outside its transformer: the head."""
    return [
        name
        for name, part in model.named_children()
        if name != model.base_model_prefix and any(True for _ in part.parameters())
    ]


def train_head(model: Any) -> None:
    """Mark the classification head as trainable."""
    for name in head_parts(model):
        model.get_submodule(name).requires_grad_(True)


def some(names: Iterable[str], count: int = 3) -> str:
    """A few parameter names, spread over the model, for an error's second half."""
    listed = list(names)
    return ", ".join(listed[:: max(1, len(listed) // count)][:count])
