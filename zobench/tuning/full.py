"""Full fine-tuning: every parameter is trained."""

from torch import nn


def full(model: nn.Module) -> nn.Module:
    """Mark every parameter as trainable; returns the model."""
    return model.requires_grad_(True)
