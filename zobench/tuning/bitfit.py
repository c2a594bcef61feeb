"""BitFit: only the bias terms (Ben Zaken et al. 2022)."""

from torch import nn

from zobench.errors import UserError
from zobench.tuning.kinds import check_text, classifies, train_head


def bitfit(model: nn.Module) -> nn.Module:
    """Train every parameter that is called bias, and a classification head; freeze the rest.

    Raises UserError for a model without biases, such as Llama.
    """
    check_text(model, "bitfit")
    model.requires_grad_(False)
    biases = [p for name, p in model.named_parameters() if name.rpartition(".")[2] == "bias"]
    if not biases:
        raise UserError("tuning=bitfit: this model has no biases; choose another, such as lora")
    for bias in biases:
        bias.requires_grad_(True)
    if classifies(model):
        train_head(model)
    return model
