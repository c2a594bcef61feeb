"""One layer, chosen by a scan of activations before training (Dominant-Layer ZO, arXiv 2606.05516).

The paper trains one decoding layer alone, the first whose activations have outliers in the
pretrained model; it finds that choice to depend on the model and not on the task. So the scan needs
no data of the task: it is one forward of fixed random tokens. How large an outlier has to be is not
in the abstract; here it is a ratio of largest activations, after a layer and before it.
"""

import re
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from zobench.errors import UserError
from zobench.tuning.kinds import check_floats, check_text, classifies, train_head
from zobench.tuning.layers import layers

_ROWS, _TOKENS = 4, 64  # of the scan


def dominant_layer(model: nn.Module, *, ratio: float = 10.0) -> nn.Module:
    """Train the first layer that multiplies the largest |activation| by `ratio`; freeze the rest.

    The layer with the largest factor is taken where none reaches it. A classification head is
    trained, too. The choice is printed; it depends on the model alone.

    Args:
        model: A transformer that reads text.
        ratio: Largest |element| of the hidden states after the layer, over that before it; at least
            1.

    Returns:
        The model.

    Raises:
        UserError: The model has no list of layers, or `ratio` is below 1.
    """
    check_text(model, "dominant_layer")
    if ratio < 1.0:
        raise UserError(f"tuning.ratio={ratio}: give at least 1")
    name, stack = _stack_of(model)
    check_floats(stack.parameters(), "dominant_layer")
    chosen = 0
    if factors := growth(model, stack):
        reach = [number for number, factor in enumerate(factors) if factor >= ratio]
        chosen = reach[0] if reach else factors.index(max(factors))
        print(
            f"tuning=dominant_layer: {name}.{chosen} of {len(factors)} layers multiplies the"
            f" largest activation by {factors[chosen]:.3g}"
            + ("" if reach else f", the most of all; none reaches tuning.ratio={ratio:g}"),
            flush=True,
        )
    layers(model, patterns=[rf"^{re.escape(name)}\.{chosen}\."])
    if classifies(model):
        train_head(model)
    return model


def growth(model: nn.Module, stack: nn.ModuleList) -> list[float]:
    """What each layer multiplies the largest |hidden state| by, in one forward of fixed tokens.

    Args:
        model: A transformer.
        stack: Its layers.

    Returns:
        One factor per layer; none for tensors without values, of which `zobench fits` needs no more
        than the sizes.
    """
    before: list[Tensor] = []
    after: list[Tensor] = []

    def keep(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        del layer
        hidden = args[0] if args else kwargs["hidden_states"]
        before.append(_largest(hidden))
        after.append(_largest(output[0] if isinstance(output, tuple) else output))

    handles = [layer.register_forward_hook(keep, with_kwargs=True) for layer in stack]
    training = model.training
    try:
        with torch.no_grad():
            tokens = _tokens(model)
            model.eval()(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    if isinstance(after[0], FakeTensor):
        return []
    return [float(a) / float(b) for a, b in zip(after, before, strict=True)]


def _largest(hidden: Tensor) -> Tensor:
    return hidden.detach().abs().amax().float()


def _tokens(model: nn.Module) -> Tensor:
    """(rows, tokens) random tokens of the vocabulary, the same for the same model."""
    config: Any = model.config
    table = cast(Any, model).get_input_embeddings().weight
    places = getattr(config, "max_position_embeddings", _TOKENS)
    shape = _ROWS, min(_TOKENS, places // 2)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(4, len(table), shape, generator=generator).to(table.device)


def _stack_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The longest list of modules in the model, and its name."""
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        raise UserError("tuning=dominant_layer: this model has no list of layers; choose another")
    return max(lists, key=lambda pair: len(pair[1]))
