"""The blocks of a model: its layers, whose weights stay in main memory."""

from collections import Counter

from torch import Tensor, nn

from zobench.errors import UserError


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a Hugging Face model, in the model's order.

    They are the items of its module lists that transformers keeps on one device
    (`_no_split_modules`).

    Raises:
        UserError: There are none, or a layer shares a tensor with another module.
    """
    names = {*(getattr(model, "_no_split_modules", None) or ())}
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    blocks = [block for own in lists for block in own if type(block).__name__ in names]
    if not blocks:
        raise UserError(
            f"model.offload=cpu: {type(model).__name__} has no list of layers that transformers"
            " names (_no_split_modules); set it to null"
        )
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    if any(uses[id(tensor)] > 1 for block in blocks for tensor in block.parameters()):
        raise UserError(
            f"model.offload=cpu: layers of {type(model).__name__} share weights, which cannot be"
            " uploaded layer by layer; set it to null"
        )
    return blocks


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Its parameters and buffers."""
    return [*module.parameters(), *module.buffers()]
