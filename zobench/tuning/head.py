"""Head tuning: only the output head (linear probing by zeroth-order steps; MeZO's head tuning)."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from zobench.errors import UserError
from zobench.tuning.kinds import check_text, classifies, train_head


def head(model: nn.Module) -> nn.Module:
    """Train a classifier's head, or a language model's output matrix in float32, and nothing else.

    An output matrix tied to the input embedding becomes a copy first, so that the input stays as it
    is (and so does what a bias is tied to). Raises UserError for a model that has no output head.
    """
    check_text(model, "head")
    model.requires_grad_(False)
    if classifies(model):
        train_head(model)
        return model
    output = cast(Any, model).get_output_embeddings()
    if output is None:
        raise UserError("tuning=head: this model has no output head; choose another tuning")
    for name, parameter in list(output.named_parameters()):  # BERT's bias is tied, too
        setattr(output, name, nn.Parameter(parameter.detach().clone().float()))
    _stays_untied(cast(Any, model))
    output.register_forward_pre_hook(_in_float32)
    return model


def _stays_untied(model: Any) -> None:
    """When the model is saved and loaded, too."""
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def _in_float32(output: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The hidden state of a 16-bit model, for the float32 head."""
    del output
    return tuple(hidden.to(torch.float32) for hidden in inputs)
