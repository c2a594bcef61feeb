"""The accountant: closed forms, numerical integrals, and epsilons that others have published."""

import math

import numpy as np
import pytest

from zobench.zo.privacy import epsilon_of, renyi


@pytest.mark.parametrize("order", [2, 5, 32])
@pytest.mark.parametrize("noise", [0.8, 2.0])
def test_without_subsampling_it_is_the_gaussian_mechanism(noise: float, order: int) -> None:
    """order / (2 noise^2), and rates near 1 tend to it."""
    assert renyi(noise, 1.0, order) == pytest.approx(order / (2 * noise**2))
    assert renyi(noise, 1.0 - 1e-9, order) == pytest.approx(renyi(noise, 1.0, order), rel=1e-6)


@pytest.mark.parametrize("order", [2, 3, 8])
@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.01), (1.0, 0.3), (2.5, 0.1)])
def test_a_step_is_the_integral_of_the_definition(noise: float, rate: float, order: int) -> None:
    """log E[(mixture / normal)^order] / (order - 1) under the normal, by the trapezoid rule."""
    x = np.linspace(-30 * noise, 30 * noise + order, 400_001)
    plain = np.exp(-(x**2) / (2 * noise**2)) / (noise * math.sqrt(2 * math.pi))
    ratio = 1 - rate + rate * np.exp((2 * x - 1) / (2 * noise**2))
    integral = np.trapezoid(plain * ratio**order, x)
    assert renyi(noise, rate, order) == pytest.approx(math.log(integral) / (order - 1), rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "published"),
    [
        (4.0, 0.01, 10_000, 1.26),  # Abadi et al. 2016, section 3.2
        (1.3, 256 / 60_000, 15 * 234, 1.19),  # the MNIST rows of TensorFlow Privacy's tutorial
        (1.1, 256 / 60_000, 60 * 234, 3.01),
        (0.7, 256 / 60_000, 45 * 234, 7.10),
    ],
)
def test_published_epsilons_come_out(
    noise: float, rate: float, steps: int, published: float
) -> None:
    """At delta 1e-5, with the weaker conversion of their time, log(1/delta) / (order - 1), within
    half a percent, since they use fractional orders, too.
    """
    then = min(
        steps * renyi(noise, rate, n) + math.log(1e5) / (n - 1) for n in (*range(2, 65), 128, 256)
    )
    assert then == pytest.approx(published, rel=5e-3)
    assert epsilon_of(noise=noise, rate=rate, steps=steps, delta=1e-5) < then


def test_more_of_anything_costs_more() -> None:
    """Steps, a larger rate, a smaller delta and less noise raise epsilon; no step costs nothing."""
    usual = {"noise": 1.0, "rate": 0.02, "steps": 500, "delta": 1e-5}
    spent = epsilon_of(**usual)  # type: ignore[arg-type]
    for key, value in {"steps": 1000, "rate": 0.04, "delta": 1e-7, "noise": 0.9}.items():
        assert epsilon_of(**{**usual, key: value}) > spent  # type: ignore[arg-type]
    assert epsilon_of(**{**usual, "steps": 0}) == 0.0  # type: ignore[arg-type]
