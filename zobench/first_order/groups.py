"""Groups of tensors by their place in the model: matrices of layers, and whole layers in turn."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zobench.zo.samplers.layer_names import block_of, natural

Named = Iterable[tuple[str, Tensor]]

_TABLES = ("embed", "wte", "wpe", "lm_head", "score", "classifier")  # parts of names


def is_layer_matrix(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is a matrix between layers: neither vector, nor embedding, nor head.

    Args:
        name: Of the parameter in its model.
        tensor: The parameter.

    Returns:
        True for what GaLore, APOLLO and Muon treat as matrices in their papers.
    """
    return tensor.dim() == 2 and not any(part in name for part in _TABLES)


def grouped(
    named_parameters: Named,
    *,
    optimizer: Callable[..., torch.optim.Optimizer],
    matrices: Mapping[str, Any],
    others: Mapping[str, Any] | None = None,
    lr: float,
) -> torch.optim.Optimizer:
    """An optimizer that treats the matrices of layers in another way than the other tensors.

    Args:
        named_parameters: (name, tensor) pairs.
        optimizer: Makes it from a list of groups.
        matrices: Settings of the group of matrices.
        others: Settings of the other group; its rate is `lr` times `lr_factor` of these, if given.
        lr: Learning rate.

    Returns:
        The optimizer; a group without tensors is left out.
    """
    groups: list[dict[str, Any]] = []
    pairs = list(named_parameters)
    settings = dict(others or {})
    rate = lr * settings.pop("lr_factor", 1.0)
    for own, wanted in (({**matrices, "lr": lr}, True), ({**settings, "lr": rate}, False)):
        tensors = [p for name, p in pairs if is_layer_matrix(name, p) is wanted]
        if tensors:
            groups.append({"params": tensors, **own})
    return optimizer(groups)


class LayersInTurn(torch.optim.Optimizer):
    """Trains a few layers at a time; the others need no gradient, and no state is kept for them.

    Every `every` steps other layers take their turn, and begin without state. A layer is what names
    agree in up to their first number, as in `model.layers.3`; without any, the tensors of a module.

    Formula:
        ```text
        step t, period p = floor(t / every):  layers(p) move as `optimizer` moves them
        shuffled: layers(p) are the next `layers` ones of an order that is drawn anew each round
        drawn:    layers(p) are drawn anew each period, without replacement
        ```

    Args:
        named_parameters: (name, tensor) pairs.
        optimizer: Makes the optimizer of a list of tensors.
        lr: Learning rate; it lives in `param_groups`, where torch's schedulers find it.
        layers: How many train at a time.
        every: Steps of a period.
        order: `shuffled` or `drawn`.
        rest: Whether tensors outside the layers (embeddings, head, last norm) train, and all the
            time; else they never do.
        seed: Of the order; the global random state is not touched.

    Raises:
        ValueError: An argument is out of range.

    References:
        BAdam: Luo et al. 2024, arXiv 2404.02827, Algorithm 1 (shuffled, one layer, without rest).
        LISA: Pan et al. 2024, arXiv 2403.17919, Algorithm 1 (drawn, with the rest).
    """

    def __init__(
        self,
        named_parameters: Named,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        lr: float,
        layers: int,
        every: int,
        order: str,
        rest: bool,
        seed: int = 0,
    ) -> None:
        if layers < 1 or every < 1:
            raise ValueError(f"optimizer.layers={layers}, optimizer.every={every}: at least 1")
        if order not in ("shuffled", "drawn"):
            raise ValueError(f"optimizer.order={order}: choose shuffled or drawn")
        pairs = list(named_parameters)
        super().__init__([tensor for _, tensor in pairs], {"lr": lr})
        blocks: dict[str, list[Tensor]] = {}
        for name, tensor in pairs:
            blocks.setdefault(block_of(name), []).append(tensor)
        numbered = [name for name in blocks if name.rpartition(".")[2].isdigit()] or [*blocks]
        self._layers = [blocks[name] for name in sorted(numbered, key=natural)]
        self._outside = [t for name, t in pairs if rest and block_of(name) not in numbered]
        self._count, self._every, self._order = min(layers, len(numbered)), every, order
        self._seed, self._make, self._taken = seed, optimizer, 0
        self._begin()

    def chosen(self, period: int) -> list[int]:
        """The layers that train in a period, in ascending order."""
        total, count = len(self._layers), self._count
        if self._order == "drawn":
            return sorted(self._permutation(period)[:count])
        places = [divmod(place, total) for place in range(period * count, (period + 1) * count)]
        return sorted({self._permutation(turn)[place] for turn, place in places})

    def _permutation(self, turn: int) -> list[int]:
        drawn = np.random.default_rng([self._seed, turn]).permutation(len(self._layers))
        return [int(number) for number in drawn]

    def _begin(self) -> None:
        """Make the optimizer of this period; gradients are of its tensors alone."""
        [group] = self.param_groups
        layers = [self._layers[number] for number in self.chosen(self._taken // self._every)]
        active = [*self._outside, *(tensor for layer in layers for tensor in layer)]
        for tensor in group["params"]:
            tensor.requires_grad_(False)
            tensor.grad = None
        for tensor in active:
            tensor.requires_grad_(True)
        own = self._make(active, lr=group["lr"])
        for tensor in self._outside:
            if tensor in self.state:
                own.state[tensor] = self.state[tensor]
        self._own, self.state = own, own.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients of the layers whose turn it is.

        Args:
            closure: Is not called.
        """
        del closure
        self._own.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        self._own.step()
        self._taken += 1
        if self._taken % self._every == 0:
            self._begin()

    def state_dict(self) -> dict[str, Any]:
        """The rate, the number of steps, and the state of the layers whose turn it is."""
        lr = self.param_groups[0]["lr"]
        return {"lr": lr, "taken": self._taken, "own": self._own.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.param_groups[0]["lr"] = state_dict["lr"]
        self._taken = state_dict["taken"]
        self._begin()
        self._own.load_state_dict(state_dict["own"])
        self.state = self._own.state
