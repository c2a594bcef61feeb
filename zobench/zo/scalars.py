"""Numbers that only the device knows: losses and their functions, without waiting for the device.

A captured step cannot read a loss. Its losses, its rate and its radius are `Scalar`s, with which
an estimator calculates as with floats, in the same order and in float64, so that it gets the same
bits. Results are cached, since the rule needs them for every tensor.
"""

import operator
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_open: list["Scalars"] = []


class Scalar:
    """A 0-d float64 tensor of a `Scalars`; +, -, * and / with floats and its like give another."""

    __slots__ = ("_home", "tensor")

    def __init__(self, home: "Scalars", tensor: Tensor) -> None:
        self._home, self.tensor = home, tensor

    def __add__(self, other: "float | Scalar") -> "Scalar":
        return self if other == 0.0 else self._home.made(operator.add, self, other)

    def __radd__(self, other: float) -> "Scalar":
        return self + other

    def __sub__(self, other: "float | Scalar") -> "Scalar":
        return self if other == 0.0 else self._home.made(operator.sub, self, other)

    def __rsub__(self, other: float) -> "Scalar":
        return self._home.made(operator.sub, other, self)

    def __mul__(self, other: "float | Scalar") -> "Scalar":
        return self if other == 1.0 else self._home.made(operator.mul, self, other)

    def __rmul__(self, other: float) -> "Scalar":
        return self * other

    def __truediv__(self, other: "float | Scalar") -> "Scalar":
        return self if other == 1.0 else self._home.made(operator.truediv, self, other)

    def __rtruediv__(self, other: float) -> "Scalar":
        return self._home.made(operator.truediv, other, self)

    def __neg__(self) -> "Scalar":
        return self._home.made(operator.mul, self, -1.0)

    def gated(self, gate: "Scalar") -> "Scalar":
        """This number where the gate is not 0, and 0 elsewhere, even if this is NaN."""
        return self._home.made(_gated, self, gate)


class Scalars:
    """The scalars of one step, as a context in which passes look for them.

    keys: the two words of every 64-bit noise key that is an input. gate: 0 where the update must
    leave weights and state alone. tables: of the passes, on the device, by their bytes.
    """

    def __init__(self, device: torch.device, tables: dict[bytes, Tensor]) -> None:
        self.one = Scalar(self, torch.ones((), dtype=torch.float64, device=device))
        self.keys: dict[int, tuple[Scalar, Scalar]] = {}
        self.gate: Scalar | None = None
        self.tables = tables
        self._made: dict[tuple[object, ...], Scalar] = {}

    def of(self, tensor: Tensor) -> Scalar:
        """An input: a 0-d float64 tensor."""
        return Scalar(self, tensor)

    def made(
        self, how: Callable[..., Tensor], left: "float | Scalar", right: "float | Scalar"
    ) -> Scalar:
        """The result of the operation, from the cache if it was computed before."""
        key = (how, left, right)
        if key not in self._made:
            like = left if isinstance(left, Scalar) else right
            assert isinstance(like, Scalar)
            # a number on the host would be divided by as torch likes, which is by its reciprocal
            values = [
                x.tensor if isinstance(x, Scalar) else torch.full_like(like.tensor, x)
                for x in (left, right)
            ]
            self._made[key] = Scalar(self, how(*values))
        return self._made[key]

    def on_device(self, numbers: npt.NDArray[np.int64]) -> Tensor:
        """The tables on the device. A step's are the same each time, but for what it looks up."""
        name = numbers.tobytes()
        if name not in self.tables:
            self.tables[name] = self._copied(torch.from_numpy(numbers))
        return self.tables[name]

    def _copied(self, numbers: Tensor) -> Tensor:
        """Copied to the device at once, even while a graph is captured there."""
        device = self.one.tensor.device
        if device.type == "cpu":
            return numbers
        stream = torch.cuda.Stream(device)
        with torch.cuda.stream(stream):
            copy = numbers.to(device)
        stream.synchronize()
        return copy

    def __enter__(self) -> "Scalars":
        _open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _open.pop()


def _gated(value: Tensor, gate: Tensor) -> Tensor:
    return torch.where(gate != 0.0, value, 0.0)


def current_scalars() -> Scalars | None:
    """Those of the step that is being taken, if it has any."""
    return _open[-1] if _open else None
