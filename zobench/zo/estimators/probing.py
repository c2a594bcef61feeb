"""P-GAP's probes (Mi et al. 2025, arXiv 2510.18228): now and then a second look at the gradient.

Every `every` steps the mean of two-sided estimates along `probes` plain directions goes to the
sampler (channel PROBE), on the step's batch and before the step's own points. No rule sees it.
"""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import CLEAN, FIRST_PROBE, PROBE, Feedback, Key, Step


class Probing(Estimator):
    """Adds probes of the gradient to another estimator, for samplers whose law is made from them.

    The inner estimator's forwards, and 2 * probes / every more on average.

    Formula:
        ```text
        every `every` steps: G = mean over probes u of (L(w + eps u) - L(w - eps u)) / (2 eps) u
        c of the step: that of the inner estimator
        ```

    Args:
        inner: Makes the estimate itself.
        every: Steps from one probing step to the next, at least 1.
        probes: Plain directions of a probing step, at least 1; each costs two forwards.

    Raises:
        ValueError: An argument is below 1.

    References:
        Mi et al. 2025, P-GAP, arXiv 2510.18228.
    """

    def __init__(self, inner: Estimator, *, every: int = 100, probes: int = 10) -> None:
        for name, value in (("every", every), ("probes", probes)):
            if value < 1:
                raise ValueError(f"estimator.{name}={value}: must be at least 1")
        self.inner, self.every, self.probes = inner, every, probes
        self.needs = inner.needs
        self.gives = (inner.gives - {CLEAN}) | {PROBE}  # a probing step begins at a probe
        self.directions = inner.directions + probes
        self.forwards = inner.forwards + 2 * probes / every

    def cost(self, steps: int) -> int:
        return self.inner.cost(steps) + 2 * self.probes * -(-steps // self.every)

    def estimate(self, step: Step) -> Asks:
        if step.number % self.every:
            return (yield from self.inner.estimate(step))
        keys = [step.key(query) for query in range(FIRST_PROBE, FIRST_PROBE + self.probes)]
        found = yield [{key: sign * step.eps} for key in keys for sign in (1.0, -1.0)]
        probe: dict[Key, float] = {}
        for key, plus, minus in zip(keys, found[::2], found[1::2], strict=True):
            probe[key] = (plus - minus) / (2.0 * step.eps * self.probes)
        feedback = yield from self.inner.estimate(step)
        return Feedback(feedback.loss, {**feedback.channels, PROBE: probe})

    def state_dict(self) -> dict[str, object]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.inner.load_state_dict(state)
