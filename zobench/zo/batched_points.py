"""The loss at several points in one call, for tunings that train few weights, or low-rank laws.

The trained tensors are stacked, one copy per point, and `torch.func.vmap` runs the caller's closure
once over the stack: frozen weights are shared, and their products see the points as one larger
batch. Where the directions of a layer are low-rank, its weights are shared, too, and the points
differ by thin factors (`FactoredLayers`). The model, tuning and loss may use any operation that
vmap supports. The weights are never moved.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from zobench.zo.factored_layers import FactoredLayers, Factors
from zobench.zo.feedback import Point
from zobench.zo.moves import Move, Term
from zobench.zo.passes.apply import apply_moves
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot

SMALL = 2**28  # bytes of copies that are always allowed, however small the model is


class BatchedPoints:
    """Evaluates up to `most` points at once on copies of the slots.

    Takes their copies and about `most` times the activations of one forward. With a sampler, slots
    with low-rank directions take their factors alone. Raises ValueError for a slot that is not the
    model's, and for copies that would outweigh the model.
    """

    def __init__(
        self, model: nn.Module, slots: Sequence[Slot], most: int, sampler: Sampler | None = None
    ) -> None:
        self.slots, self.most = slots, most
        self._layers = FactoredLayers(model, slots)
        self._factored = [sampler is not None and self._layers.fits(s, sampler) for s in slots]
        self._holder = _Holder(model)
        self._names: dict[int, list[str]] = {}  # of a parameter, all those that are tied to it
        for name, parameter in self._holder.named_parameters(remove_duplicate=False):
            self._names.setdefault(id(parameter), []).append(name)
        for slot in slots:
            if id(slot.parameter) not in self._names:
                raise ValueError(f"pack={most}: {slot.name} is not a parameter of the model given")
        copied = [s for s, factored in zip(slots, self._factored, strict=True) if not factored]
        copies = most * sum(slot.parameter.nbytes for slot in copied)
        if copies > max(SMALL, sum(p.nbytes for p in model.parameters())):
            raise ValueError(
                f"pack={most}: {most} copies of the trained weights ({copies / 2**30:.2g} GiB)"
                " would outweigh the model; pack fewer points, or train less (LoRA, prefix, prompt)"
            )

    def losses(
        self, loss: Callable[[], Any], sampler: Sampler, points: Sequence[Point]
    ) -> list[float]:
        """The losses at the points, in order, from one call of the closure.

        Raises ValueError where the closure returns no scalar tensor, or does something that vmap
        does not support, such as reading the value of a tensor that depends on the weights.
        """
        kinds = list(zip(self.slots, self._factored, strict=True))
        stacks = [None if f else stacked(slot, sampler, points) for slot, f in kinds]
        factors: dict[str, Factors] = {}
        if any(points):
            factors = {s.name: self._layers.factors(s, sampler, points) for s, f in kinds if f}
        if not factors and all(stack is None for stack in stacks):  # all points are the clean one
            return self.evaluated(lambda _: loss(), stacks, 1) * len(points)
        return self.evaluated(lambda _: loss(), stacks, len(points), factors=factors)

    def evaluated(
        self,
        loss: Callable[[Mapping[str, Tensor]], Any],
        stacks: Sequence[Tensor | None],
        rows: int,
        inputs: Mapping[str, Tensor] | None = None,
        factors: Mapping[str, Factors] | None = None,
    ) -> list[float]:
        """One loss per row, where a row has weights of its own, and may have inputs of its own.

        stacks: of each slot, (rows, *shape); None is the model's weights. inputs: (rows, ...) by
        name; the loss gets a row of them. factors: of low-rank displacements, (rows, ...), by a
        slot's name. Raises ValueError as `losses` does.
        """

        def at(
            weights: dict[str, Tensor], row: Mapping[str, Tensor], thin: Mapping[str, Factors]
        ) -> Tensor:
            call = partial(functional_call, self._holder, tie_weights=False)
            with self._layers.displaced(thin):
                value = call(weights, (partial(loss, row),))
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise ValueError(f"pack={self.most} needs a closure that returns a scalar tensor")
            return value.reshape(())

        weights = self._by_name(stacks)
        own, thin = dict(inputs or {}), dict(factors or {})
        if rows == 1:
            mine, its = ({name: t[0] for name, t in given.items()} for given in (weights, own))
            return [float(at(mine, its, {name: (a[0], b[0]) for name, (a, b) in thin.items()}))]
        try:
            with _attention(self.slots[0].parameter.device), SameBranch() if own else nullcontext():
                values: list[float] = vmap(at)(weights, own, thin).tolist()
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"pack={self.most}: this loss cannot be evaluated for several points at once; set"
                f" pack=1 ({reason})"
            ) from error
        except BranchesDiffer as error:
            return self._by_branch(loss, stacks, own, error.conditions)
        return values

    def with_weights(self, weights: Sequence[Tensor], loss: Callable[[], Any]) -> Any:
        """What the closure returns where the slots have these weights."""
        named = self._by_name(weights)
        return functional_call(self._holder, named, (loss,), tie_weights=False)

    def _by_name(self, tensors: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """One tensor per slot under all names of its parameter; without those that are None."""
        given = zip(self.slots, tensors, strict=True)
        named = [(self._names[id(slot.parameter)], tensor) for slot, tensor in given]
        return {name: t for names, t in named if t is not None for name in names}

    def _by_branch(
        self,
        loss: Callable[[Mapping[str, Tensor]], Any],
        stacks: Sequence[Tensor | None],
        inputs: Mapping[str, Tensor],
        conditions: Sequence[bool],
    ) -> list[float]:
        """`evaluated`, once for the rows whose condition is true and once for the others."""
        values = dict.fromkeys(range(len(conditions)), 0.0)
        for branch in (True, False):
            rows = [row for row, condition in enumerate(conditions) if condition is branch]
            own = [None if stack is None else stack[rows] for stack in stacks]
            found = self.evaluated(loss, own, len(rows), {k: t[rows] for k, t in inputs.items()})
            values |= zip(rows, found, strict=True)
        return list(values.values())


class BranchesDiffer(Exception):
    """Rows of a vmapped computation differ in a condition; `conditions` has it for each row."""

    def __init__(self, conditions: Sequence[bool]) -> None:
        super().__init__(f"the rows of one batch take different branches: {conditions}")
        self.conditions = conditions


class SameBranch(TorchFunctionMode):
    """Control flow under vmap: a condition that is equal for all rows is allowed.

    A language model tests whether its attention mask hides anything, and takes a shorter way if
    not. vmap cannot follow different branches for different rows: then BranchesDiffer is raised.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not Tensor.__bool__:
            return func(*args, **(kwargs or {}))
        conditions = torch.func.debug_unwrap(args[0]).flatten().bool().tolist()
        if len(set(conditions)) > 1:
            raise BranchesDiffer(conditions)
        return conditions[0] if conditions else func(*args)


class _Holder(nn.Module):
    """A module whose forward is any closure over the model: what `functional_call` can call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, closure: Callable[[], Any]) -> Any:
        return closure()


def stacked(slot: Slot, sampler: Sampler, points: Sequence[Point]) -> Tensor | None:
    """The slot's weights at each point, (points, *shape): the arithmetic of a displacement.

    None where the sampler leaves the slot out.
    """
    keys = dict.fromkeys(key for point in points for key in point)
    if all(sampler.direction(slot, key) is None for key in keys):
        return None
    clean = slot.parameter.detach()
    stack = torch.empty((len(points), *clean.shape), dtype=clean.dtype, device=clean.device)
    apply_moves(copying(slot, sampler, points, stack))
    return stack


def copying(
    slot: Slot, sampler: Sampler, points: Sequence[Point], copies: Iterable[Tensor]
) -> Iterator[Move]:
    """The moves that make each copy the slot's weights at its point."""
    keys = dict.fromkeys(key for point in points for key in point)
    drawn = {k: z for k in keys if (z := sampler.direction(slot, k)) is not None}
    for copy, point in zip(copies, points, strict=True):
        terms = [Term(drawn[k], scale) for k, scale in point.items() if scale and k in drawn]
        yield Move(slot.flat, slot.row, terms, rounding=slot.rounding, out=copy.view(-1))


def _attention(device: torch.device) -> AbstractContextManager[Any]:
    """On the CPU vmap knows no fused attention and would loop over the points, with a warning."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
