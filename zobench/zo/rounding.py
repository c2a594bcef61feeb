"""How float32 results become 16-bit weights again: to nearest, with a remainder, or by chance.

* nearest: the nearest value, ties to even. Updates below half the spacing of a weight are lost.
* remainder: an int16 per weight holds what rounding took away, so that nothing is lost. For
  bfloat16 the two are the 32 bits of a float32; for float16 the int16 counts 2^-16 of the weight's
  spacing, which holds a float32 to its last bit down to 6e-5, and 2^-40 below.
* stochastic: up or down by 16 bits of noise, with the chances that make the mean exact.
"""

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from zobench.zo import noise


class Mode(StrEnum):
    """Name of a rounding, as written in a config."""

    NEAREST = "nearest"
    REMAINDER = "compensated"
    STOCHASTIC = "stochastic"


@dataclass(frozen=True, eq=False)
class Rounding:
    """The rounding of one flat tensor; of float32 and float64 storage there is none.

    remainder: int16 of the tensor's size, where the mode keeps one. stream: of the noise that
    decides, where chance does; a new one for every pass.
    """

    mode: Mode = Mode.NEAREST
    remainder: Tensor | None = None
    stream: noise.Stream | None = None

    def widen(self, stored: Tensor, place: slice) -> Tensor:
        """The place's weights to work on: as they are, or 16-bit ones as float32, a copy."""
        part = stored[place]
        if part.dtype.itemsize >= 4:
            return part
        if self.remainder is None:
            return part.float()
        left = self.remainder[place]
        if part.dtype == torch.bfloat16:
            high = part.view(torch.int16).int() << 16
            joined = (high + left.int()).view(torch.float32)
            # a zero that was written from outside next to an old remainder stays 0, not NaN
            return torch.where((part == 0) & (left < 0), part.float(), joined)
        return part.float() + left.float() * _quantum(part)

    def store(self, work: Tensor, stored: Tensor, place: slice) -> None:
        """Round float32 values into the place."""
        part = stored[place]
        if part.dtype.itemsize >= 4:
            if part.data_ptr() != work.data_ptr():
                part.copy_(work)
        elif self.remainder is not None:
            self._split(work, part, self.remainder[place])
        elif self.stream is not None:
            part.copy_(_dithered(work, part.dtype, self.stream, place.start))
        else:
            part.copy_(work)

    def _split(self, work: Tensor, part: Tensor, left: Tensor) -> None:
        if part.dtype == torch.bfloat16:
            bits = work.view(torch.int32)
            part.view(torch.int16).copy_(_low((bits + 0x8000) >> 16))
            left.copy_(_low(bits))
            return
        part.copy_(work)
        steps = torch.round((work - part.float()) / _quantum(part))
        left.copy_(steps.clamp_(-32768, 32767))


NEAREST = Rounding()


def _low(bits: Tensor) -> Tensor:
    """The low 16 bits of int32 values, as the int16 that has them."""
    return (((bits & 0xFFFF) ^ 0x8000) - 0x8000).to(torch.int16)


def _quantum(half: Tensor) -> Tensor:
    """2^-16 of the spacing of float16 values."""
    exponent = ((half.view(torch.int16).int() >> 10) & 31).clamp_(min=1)
    return ((exponent + 86) << 23).view(torch.float32)


def _dithered(work: Tensor, dtype: torch.dtype, stream: noise.Stream, start: int) -> Tensor:
    """Values of `dtype`, as float32, above or below those of `work`."""
    bits = noise.sixteen_bits(stream, start, work.numel(), work.device)
    if dtype == torch.bfloat16:
        return ((work.view(torch.int32) + bits) & -0x10000).view(torch.float32)
    exponent = ((work.view(torch.int32) >> 23) & 255).clamp_(min=113)
    spacing = ((exponent - 10) << 23).view(torch.float32)
    # 13 bits: with the 11 of a float16 they are exact, so that a multiple stays what it is
    steps = torch.floor(work.abs() / spacing + (bits >> 3).float() * 2.0**-13) * spacing
    return torch.where(work > 0.0, steps, -steps)
