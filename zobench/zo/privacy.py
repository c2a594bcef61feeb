"""The privacy of a run that adds Gaussian noise to clipped sums: Renyi accounting of its steps.

Each step releases the sum of a batch's contributions, each at most C in size, plus Gaussian noise
of standard deviation noise * C. Where an example is in a batch with probability `rate`, a step has
the Renyi divergence of Mironov, Talwar and Zhang 2019 (arXiv 1908.10530, section 3.3) at integer
orders; steps add up; the conversion to (epsilon, delta) is that of Canonne, Kamath and Steinke 2020
(arXiv 2004.00010, proposition 12). The bound is for adding or removing one example.
"""

import math

_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)


def epsilon_of(*, noise: float, rate: float, steps: int, delta: float) -> float:
    """The smallest epsilon that the orders give.

    Args:
        noise: Standard deviation of the noise over the bound of a contribution, above 0.
        rate: Probability that an example is in a batch, in (0, 1].
        steps: Number of steps, at least 0.
        delta: In (0, 1).

    Returns:
        Epsilon, at least 0.
    """
    if steps == 0:
        return 0.0
    found = (
        steps * renyi(noise, rate, order)
        + math.log1p(-1.0 / order)
        - (math.log(delta) + math.log(order)) / (order - 1)
        for order in _ORDERS
    )
    return max(0.0, min(found))


def renyi(noise: float, rate: float, order: int) -> float:
    """Renyi divergence of one step: log(sum over k of binomial(k) exp(k (k - 1) / (2 noise^2))).

    Args:
        noise: As in `epsilon_of`.
        rate: As in `epsilon_of`.
        order: At least 2.

    Returns:
        The divergence of that order, in nats.
    """
    if rate == 1.0:
        return order / (2.0 * noise**2)
    terms = [
        math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
        + k * math.log(rate) + (order - k) * math.log1p(-rate)
        + k * (k - 1) / (2.0 * noise**2)
        for k in range(order + 1)
    ]  # fmt: skip
    largest = max(terms)
    return (largest + math.log(math.fsum(math.exp(t - largest) for t in terms))) / (order - 1)
