"""A linear model that starts at zero, for logistic regression."""

import torch

from zobench.models.loaded import LoadedModel


def load(*, inputs: int) -> LoadedModel:
    """One float64 weight per input and no bias: scores are X w."""
    model = torch.nn.Linear(inputs, 1, bias=False, dtype=torch.float64)
    torch.nn.init.zeros_(model.weight)
    return LoadedModel(model)
