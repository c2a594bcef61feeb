"""What is outside of the layers, as one evaluation sees it while others are under way."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


class Side:
    """Weights, hooks and attributes of modules, in place within its context.

    A loss may hang a hook on the head for as long as a forward lasts, and a module may remember
    something from its begin to its end. Another evaluation, which is paused, must not see it.

    Args:
        modules: Those outside of the layers.
        parameters: Some of their parameters.
        weights: What these hold within the context.
    """

    def __init__(
        self, modules: Sequence[nn.Module], parameters: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> None:
        self._modules, self._parameters, self._weights = modules, parameters, weights
        self._own = [_copy(vars(module)) for module in modules]

    def __enter__(self) -> None:
        self._others = [vars(module) for module in self._modules]
        self._clean = [parameter.data for parameter in self._parameters]
        self._show(self._own, self._weights)

    def __exit__(self, *_: object) -> None:
        self._show(self._others, self._clean)

    def _show(self, states: Sequence[dict[str, object]], weights: Sequence[Tensor]) -> None:
        for module, state in zip(self._modules, states, strict=True):
            object.__setattr__(module, "__dict__", state)
        for parameter, weight in zip(self._parameters, weights, strict=True):
            parameter.data = weight


def _copy(state: dict[str, object]) -> dict[str, object]:
    """Of a module's attributes; hooks are added and removed in the copy alone."""
    hooks = {name: OrderedDict(state[name]) for name in _HOOKS}  # type: ignore[call-overload]
    return {**state, **hooks}
