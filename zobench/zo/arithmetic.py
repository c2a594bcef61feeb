"""Where weights are displaced and how they are rounded.

16-bit weights that are perturbed in place are rounded at every step: after 1,000 steps without an
update bfloat16 has drifted by a tenth, and updates smaller than half a weight's spacing are lost
(docs/numerics.md). By default 2 bytes per weight, the remainder, hold what rounding takes away, at
displacements and at updates: weight and remainder together are one float32. `inplace` with
`nearest` is the arithmetic of MeZO's code and of codes based on it; `scratch` with `stochastic`
displaces copies, for weights without remainders.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import torch

from zobench.zo import noise
from zobench.zo.feedback import Request
from zobench.zo.plan import Plan
from zobench.zo.rounding import Mode, Rounding
from zobench.zo.scratch import Scratch
from zobench.zo.space import Slot

REMAINDER = "remainder"  # the buffer of a slot: 2 bytes a parameter
_ROUNDING = 21  # stream number of the noise that rounds


# The default rounding of each value of `walk`.
_USUAL = {"auto": Mode.REMAINDER, "inplace": Mode.NEAREST, "scratch": Mode.STOCHASTIC}


class Displacement(Protocol):
    """Moves the weights to the points at which the loss is evaluated: a `Plan`, or `Scratch`.

    hint: another reason than training for a NaN as a run's first loss, which is added to the
    message.
    """

    hint: str

    def evaluating(self, request: Request) -> AbstractContextManager[None]:
        """A context in which the model computes with w + sum of scale * z(key)."""

    def leave(self) -> None:
        """Back to the clean weights, without an update."""


class Arithmetic:
    """How weights are displaced, and how 16-bit weights are rounded.

    float32 and float64 weights are never rounded. By default a 16-bit weight has a remainder of 2
    bytes, and the pair is displaced in place like a float32.

    Args:
        walk: `inplace` displaces the weights themselves, `scratch` displaces copies module by
            module, `auto` follows from the rounding.
        rounding: Of 16-bit weights: `nearest` (the arithmetic of the papers' code), `compensated`
            (a remainder of 2 bytes per weight), `stochastic` (up or down at random), or `auto`:
            compensated in place, stochastic in scratch.

    Raises:
        ValueError: A name is not known, or `scratch` is combined with another rounding than
            `stochastic`.
    """

    def __init__(self, *, walk: str = "auto", rounding: str = "auto") -> None:
        if walk not in _USUAL:
            raise ValueError(f"arithmetic.walk={walk}: choose auto, inplace or scratch")
        if rounding not in ("auto", *Mode):
            raise ValueError(f"arithmetic.rounding={rounding}: choose auto or {', '.join(Mode)}")
        self._mode = _USUAL[walk] if rounding == "auto" else Mode(rounding)
        if walk == "scratch" and self._mode is not Mode.STOCHASTIC:
            raise ValueError(
                f"arithmetic.walk=scratch: rounds by chance, not {rounding}; choose inplace, or"
                " arithmetic.rounding=stochastic"
            )
        self._walk = walk

    def begin(self, slots: Sequence[Slot], plan: Plan) -> Displacement:
        """Choose the displacement of these slots; 16-bit ones get the buffers of their rounding.

        Args:
            slots: The trainable tensors.
            plan: Moves the weights in place.

        Returns:
            The displacement.
        """
        half = [slot for slot in slots if slot.parameter.dtype.itemsize < 4]
        by_chance = self._walk == "auto" and self._mode is Mode.STOCHASTIC and bool(half)
        scratch = self._walk == "scratch" or by_chance
        for slot in half if self._mode is Mode.REMAINDER else ():
            slot.rounding = Rounding(self._mode, slot.buffer(REMAINDER, torch.int16))
        self._dithered = half if self._mode is Mode.STOCHASTIC else []
        return Scratch(plan) if scratch else plan

    def begin_update(self, seed: int, step: int) -> None:
        """Take new noise for the rounding of this step's update.

        Args:
            seed: The run's seed.
            step: Number of the step, from 0.
        """
        for slot in self._dithered:
            stream = noise.Stream(noise.mix(seed, step, 0), slot.id, _ROUNDING)
            slot.rounding = Rounding(self._mode, stream=stream)

    def end_update(self) -> None:
        """Round to nearest again, for the next displacements."""
        for slot in self._dithered:
            slot.rounding = replace(slot.rounding, mode=Mode.NEAREST, stream=None)
