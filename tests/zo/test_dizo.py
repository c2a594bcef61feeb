"""DiZO: what a projection does to the layers, what it learns, and that it is MeZO otherwise."""

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.arithmetic import Arithmetic
from zobench.zo.directions import Drawn
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.forward_gradient import ForwardGradient
from zobench.zo.estimators.greedy import Greedy
from zobench.zo.estimators.projected import Projected
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import CLEAN, Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.base import Rule
from zobench.zo.rules.moves import Moves
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.drift import Drift
from zobench.zo.samplers.gaussian import Gaussian

CPU = torch.device("cpu")
SHAPES = {
    "layers.0.q_proj.weight": (4, 3),
    "layers.0.q_proj.bias": (4,),
    "layers.0.k_proj.weight": (3, 5),
    "layers.1.v_proj.weight": (2, 6),
    "layers.1.query.weight": (2, 2),
}
MATCHED = ["layers.0.q_proj.weight", "layers.1.v_proj.weight", "layers.1.query.weight"]
EPS = 1e-3
State = dict[str, Tensor]


def weights(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for name, shape in SHAPES.items()
    }


def copies(parameters: dict[str, nn.Parameter]) -> State:
    return {name: p.detach().clone() for name, p in parameters.items()}


def loss_of(w: State | dict[str, nn.Parameter]) -> float:
    x = torch.cat([w[name].detach().double().flatten() for name in SHAPES])
    scale = torch.linspace(0.2, 1.0, len(x), dtype=torch.float64)
    return float((scale * ((x - 0.5).square() + 0.1 * x.pow(3))).mean())


def total(parameters: dict[str, nn.Parameter]) -> Tensor:
    """A linear loss, as a tensor."""
    return torch.cat([p.flatten() for p in parameters.values()]).sum()


def optimizer_of(
    parameters: dict[str, nn.Parameter],
    estimator: Estimator,
    *,
    lr: float = 0.0,
    sampler: Sampler | None = None,
    rule: Rule | None = None,
) -> ZOOptimizer:
    return ZOOptimizer(
        parameters.items(),
        arithmetic=Arithmetic(walk="inplace"),
        lr=lr,
        eps=EPS,
        sampler=sampler or Drift(),
        estimator=estimator,
        rule=rule or SGD(),
    )


def drift_away(parameters: dict[str, nn.Parameter], length: float = 1.0) -> State:
    """Move every tensor from where it is by that length; the drifts."""
    generator = torch.Generator().manual_seed(7)
    drifts = {}
    with torch.no_grad():
        for name, p in parameters.items():
            drift = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            drifts[name] = length * drift / drift.norm()
            p.add_(drifts[name])
    return drifts


def visited(optimizer: ZOOptimizer, parameters: dict[str, nn.Parameter]) -> list[State]:
    """Where a step evaluates."""
    points: list[State] = []

    def closure() -> float:
        points.append(copies(parameters))
        return loss_of(parameters)

    optimizer.step(closure)
    return points


def z_of(optimizer: ZOOptimizer) -> State:
    """The first step's Gaussian direction, dense."""
    out = {}
    for slot in optimizer.engine.slots:
        z = Drawn.normal(Key(0, 0, 0), slot.id).draw(0, slot.numel, CPU)
        out[slot.name] = z.double().view(slot.parameter.shape)
    return out


def gamma(w: Tensor, origin: Tensor, drift: Tensor) -> float:
    """w as origin + gamma drift; fails where it is not on that line."""
    value = float(((w - origin) * drift).sum() / drift.square().sum())
    torch.testing.assert_close(w, origin + value * drift, rtol=0, atol=1e-12)
    return value


def test_a_projection_is_the_published_run_over_one_number_per_layer() -> None:
    """Matched layers are only ever at w0 + gamma (w - w0); each pair at gamma +- eps u moves gamma
    by -rate slope u within 1 +- clip; they end at the last gamma; others keep their bits.
    """
    parameters = weights()
    origin = copies(parameters)
    estimator = Projected(TwoSided(), every=1, iterations=12, eps=0.3, rate=2.0, clip=0.15)
    optimizer = optimizer_of(parameters, estimator)
    drifts = drift_away(parameters)
    clean = copies(parameters)
    points = visited(optimizer, parameters)
    z = z_of(optimizer)
    assert len(points) == 26 and optimizer.record is not None
    for name in set(SHAPES) - set(MATCHED):
        assert all(torch.equal(point[name], clean[name]) for point in points[:24])
    shift, clipped, sizes = dict.fromkeys(MATCHED, 0.0), 0, []
    for plus, minus in zip(points[0:24:2], points[1:24:2], strict=True):
        slope = (loss_of(plus) - loss_of(minus)) / 0.6
        for name in MATCHED:
            ahead, behind = (gamma(p[name], origin[name], drifts[name]) for p in (plus, minus))
            u = (ahead - behind) / 0.6
            assert (ahead + behind) / 2 - 1 == pytest.approx(shift[name], abs=1e-10)
            wish = shift[name] - 2.0 * slope * u
            shift[name] = min(max(wish, -0.15), 0.15)
            clipped += wish != shift[name]
            sizes.append(u)
    assert 0 < clipped < 36 and len(set(sizes)) == 36
    assert optimizer.record.coefficients[1:] == pytest.approx(list(shift.values()), abs=1e-10)
    for name in MATCHED:
        ended = origin[name] + (1 + shift[name]) * drifts[name]
        torch.testing.assert_close(parameters[name].detach(), ended, rtol=0, atol=1e-10)
    for sign, point in zip((1, -1), points[24:], strict=True):
        for name in SHAPES:
            where = origin[name] + (1 + shift.get(name, 0.0)) * drifts[name]
            expected = where + sign * EPS * z[name]
            torch.testing.assert_close(point[name], expected, rtol=0, atol=1e-10)
    for name in set(SHAPES) - set(MATCHED):
        torch.testing.assert_close(parameters[name].detach(), clean[name], rtol=0, atol=1e-12)


def test_the_step_of_a_projection_is_mezos_from_the_projected_weights() -> None:
    """After a projection w <- w' - lr c z, c the two-sided slope at the projected weights w'."""
    parameters = weights()
    optimizer = optimizer_of(parameters, Projected(TwoSided(), every=1, iterations=3, rate=0.1))
    drifts = drift_away(parameters)
    clean = copies(parameters)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step(partial(loss_of, parameters))
    assert optimizer.record is not None
    c, *shifts = optimizer.record.coefficients
    assert len(shifts) == 3 and all(abs(shift) > 1e-6 for shift in shifts)
    for name, shift in zip(MATCHED, shifts, strict=True):
        clean[name] += shift * drifts[name]
    z = z_of(optimizer)
    plus, minus = (loss_of({n: clean[n] + s * EPS * z[n] for n in z}) for s in (1, -1))
    assert c == pytest.approx((plus - minus) / (2 * EPS), rel=1e-9)
    for name, p in parameters.items():
        expected = clean[name] - 0.1 * c * z[name]
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-12)


def test_a_drift_is_counted_from_the_weights_of_the_beginning() -> None:
    """After ordinary steps a projection moves each layer by (gamma - 1)(w - w0), and a later one
    starts from the same w0.
    """
    parameters = weights()
    origin = copies(parameters)
    optimizer = optimizer_of(
        parameters, Projected(TwoSided(), every=3, iterations=2, rate=5.0), lr=0.3
    )
    for step in range(9):
        due = step % 3 == 2
        optimizer.param_groups[0]["lr"] = 0.0 if due else 0.3
        clean = copies(parameters)
        optimizer.step(partial(loss_of, parameters))
        assert optimizer.record is not None
        shifts = optimizer.record.coefficients[1:]
        assert len(shifts) == (3 if due else 0)
        for name, shift in zip(MATCHED, shifts, strict=False):
            expected = clean[name] + shift * (clean[name] - origin[name])
            assert not torch.equal(expected, clean[name])
            torch.testing.assert_close(parameters[name].detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rate", "bound"), [(1e6, 0.2), (1e6, 0.05), (-1e6, 0.3)])
def test_gamma_stays_within_its_bounds(rate: float, bound: float) -> None:
    """However fast gamma moves, it ends at 1 +- clip."""
    parameters = weights()
    origin = copies(parameters)
    estimator = Projected(TwoSided(), every=1, iterations=5, rate=rate, clip=bound)
    optimizer = optimizer_of(parameters, estimator)
    drifts = drift_away(parameters)
    visited(optimizer, parameters)
    for name in MATCHED:
        end = gamma(parameters[name].detach(), origin[name], drifts[name])
        assert abs(end - 1) == pytest.approx(bound, abs=1e-10)


def test_it_goes_back_to_an_optimum_nearer_to_the_beginning() -> None:
    """On |w - w*|^2 / 2 with w* = w0 + 0.9 (w - w0) every gamma ends within 0.01 of 0.9."""
    parameters = weights()
    origin = copies(parameters)
    estimator = Projected(TwoSided(), every=1, iterations=60, rate=0.2)
    optimizer = optimizer_of(parameters, estimator)
    drifts = drift_away(parameters)

    def loss() -> float:
        aims = {name: origin[name] + 0.9 * drifts[name] for name in MATCHED}
        return sum(float((parameters[n].detach() - aims[n]).square().sum()) / 2 for n in MATCHED)

    before = loss()
    optimizer.step(loss)
    assert before == pytest.approx(0.015) and loss() < 1e-2 * before
    for name in MATCHED:
        end = gamma(parameters[name].detach(), origin[name], drifts[name])
        assert end == pytest.approx(0.9, abs=0.01)


def test_the_layers_are_perturbed_by_standard_normal_numbers() -> None:
    """u has mean 0, variance 1 and no correlation between layers, within five errors."""
    parameters = weights()
    origin = copies(parameters)
    n = 800
    optimizer = optimizer_of(
        parameters, Projected(TwoSided(), every=1, iterations=n, eps=1.0, rate=0.0)
    )
    drifts = drift_away(parameters)
    points = visited(optimizer, parameters)[: 2 * n : 2]
    u = torch.tensor(
        [[gamma(p[name], origin[name], drifts[name]) - 1 for name in MATCHED] for p in points]
    )
    assert u.mean(0).abs().max() < 5 / n**0.5
    moments = u.T @ u / n - torch.eye(3)
    assert moments.abs().max() < 5 * (2 / n) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_projection_due_it_is_mezo_bit_for_bit(dtype: torch.dtype) -> None:
    """Until the `every`-th step the path is MeZO's exactly; that step leaves it."""
    ends: list[list[State]] = []
    for sampler, estimator in (
        (Gaussian(), TwoSided()),
        (Drift(), Projected(TwoSided(), every=6, rate=10.0)),
    ):
        parameters = weights(dtype)
        optimizer = optimizer_of(parameters, estimator, lr=0.3, sampler=sampler)
        ends.append([])
        for _ in range(6):
            optimizer.step(partial(loss_of, parameters))
            ends[-1].append(copies(parameters))
    for step, (mine, mezos) in enumerate(zip(*ends, strict=True)):
        assert all(torch.equal(mine[name], mezos[name]) for name in SHAPES) is (step < 5)


def test_the_forwards_of_a_period_are_counted() -> None:
    """Two a step and two an iteration, in the step where the projection is, are counted."""
    parameters = weights()
    estimator = Projected(TwoSided(), every=5, iterations=3)
    optimizer = optimizer_of(parameters, estimator, lr=0.01)
    counts = [len(visited(optimizer, parameters)) for _ in range(10)]
    assert counts == [2, 2, 2, 2, 8] * 2
    assert [estimator.cost(n) for n in range(11)] == [*itertools.accumulate(counts, initial=0)]
    assert optimizer.engine.forwards == 32 == 10 * estimator.forwards


def test_a_projection_keeps_the_inner_estimators_moves() -> None:
    """With an estimator that moves by itself, a step goes to its point and to the last gamma."""
    parameters = weights()
    estimator = Projected(Greedy(), every=1, iterations=2, rate=0.1)
    optimizer = optimizer_of(parameters, estimator, rule=Moves())
    drift_away(parameters)
    points = visited(optimizer, parameters)
    best = min(points[4:], key=loss_of)
    for name, p in parameters.items():
        torch.testing.assert_close(p.detach(), best[name], rtol=0, atol=1e-12)


def test_a_model_without_such_layers_is_refused() -> None:
    """No matrix of that name is an error in one sentence; vectors of that name do not count."""
    names = {"h.0.attn.c_attn.weight": (3, 9), "h.0.v_proj.bias": (9,)}
    parameters = {name: nn.Parameter(torch.zeros(shape)) for name, shape in names.items()}
    with pytest.raises(ValueError, match="no trainable matrix has such a name") as caught:
        optimizer_of(parameters, Projected(TwoSided()))
    assert "\n" not in str(caught.value)
    fitting = Drift(match="c_attn")
    optimizer_of(parameters, Projected(TwoSided()), sampler=fitting)
    assert fitting.layers == 1


def test_a_projection_lends_its_weights_to_any_request() -> None:
    """An inner estimator that differentiates in forward mode does so at the projected weights."""
    slopes = []
    for inner in (TwoSided(), ForwardGradient()):
        parameters = weights()
        optimizer = optimizer_of(parameters, Projected(inner, every=1, iterations=2, rate=0.1))
        drift_away(parameters)
        optimizer.step(partial(total, parameters))
        assert optimizer.record is not None
        slopes.append(optimizer.record.coefficients)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-9)


def test_it_does_not_promise_that_the_first_evaluation_is_clean() -> None:
    """A projection comes before the inner estimator's clean loss, whatever that one promises."""
    assert CLEAN in Greedy().gives and CLEAN not in Projected(Greedy()).gives


def test_a_sampler_without_drifts_is_refused() -> None:
    """Projected needs the layers' drifts: Gaussian has none."""
    with pytest.raises(ValueError, match="Projected needs layer drifts"):
        optimizer_of(weights(), Projected(TwoSided()), sampler=Gaussian())


@pytest.mark.parametrize(
    ("name", "value"), [("every", 0), ("iterations", 0), ("eps", 0.0), ("clip", 1.0)]
)
def test_impossible_settings_are_refused(name: str, value: float) -> None:
    """Counts are at least 1, eps is positive and clip within (0, 1)."""
    with pytest.raises(ValueError, match=rf"estimator\.{name}={value}"):
        Projected(TwoSided(), **{name: value})  # type: ignore[arg-type]
