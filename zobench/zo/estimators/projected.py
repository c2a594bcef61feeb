"""DiZO (arXiv 2502.03304): every so often, learn how far each layer should have drifted.

A projection is a small zeroth-order run of its own over one number per layer, gamma_l, starting at
1: the layer is at w^0 + gamma_l (w - w^0), a pair of evaluations at gamma +- eps u with u ~ N(0, I)
gives the slope, gamma <- clip(gamma - rate * slope * u). The paper's gamma is a length, ours is
relative to the drift's: eps and clip are shares of it, and rate * |drift|^2 is the paper's step.
How many such iterations a projection takes is not known to us.
"""

from statistics import NormalDist

from zobench.zo import noise
from zobench.zo.estimators.base import Ask, Asks, Estimator
from zobench.zo.feedback import CLEAN, LAYERS, MOVE, Feedback, Key, Point, Request, Step

_GAMMA = 14  # stream number of u


class Projected(Estimator):
    """`inner` in every step, and a projection before it in every `every`-th; no state.

    Needs a sampler that has the layers' drifts. Costs 2 * iterations / every forwards more on
    average.

    Formula:
        ```text
        c of the step: that of the inner estimator
        every `every` steps, `iterations` times, with one u_l ~ N(0, 1) per layer:
          slope = (L(gamma + eps u) - L(gamma - eps u)) / (2 eps),  layer l at w_l^0 + gamma_l D_l
          gamma_l <- clip(gamma_l - rate slope u_l, 1 - clip, 1 + clip)
        ```

    Args:
        inner: Makes the estimate itself.
        every: Steps from one projection to the next, at least 1.
        iterations: Of a projection, at least 1; two forwards each.
        eps: Perturbation radius of gamma, above 0, as a share of the layer's drift.
        rate: Learning rate of gamma.
        clip: gamma stays within 1 +- clip, in (0, 1).

    Raises:
        ValueError: An argument is out of range.

    References:
        DiZO, arXiv 2502.03304.
    """

    needs = frozenset({LAYERS})

    def __init__(
        self,
        inner: Estimator,
        *,
        every: int = 100,
        iterations: int = 10,
        eps: float = 0.1,
        rate: float = 1.0,
        clip: float = 0.2,
    ) -> None:
        if every < 1 or iterations < 1:
            raise ValueError(
                f"estimator.every={every}, estimator.iterations={iterations}: both at least 1"
            )
        if eps <= 0.0 or not 0.0 < clip < 1.0:
            raise ValueError(
                f"estimator.eps={eps}, estimator.clip={clip}: eps must be positive, clip in (0, 1)"
            )
        self.inner, self.every, self.iterations = inner, every, iterations
        self.eps, self.rate, self.clip = eps, rate, clip
        self.gives = (inner.gives - {CLEAN}) | {MOVE}
        self.needs = self.needs | inner.needs
        self.directions = inner.directions
        self.forwards = inner.forwards + 2 * iterations / every

    def cost(self, steps: int) -> int:
        return self.inner.cost(steps) + 2 * self.iterations * (steps // self.every)

    def estimate(self, step: Step) -> Asks:
        shifts: dict[Key, float] = {}
        if step.number % self.every == self.every - 1:
            shifts = yield from self._project(step)
        found: Feedback = yield from _shifted(self.inner.estimate(step), shifts)
        moves = {**shifts, **found.channels.get(MOVE, {})}
        return Feedback(found.loss, {**found.channels, MOVE: moves})

    def state_dict(self) -> dict[str, object]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.inner.load_state_dict(state)

    def _project(self, step: Step):  # type: ignore[no-untyped-def]
        """How far each layer goes along its drift: gamma - 1."""
        shifts = {step.key(-1 - layer): 0.0 for layer in range(step.layers)}
        for iteration in range(self.iterations):
            u = {key: _normal(key, iteration) for key in shifts}
            plus, minus = yield [
                {key: shift + sign * self.eps * u[key] for key, shift in shifts.items()}
                for sign in (1.0, -1.0)
            ]
            pull = self.rate * (plus - minus) / (2.0 * self.eps)
            for key, shift in shifts.items():
                shifts[key] = min(max(shift - pull * u[key], -self.clip), self.clip)
        return shifts


def _shifted(asks: Asks, shifts: Point) -> Asks:
    """The requests around the projected weights instead of the clean ones."""
    ask = next(asks)
    while True:
        values = yield _moved(shifts, ask)
        try:
            ask = asks.send(values)
        except StopIteration as stop:
            found: Feedback = stop.value
            return found


def _moved(shifts: Point, ask: Ask) -> Ask:
    """The same ask, its points moved by the shifts."""
    if isinstance(ask, list):
        return [{**shifts, **point} for point in ask]
    request = ask if isinstance(ask, Request) else Request(ask)
    return request._replace(point={**shifts, **request.point})


def _normal(key: Key, iteration: int) -> float:
    """A standard normal number for one layer and iteration."""
    uniform = noise.uniform(noise.Stream(noise.mix(*key), iteration, _GAMMA))
    return NormalDist().inv_cdf(min(max(uniform, 2.0**-53), 1.0 - 2.0**-53))
