"""Sampling of tokens by explicit noise: the same numbers for the same row, whatever the batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zobench.errors import UserError

_WHOLE = 2**40  # probability 1 as an integer; sums of integers do not depend on their order


@dataclass(frozen=True)
class Sampling:
    """Temperature, then the nucleus of `top_p` (Holtzman et al. 2020).

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

    def noise(self, place: tuple[int, int], sample: int, most: int) -> list[float]:
        """Uniform numbers for the tokens of one sample, `most` of them, in [0, 1).

        place: the number of the split and of the row in it.
        """
        generator = np.random.default_rng([self.seed, *place, sample])
        uniform: list[float] = generator.random(most).tolist()
        return uniform

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """The tokens (B,) at which the cumulative distributions pass the uniform numbers.

        The cumulative distribution is in the order of the vocabulary, so that a small change of
        the logits changes few tokens.

        Args:
            logits: (B, vocabulary), without NaN.
            uniform: (B,) float64.
        """
        shares = ((logits.double() / self.temperature).softmax(-1) * _WHOLE).long()
        if self.top_p < 1:
            ordered, tokens = shares.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(-1) - ordered
            kept = before < self.top_p * shares.sum(-1, keepdim=True)
            shares = torch.zeros_like(shares).scatter(1, tokens, ordered * kept)
        passed = shares.cumsum(-1)
        at = (uniform[:, None] * passed[:, -1:]).long()
        return torch.searchsorted(passed, at, right=True).squeeze(1)


class Choosing:
    """A logits processor of `generate` that leaves only the token that is drawn.

    Args:
        sampling: The distribution.
        noise: A list of uniform numbers per row of the batch, one per new token.
        width: Tokens of the prompts.

    Attributes:
        broken: (B,) rows that had a NaN among their logits.
    """

    def __init__(
        self,
        sampling: Sampling,
        noise: Sequence[Sequence[float]],
        width: int,
        device: torch.device,
    ) -> None:
        self.sampling, self.width = sampling, width
        self.noise = torch.tensor(noise, dtype=torch.float64, device=device)
        self.broken = torch.zeros(len(noise), dtype=torch.bool, device=device)

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        nan = logits.isnan().any(-1)
        self.broken |= nan
        sound = logits.masked_fill(nan[:, None], 0.0)
        drawn = self.sampling.draw(sound, self.noise[:, ids.shape[1] - self.width])
        return torch.full_like(logits, -math.inf).scatter(1, drawn[:, None], 0.0)
