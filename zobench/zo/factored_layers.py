"""Layers at W + A B^T without that sum: the product with W is shared by all points.

y = W x + A (B^T x): a low-rank direction costs each point two thin products, and no copy of the
weights. This is how EGGROLL evaluates a population (Sarkar et al. 2025, arXiv 2511.16652).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from zobench.zo.feedback import Key, Point
from zobench.zo.low_rank import LowRank
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot

Factors = tuple[Tensor, Tensor]  # A (rows, p) and B^T (p, cols) of a weight's shape (rows, cols)
_Product = Callable[[Tensor, Factors], Tensor]


def _linear(x: Tensor, factors: Factors) -> Tensor:
    """What is added to x W^T, with W (outputs, inputs)."""
    a, b = factors
    return x @ b.T.to(x.dtype) @ a.T.to(x.dtype)


def _transposed(x: Tensor, factors: Factors) -> Tensor:
    """What is added to x W, with W (inputs, outputs): GPT-2's Conv1D."""
    a, b = factors
    return x @ a.to(x.dtype) @ b.to(x.dtype)


def _embedding(x: Tensor, factors: Factors) -> Tensor:
    """What is added to W[x]."""
    a, b = factors
    return a[x] @ b


class FactoredLayers:
    """The layers whose weights are slots: linear ones, Conv1D and embeddings, tied ones included.

    Args:
        model: The module whose parameters the slots are.
        slots: The trainable tensors.
    """

    def __init__(self, model: nn.Module, slots: Sequence[Slot]) -> None:
        self._layers: dict[str, list[tuple[nn.Module, _Product]]] = {}
        users: dict[int, list[tuple[nn.Module, _Product | None]]] = {}
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                product = _product_of(module) if name == "weight" else None
                users.setdefault(id(parameter), []).append((module, product))
        for slot in slots:
            layers = [(m, p) for m, p in users.get(id(slot.parameter), []) if p is not None]
            if layers and len(layers) == len(users[id(slot.parameter)]):
                self._layers[slot.name] = layers

    def fits(self, slot: Slot, sampler: Sampler) -> bool:
        """Whether the slot's directions under the law as it stands are low-rank, on such layers."""
        direction = sampler.direction(slot, Key(sampler.seed, 0, 0))
        return (
            slot.name in self._layers
            and isinstance(direction, LowRank)
            and direction.cols == slot.parameter.shape[1]
            and direction.factors()[1] is not None
        )

    def factors(self, slot: Slot, sampler: Sampler, points: Sequence[Point]) -> Factors:
        """Factors of the displacement at each point: (points, rows, p) and (points, p, cols).

        A direction that several points share has its place among the p of all of them.
        """
        keys = list(dict.fromkeys(key for point in points for key in point))
        drawn: dict[Key, Factors] = {}
        for key in keys:
            direction = sampler.direction(slot, key)
            assert isinstance(direction, LowRank)
            a, b = direction.factors()
            assert b is not None
            drawn[key] = a * direction.scale, b
        most = max(len(point) for point in points)
        (a, b) = next(iter(drawn.values()))
        rank = b.shape[0]
        left = a.new_zeros(len(points), len(a), most * rank)
        right = b.new_zeros(len(points), most * rank, b.shape[1])
        for n, point in enumerate(points):
            for place, (key, scale) in enumerate(point.items()):
                at = slice(place * rank, (place + 1) * rank)
                left[n, :, at] = drawn[key][0] * scale
                right[n, at] = drawn[key][1]
        return left, right

    @contextmanager
    def displaced(self, factors: Mapping[str, Factors]) -> Iterator[None]:
        """Let the layers compute with these factors added to their weights; by a slot's name."""
        hooks = [
            module.register_forward_hook(partial(_add, product, given))
            for name, given in factors.items()
            for module, product in self._layers[name]
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _add(
    product: _Product, factors: Factors, module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor
) -> Tensor:
    del module
    return y + product(inputs[0], factors).to(y.dtype)


def _product_of(module: nn.Module) -> _Product | None:
    if type(module) is nn.Linear:
        return _linear
    if type(module) is nn.Embedding and module.max_norm is None:
        return _embedding
    return _transposed if type(module).__name__ == "Conv1D" and hasattr(module, "nf") else None
