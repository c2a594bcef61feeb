"""Full fine-tuning: every parameter is trained."""

from torch import nn

from zobench.tuning.kinds import check_floats


def full(model: nn.Module) -> nn.Module:
    """Mark every parameter as trainable; returns the model. UserError for a quantised one."""
    check_floats(model.parameters(), "full")
    return model.requires_grad_(True)
