"""Generation with transformers' static cache: the forwards of new tokens are one recorded graph.

After the prompt every forward reads one token of each row and the same tensors of the cache, of
which it fills one column: it can be recorded once and computed again for each further token.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.evaluation import Forwards
from zobench.tasks.positions import virtual_tokens


def why_not_static(model: Any) -> str | None:
    """Return why a model cannot generate with a static cache; None if it can."""
    if virtual_tokens(model):
        return "virtual tokens take the cache for themselves"
    name = type(_base_of(model)).__name__
    if not getattr(_base_of(model), "_can_compile_fullgraph", False):
        return f"{name} does not generate with transformers' static cache"
    if not all(_is_plain(layer) for layer in static_cache(model, 1).layers):
        return f"{name} keeps windows or states, which a graph cannot follow"
    return None


@contextmanager
def static_steps(model: Any, length: int, forwards: Forwards) -> Iterator[Any]:
    """The static cache with which the block generates up to `length` tokens, prompt included.

    None where `forwards` records nothing. The model must be one that `why_not_static` lets pass.
    """
    if not forwards.records:
        yield None
        return
    base, cache = _base_of(model), static_cache(model, length)
    own = vars(base).get("forward")  # accelerate sets one; else it is the class's
    base.forward = _Steps(base.forward, cache, forwards)
    try:
        yield cache
    finally:
        if own is None:
            del base.forward
        else:
            base.forward = own


def _base_of(model: Any) -> Any:
    """The model that peft wraps, if it does."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def static_cache(model: Any, length: int) -> Any:
    """An empty cache for texts of up to `length` tokens."""
    from transformers import StaticCache

    base = _base_of(model)
    return StaticCache(config=base.config.get_text_config(decoder=True), max_cache_len=length)


def _is_plain(layer: Any) -> bool:
    from transformers.cache_utils import StaticLayer

    return type(layer) is StaticLayer


class _Steps:
    """A model's forward, which computes all steps of one token after the first by its graph."""

    def __init__(self, forward: Any, cache: Any, forwards: Forwards) -> None:
        self._forward, self._cache, self._forwards = forward, cache, forwards
        self.__wrapped__ = forward  # transformers looks at the arguments
        self._seen = 0  # tokens in the cache
        self._tried = False
        self._inputs: dict[str, Any] = {}  # of the graph
        self._length: Tensor | None = None  # of the cache before the step, which the graph reads
        self._replay: Any = None

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        tokens = inputs.get("input_ids")
        if args or tokens is None or inputs.get("past_key_values") is not self._cache:
            return self._forward(*args, **inputs)
        found = self._replayed(inputs) if self._seen and tokens.shape[1] == 1 else None
        self._seen += tokens.shape[1]
        return self._forward(**inputs) if found is None else found

    def _replayed(self, inputs: dict[str, Any]) -> Any:
        """The outputs of a step, or None if there is no graph for it."""
        from transformers.modeling_outputs import CausalLMOutputWithPast

        if not self._tried:
            self._tried = True
            self._record(inputs)
        if self._replay is None or _kinds(inputs) != _kinds(self._inputs):
            return None
        assert self._length is not None
        _copy_into(self._inputs, inputs)
        self._length.fill_(self._seen)
        return CausalLMOutputWithPast(logits=self._replay(), past_key_values=self._cache)

    def _record(self, inputs: dict[str, Any]) -> None:
        self._inputs = _static_copy(inputs)
        lengths = [layer.cumulative_length for layer in self._cache.layers]
        self._length = length = torch.full_like(lengths[0], self._seen)

        def step() -> Tensor:
            for one in lengths:  # a step may be computed more than once, to be recorded
                one.copy_(length)
            logits: Tensor = self._forward(**self._inputs).logits
            return logits

        self._replay = self._forwards.recorded(step)
        for one in lengths:
            one.fill_(self._seen)


# The inputs of a forward: tensors, dictionaries of them (masks by kind of layer), and others.


def _kinds(value: Any) -> Any:
    """What must be equal for inputs that can share a graph."""
    if isinstance(value, dict):
        return {name: _kinds(one) for name, one in value.items()}
    return (value.shape, value.dtype) if isinstance(value, Tensor) else value


def _static_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _static_copy(one) for name, one in value.items()}
    return value.clone() if isinstance(value, Tensor) else value


def _copy_into(static: Any, value: Any) -> None:
    if isinstance(value, dict):
        for name, one in value.items():
            _copy_into(static[name], one)
    elif isinstance(value, Tensor):
        static.copy_(value, non_blocking=True)
