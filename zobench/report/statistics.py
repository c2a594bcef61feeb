"""Intervals over seeds and test examples, and a paired test.

Everything is drawn from generators with a fixed seed: the same scores give the same result.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
RESAMPLES = 2_000
FLIPS = 10_000
_AT_ONCE = 1_000  # flips held in memory
# 97.5 % quantiles of Student's t by degrees of freedom; for more than ten, ten's (conservative)
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def seed_interval(means: Numbers) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over seeds. means (S,); NaN below two seeds."""
    seeds = len(means)
    if seeds < 2:
        return math.nan, math.nan
    pick = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    deviations = means[pick].mean(axis=1) - means.mean()
    # `pick` resamples seeds with the variance of S - 1 of them.
    return _percentiles(means.mean() + math.sqrt(seeds / (seeds - 1)) * deviations)


def interval(scores: Sequence[Numbers], *, shared: bool) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over seeds and test examples.

    scores: per seed, one number per test example. shared: all seeds were tested on the same
    examples, and a resample then takes the same ones for all of them: drawing anew for each seed
    would treat 5 seeds x 1000 examples as 5000 examples. Of a single seed: over examples only.
    Measured coverage is 91 to 98 % at 5 seeds, more where neither seeds nor examples differ, and
    about 86 % at 2 or 3 seeds that differ more than the examples do.
    """
    generator = np.random.default_rng(0)
    if shared:
        resampled = _resampled(np.stack(scores), generator)
    else:
        resampled = np.hstack([_resampled(one[None], generator) for one in scores])
    if len(scores) == 1:
        return _percentiles(resampled[:, 0])
    means = np.array([one.mean() for one in scores])
    pick = generator.integers(len(means), size=resampled.shape)
    over_both = np.take_along_axis(resampled, pick, axis=1).mean(axis=1)
    # `pick` resamples seeds with the variance of S - 1 of them; what lacks is added.
    lacking = math.sqrt(len(means) / (len(means) - 1)) - 1
    return _percentiles(over_both + lacking * (means[pick].mean(axis=1) - means.mean()))


def sign_flip(differences: Numbers) -> float:
    """Two-sided p of a mean difference of zero, by flipping signs. differences: per example.

    Never 0: one of the flips counted is the one observed.
    """
    differences = differences[np.abs(differences) > 1e-9]  # of the rest a flip changes nothing
    generator = np.random.default_rng(0)
    beyond = 0
    for _ in range(FLIPS // _AT_ONCE):
        coins = np.frombuffer(generator.bytes(_AT_ONCE * len(differences)), dtype=np.uint8)
        signs = 1.0 - 2.0 * (coins & 1).reshape(_AT_ONCE, len(differences))
        # Equal sums may differ in their last bits.
        beyond += int((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-6).sum())
    return (1 + beyond) / (1 + FLIPS)


def student_half_width(values: Numbers) -> float:
    """Half of the 95 % interval of Student's t for the mean; NaN below two values."""
    if len(values) < 2:
        return math.nan
    quantile = T95[min(len(values) - 1, len(T95)) - 1]
    return float(quantile * values.std(ddof=1) / math.sqrt(len(values)))


def _resampled(scores: Numbers, generator: np.random.Generator) -> Numbers:
    """Means (RESAMPLES, S) of scores (S, N), of N examples drawn with replacement each time."""
    # Examples with the same scores are one kind: how often each kind is drawn is multinomial.
    kinds, counts = np.unique(scores, axis=1, return_counts=True)
    total = scores.shape[1]
    drawn = generator.multinomial(total, counts / total, size=RESAMPLES)
    return np.asarray(drawn @ kinds.T / total)


def _percentiles(values: Numbers) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
