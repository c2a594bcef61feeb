"""Aggregates of a score over workloads, with intervals over seeds (Agarwal et al. 2021).

"Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv 2108.13264: the mean,
the median over workloads, the interquartile mean over all runs, and the probability of improvement,
each with a stratified bootstrap, which draws seeds anew within every workload. The definitions are
those of the package rliable, whose intervals are percentiles without a correction for few seeds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zobench.report.statistics import RESAMPLES, Numbers


class Estimate(NamedTuple):
    """A number with its 95 % interval, NaN where a workload has a single seed."""

    value: float
    low: float
    high: float


def mean(scores: Sequence[Numbers]) -> Numbers:
    """Mean over workloads of the mean over seeds. scores: per workload (..., S); returns (...)."""
    return np.asarray(_means(scores).mean(axis=0))


def median(scores: Sequence[Numbers]) -> Numbers:
    """Median over workloads of the mean over seeds; shapes as in `mean`."""
    return np.asarray(np.median(_means(scores), axis=0))


def interquartile_mean(scores: Sequence[Numbers]) -> Numbers:
    """Mean of the middle half of the runs of all workloads; shapes as in `mean`.

    A quarter of the runs, rounded down, is cut at each end.
    """
    runs = np.sort(np.concatenate(scores, axis=-1), axis=-1)
    cut = runs.shape[-1] // 4
    return np.asarray(runs[..., cut : runs.shape[-1] - cut].mean(axis=-1))


def improvement(scores: Sequence[Numbers], others: Sequence[Numbers]) -> Numbers:
    """P(X > Y) + P(X = Y) / 2 for a run X and a run Y of `others`, the mean over workloads.

    Args:
        scores: per workload (..., S).
        others: per workload (..., T), in the same order.
    """
    shares = []
    for mine, theirs in zip(scores, others, strict=True):
        left, right = mine[..., :, None], theirs[..., None, :]
        shares.append(((left > right) + 0.5 * (left == right)).mean(axis=(-2, -1)))
    return np.asarray(np.mean(shares, axis=0))


def aggregates(scores: Sequence[Numbers]) -> dict[str, Estimate]:
    """Mean, median and interquartile mean. scores: per workload (S,), higher or lower is better."""
    drawn = _resampled(scores, np.random.default_rng(0))
    measures = {"mean": mean, "median": median, "IQM": interquartile_mean}
    return {name: _estimate(float(of(scores)), of(drawn), scores) for name, of in measures.items()}


def improvement_over(scores: Sequence[Numbers], others: Sequence[Numbers]) -> Estimate:
    """The probability of improvement over `others`; higher is better. Shapes (S,) and (T,)."""
    generator = np.random.default_rng(0)
    drawn = improvement(_resampled(scores, generator), _resampled(others, generator))
    return _estimate(float(improvement(scores, others)), drawn, [*scores, *others])


def _means(scores: Sequence[Numbers]) -> Numbers:
    return np.stack([one.mean(axis=-1) for one in scores])


def _resampled(scores: Sequence[Numbers], generator: np.random.Generator) -> list[Numbers]:
    """Per workload (RESAMPLES, S): its seeds drawn with replacement, apart from the others."""
    return [one[generator.integers(len(one), size=(RESAMPLES, len(one)))] for one in scores]


def _estimate(value: float, drawn: Numbers, scores: Sequence[Numbers]) -> Estimate:
    if min(len(one) for one in scores) < 2:
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(value, float(low), float(high))
