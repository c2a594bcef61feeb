"""Sampling of tokens by explicit noise: the same numbers for the same row, whatever the batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from zobench.errors import UserError

_WHOLE = 2**40  # probability 1 as an integer; sums of integers do not depend on their order


@runtime_checkable
class Redrawn(Protocol):
    """A batch whose loss has noise, which is another one in each step."""

    def drawn(self, step: int, stream: int) -> Self:
        """The batch with the noise of a step. stream: of the data order that the step is of."""


@dataclass(frozen=True)
class Sampling:
    """Temperature, then the nucleus of `top_p` (Holtzman et al. 2020).

    A token is drawn by a race: with independent exponential times E, the token with the largest
    p / E has the distribution p. Where p changes little, the token mostly stays the same, so that
    the points of a step are compared by the same texts but for what their weights change.

    Args:
        temperature: Divides the logits, above 0.
        top_p: Only the most probable tokens that have this share together are drawn; 1 is all.
        seed: Of the noise, from 0 up.

    Raises:
        UserError: A value is out of range.
    """

    temperature: float
    top_p: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise UserError(f"task.temperature={self.temperature}: must be above 0 and finite")
        if not 0 < self.top_p <= 1:
            raise UserError(f"task.top_p={self.top_p}: must be above 0 and at most 1")

    def noise(
        self, place: tuple[int, int], sample: int, draw: tuple[int, ...] = ()
    ) -> np.random.Generator:
        """The generator of one sample's times, one per token of the vocabulary and place.

        place: the number of the split and of the row in it. draw: in training, the step and the
        stream of its batch.
        """
        return np.random.default_rng([self.seed, *place, sample, *draw])

    def draw(self, logits: Tensor, times: Tensor) -> Tensor:
        """The tokens (B,) that win the race.

        Args:
            logits: (B, vocabulary), without NaN.
            times: (B, vocabulary), exponential, float32.
        """
        p = (logits.double() / self.temperature).softmax(-1)
        if self.top_p < 1:
            shares, tokens = (p * _WHOLE).long().sort(dim=-1, descending=True, stable=True)
            before = shares.cumsum(-1) - shares
            kept = before < self.top_p * shares.sum(-1, keepdim=True)
            p *= torch.zeros_like(p).scatter(1, tokens, kept.double())
        least = torch.finfo(times.dtype).tiny  # no division by zero
        return (p / times.clamp(min=least)).argmax(-1)


class Choosing:
    """A logits processor of `generate` that leaves only the token that is drawn.

    Args:
        sampling: The distribution.
        noise: Of each row of the batch.

    Attributes:
        broken: (B,) rows that had a NaN among their logits; None before the first token.
    """

    def __init__(self, sampling: Sampling, noise: Sequence[np.random.Generator]) -> None:
        self.sampling, self.noise = sampling, noise
        self.broken: Tensor | None = None

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        del ids
        nan = logits.isnan().any(-1)
        self.broken = nan if self.broken is None else self.broken | nan
        size = logits.shape[-1]
        rows = [rng.standard_exponential(size, dtype=np.float32) for rng in self.noise]
        times = torch.from_numpy(np.stack(rows)).to(logits.device)
        drawn = self.sampling.draw(logits.masked_fill(nan[:, None], 0.0), times)
        return torch.full_like(logits, -math.inf).scatter(1, drawn[:, None], 0.0)
