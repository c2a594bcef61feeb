"""A model with one of peft's adapters."""

import warnings
from typing import Any

from torch import nn

from zobench.seeded import seeded
from zobench.tuning.kinds import classifies, head_parts


def with_adapter(model: nn.Module, config: Any, seed: int) -> Any:
    """peft's wrapper around the model: only the adapter and a classification head are trained.

    Initial values are drawn from `seed`; the adapter is float32 whatever the model is.
    """
    from peft import get_peft_model

    if classifies(model):
        config.modules_to_save = head_parts(model)
    with seeded(seed), warnings.catch_warnings():
        # peft reads it by a name that is deprecated in transformers 5
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        tuned: Any = get_peft_model(model, config)
    return tuned.train(model.training)  # new modules begin in training mode
