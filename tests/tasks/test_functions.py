"""The tasks without text: their values, their gradients, their noise and what they refuse."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from zobench.build import build
from zobench.errors import UserError
from zobench.models.loaded import LoadedModel
from zobench.tasks import functions
from zobench.tasks.problem import Problem

CPU = torch.device("cpu")
Compose = Callable[..., dict[str, Any]]


def ready(compose: Compose, *overrides: str) -> tuple[LoadedModel, Problem]:
    """The model and the problem that a command line describes."""
    settings = compose(*overrides)
    loaded = build(settings["model"])
    return loaded, build(settings["task"]).prepare(loaded, CPU)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("function", "at", "value", "gradient"),
    [
        (functions.rosenbrock, (1.0, 1.0), 0.0, (0.0, 0.0)),
        (functions.rosenbrock, (-1.2, 1.0), 24.2, (-215.6, -88.0)),
        (functions.monkey_saddle, (2.0, 1.0), 8.25, (19.0, -7.0)),
        (functions.monkey_saddle, (-3.0, 0.0), -6.75, (0.0, 0.0)),
        (functions.monkey_saddle, (0.0, 0.0), 0.0, (0.0, 0.0)),
        (functions.linear, (3.0, 1.0, 4.0, 1.0), 4.5, (0.5, 0.5, 0.5, 0.5)),
        (functions.misalignment, (1.0, 1.0), -0.5, (-0.5, 0.5)),
        (functions.misalignment, (0.0, 0.0, 0.0, 0.0), -0.25, (0.0, 0.0, 0.0, 0.0)),
        (functions.ldsd_landscape, (0.0, 0.0), 0.5, (0.0, 0.0)),
    ],
)
def test_known_values_and_gradients(
    function: Callable[[torch.Tensor], torch.Tensor],
    at: tuple[float, ...],
    value: float,
    gradient: tuple[float, ...],
) -> None:
    """By hand, at points where they are simple."""
    x = vector(*at)
    found = function(x)
    found.backward()
    assert float(found.detach()) == pytest.approx(value, abs=1e-12)
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx(gradient, abs=1e-9)


@pytest.mark.parametrize("degrees", [0, 30, 90])
@pytest.mark.parametrize("kappa", [0.5, 1.0, 3.0, 10.0])
def test_the_landscape_is_the_expected_alignment_around_a_mean(kappa: float, degrees: int) -> None:
    """1 - mean of cos^2 over 200,000 draws of N(mu, I), within 4 standard errors."""
    angle = math.radians(degrees)
    mu = np.array([kappa * math.cos(angle), kappa * math.sin(angle)])
    v = mu + np.random.default_rng(0).standard_normal((200_000, 2))
    cosines = v[:, 0] ** 2 / (v**2).sum(1)
    value = float(functions.ldsd_landscape(torch.tensor(mu)))
    assert value == pytest.approx(1 - cosines.mean(), abs=4 * cosines.std() / math.sqrt(200_000))


def test_the_landscape_has_a_saddle_and_two_ridges() -> None:
    """At mu = 0 the Hessian has one sign along the gradient's axis and the other across."""
    hessian = torch.autograd.functional.hessian(functions.ldsd_landscape, vector(1e-3, 1e-3))
    assert hessian[0, 0] < 0 < hessian[1, 1]
    far = [float(functions.ldsd_landscape(vector(x, 0.0)).detach()) for x in (1.0, -1.0, 5.0, -5.0)]
    assert far[0] == far[1] > far[2] == far[3]


def test_the_quadratic_is_conmezos(compose: Compose) -> None:
    """Trace 48.708, |x_0| = 10 and f(x_0) = 2.4382: the released synthetic experiment's numbers."""
    loaded, problem = ready(compose, "task=quadratic")
    x = torch.cat([t.detach() for t in loaded.model.tensors])
    assert float(x.norm()) == pytest.approx(10.0, abs=1e-12)
    assert problem.evaluate(loaded.model, "dev", 1)["loss"] == pytest.approx(2.4382, abs=5e-5)
    problem.loss(loaded.model, problem.batch([0])).backward()
    curvature = torch.cat([t.grad for t in loaded.model.tensors]) / x
    assert float(curvature.sum()) == pytest.approx(48.708, abs=5e-4)
    assert float(curvature[0]) == pytest.approx(1e-9)
    assert float(curvature[-1]) == pytest.approx(1.0)


def test_blocks_have_one_curvature_each(compose: Compose) -> None:
    """The gradient of a block is a multiple of the block, between 1 / condition and 1."""
    loaded, problem = ready(compose, "task=quadratic_tensors")
    problem.loss(loaded.model, problem.batch([0])).backward()
    ratios = [t.grad / t.detach() for t in loaded.model.tensors]
    assert all(r.max() == pytest.approx(float(r.min()), rel=1e-12) for r in ratios)
    means = [float(r.mean()) for r in ratios]
    assert len(set(means)) == 64
    assert 1e-3 <= min(means) < 5e-3 and 0.2 < max(means) <= 1.0


def test_rows_share_one_stiff_direction(compose: Compose) -> None:
    """Each matrix has I kron A as its Hessian: once 1, else 1 / condition, for every row."""
    loaded, problem = ready(compose, "task=quadratic_columns", "task.shapes=[[3,5]]")
    (x,) = loaded.model.tensors

    def f(flat: torch.Tensor) -> torch.Tensor:
        model = type("M", (), {"tensors": [flat.view(3, 5)]})
        return problem.loss(model, problem.batch([0]))

    hessian = torch.autograd.functional.hessian(f, x.detach().reshape(-1)).view(3, 5, 3, 5)
    a = hessian[0, :, 0, :]
    assert torch.allclose(torch.linalg.eigvalsh(a), torch.tensor([0.01] * 4 + [1.0]).double())
    for i in range(3):
        for j in range(3):
            expected = a if i == j else torch.zeros_like(a)
            assert torch.allclose(hessian[i, :, j, :], expected, atol=1e-12)


def test_noise_shifts_an_examples_gradient_and_nothing_else(compose: Compose) -> None:
    """Std as asked over many examples, smaller in a batch, absent from dev and test."""
    overrides = ("task=quadratic", "task.shapes=[[400]]", "task.noise=0.3", "task.examples=50")
    loaded, problem = ready(compose, *overrides)
    (x,) = loaded.model.tensors

    def gradient(*indices: int) -> torch.Tensor:
        x.grad = None
        problem.loss(loaded.model, problem.batch(indices)).backward()
        assert x.grad is not None
        return x.grad

    exact, clean = ready(compose, *overrides[:2])
    clean.loss(exact.model, clean.batch([0])).backward()
    shifts = torch.stack([gradient(i) - exact.model.tensors[0].grad for i in range(50)])
    assert float(shifts.std()) == pytest.approx(0.3, rel=0.03)
    assert torch.allclose(gradient(0, 1, 2) - exact.model.tensors[0].grad, shifts[:3].mean(0))
    for split in ("dev", "test"):
        values = [p.evaluate(m.model, split, 1) for m, p in ((loaded, problem), (exact, clean))]
        assert values[0] == values[1]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("task=quadratic", "model=tiny"), "model=point"),
        (("task=a9a", "model=tiny"), "model=linear"),
        (("task=a9a",), "task.data_dir"),
        (("task=a9a", "task.data_dir=nowhere"), "nowhere"),
        (("task=a9a", "task.l2=0"), "task.l2"),
        (("task=quadratic", "task.condition=0.5"), "task.condition"),
        (("task=quadratic", "task.start=[1,2]"), "1000 coordinates"),
        (("task=quadratic", "task.shapes=[]"), "task.shapes"),
    ],
)
def test_what_does_not_fit_is_refused(
    compose: Compose, overrides: tuple[str, ...], says: str
) -> None:
    """One sentence names the setting."""
    with pytest.raises(UserError, match=says):
        ready(compose, *overrides)


def test_text_needs_a_model_that_reads(compose: Compose) -> None:
    """A choice task on a bare point is refused before any data is read."""
    task = build(compose("task=synthetic_reviews")["task"])
    with pytest.raises(UserError, match="model=tiny"):
        task.prepare(build(compose("task=quadratic")["model"]), CPU)


def test_two_coordinates_are_two(compose: Compose) -> None:
    """A plane's function refuses more."""
    loaded, problem = ready(compose, "task=monkey_saddle", "task.shapes=[[3]]", "task.start=1.0")
    with pytest.raises(UserError, match="2 coordinates"):
        problem.evaluate(loaded.model, "dev", 1)
