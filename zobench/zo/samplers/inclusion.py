"""CurvZO's arithmetic on scores: inclusion probabilities and the adaptive budget, no tensors."""

import math
from collections.abc import Sequence


def saturated(weights: Sequence[float], budget: float) -> list[float]:
    """pi_b = min(1, tau w_b) with sum pi = budget exactly, the optimum for pi <= 1 (paper form).

    budget: expected number of tensors, at most len(weights). Weights are positive.
    """
    order = sorted(range(len(weights)), key=lambda b: -weights[b])
    pi = [1.0] * len(weights)
    left, rest = budget, math.fsum(weights)
    for place, b in enumerate(order):  # the largest saturate first
        if left * weights[b] < rest:
            for other in order[place:]:
                pi[other] = left * weights[other] / rest
            break
        left, rest = left - 1.0, rest - weights[b]
    return pi


def unsaturated(weights: Sequence[float], budget: float) -> list[float]:
    """pi_b = tau p_b, p = w / sum w, with tau at most 1 / max p (released form).

    The released bisection cannot pass that end, so the attained budget is min(budget, 1 / max p):
    with one dominant score it is far below the requested one.
    """
    total = math.fsum(weights)
    tau = min(budget, total / max(weights))
    return [tau * w / total for w in weights]


def target_ratio(scores: Sequence[float], low: float, high: float, alpha: float) -> float:
    """Budget as a share of the tensors, from effective support size and entropy (paper, Eq. 20).

    low + (high - low) (alpha d_eff / n + (1 - alpha) (1 - H)), d_eff = (sum sqrt S)^2 / sum S and H
    the entropy of S / sum S over its largest value. A single tensor has H = 1.
    """
    n, total = len(scores), math.fsum(scores)
    support = math.fsum(math.sqrt(s) for s in scores) ** 2 / total / n
    shares = [s / total for s in scores]
    entropy = -math.fsum(q * math.log(q) for q in shares if q > 0) / math.log(n) if n > 1 else 1.0
    return low + (high - low) * (alpha * support + (1.0 - alpha) * (1.0 - entropy))
