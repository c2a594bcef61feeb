"""Two-sided slopes of single examples, clipped, averaged, with Gaussian noise: DP-ZO and DPZero.

Tang et al. 2024 (arXiv 2401.04343) and Zhang et al. 2023 (arXiv 2310.09639): what a step tells
about its examples is one number a direction, so noise on that number makes it private, where DP-SGD
clips and noises whole gradients. Costs MeZO's two forwards; no memory.

`of_losses` turns the loss of each example at minus into one number whose distance from the mean
loss at plus is the clipped and noised difference. So the losses that a ledger holds give the
coefficient, and replays need no losses of single examples.

What is private are the trained weights, towards those who know neither seed nor settings, since the
noise follows from the seed, as the directions do. Logged losses, the ledger and the choice of the
best weights on dev are not covered.
"""

import math
from statistics import NormalDist

import torch
from torch import Tensor

from zobench.zo import noise as streams
from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, Feedback, Point, Step
from zobench.zo.privacy import epsilon_of

_NOISE = 22  # stream number of the noise


class Private(Estimator):
    """c = mean over examples of clip(s_i) + C sigma xi / B, s_i an example's slope along z.

    The closure returns a vector, the loss of each example of the batch; a single number is a batch
    of one example. The reported loss is the mean loss at the plus point.

    Formula:
        ```text
        s_i = (L_i(w + eps z) - L_i(w - eps z)) / (2 eps),  i = 1..B
        c = mean_i min(max(s_i, -C), C) + C sigma xi / B,  xi ~ N(0, 1)
        ```

    Args:
        clip: C, the largest slope that an example may have, above 0.
        noise: sigma, the noise over that bound, at least 0; 0 only clips.
        delta: Of the reported guarantee, in (0, 1).

    Raises:
        ValueError: An argument is out of range.

    References:
        Tang et al. 2024, DP-ZO, arXiv 2401.04343; Zhang et al. 2023, DPZero, arXiv 2310.09639.
    """

    gives = frozenset({GRAD})
    by_example = True
    directions, forwards = 1, 2

    def __init__(self, *, clip: float, noise: float, delta: float) -> None:
        if clip <= 0.0 or noise < 0.0 or not 0.0 < delta < 1.0:
            raise ValueError(
                f"estimator.clip={clip}, estimator.noise={noise}, estimator.delta={delta}: clip"
                " must be positive, noise not negative, delta in (0, 1)"
            )
        self.clip, self.noise, self.delta = clip, noise, delta
        self._plus = torch.zeros(0)  # losses of this step's examples at plus

    def of_losses(self, point: Point, losses: Tensor | float) -> float:
        rows = torch.as_tensor(losses).detach().double().reshape(-1).cpu()
        if not rows.isfinite().all():
            return math.nan  # clipped, it would not show
        [(key, scale)] = point.items()
        if scale > 0.0:
            self._plus = rows
            return float(rows.mean())
        slopes = ((self._plus - rows) / (-2.0 * scale)).clamp(-self.clip, self.clip)
        chance = streams.uniform(streams.Stream(streams.mix(*key), 0, _NOISE))
        drawn = NormalDist().inv_cdf(max(chance, 2.0**-53))
        slope = float(slopes.mean()) + self.clip * self.noise * drawn / len(rows)
        return float(self._plus.mean()) + 2.0 * scale * slope

    def estimate(self, step: Step) -> Asks:
        key = step.key(0)
        plus, minus = yield [{key: step.eps}, {key: -step.eps}]
        return Feedback(loss=plus, channels={GRAD: {key: (plus - minus) / (2.0 * step.eps)}})

    def report(self, steps: int, rate: float) -> dict[str, float]:
        """The guarantee after so many steps.

        Args:
            steps: Steps taken.
            rate: Share of the examples that a batch holds.

        Returns:
            `epsilon` and `delta`; nothing without noise, which promises nothing.
        """
        if not self.noise:
            return {}
        spent = epsilon_of(noise=self.noise, rate=rate, steps=steps, delta=self.delta)
        return {"epsilon": spent, "delta": self.delta}
