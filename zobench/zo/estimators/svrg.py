"""MeZO-SVRG (arXiv 2404.08080): estimates corrected by an anchor that many batches agree on.

Every q-th step the weights are the anchor: g = c z from the mean loss over many batches, and w <- w
- lr_1 g. In between, w <- w - lr (g_I(w) - g_I(anchor) + g) with one batch I and one direction for
both estimates. The paper keeps copies of anchor and g; here the anchor is the weights minus the
moves since, which are a few (direction, coefficient) pairs that are drawn again.
"""

from zobench.zo.estimators.base import Asks, Estimator
from zobench.zo.feedback import GRAD, PAST, PLAIN, Feedback, Key, Request, Step


class SVRG(Estimator):
    """4 forwards a step, 2 `anchor_batches` in every `every`-th; a few numbers of state.

    Needs plain descent, which moves by lr times the estimate alone. The way to the anchor rounds as
    the weights do: with `arithmetic=inplace` in bfloat16 it ends some percent off.

    Formula:
        ```text
        every `every` steps, at the anchor a = w: g_a = c z from the mean loss over many batches
        else: g = (c(w) - c(a)) z + g_a,  c(x) = (L(x + eps z) - L(x - eps z)) / (2 eps)
        ```

    Args:
        every: Steps from one anchor to the next, at least 1.
        anchor_batches: Batches of the anchor's estimate, at least 1, of an order of their own;
            training size / batch size is the paper's full pass.
        anchor_factor: Learning rate of the anchor's step over that of the others, lr_1 / lr.

    Raises:
        ValueError: `every` or `anchor_batches` is below 1.

    References:
        MeZO-SVRG, arXiv 2404.08080.
    """

    gives = frozenset({GRAD})
    needs = frozenset({PAST, PLAIN})
    directions = 1

    def __init__(
        self, *, every: int = 2, anchor_batches: int = 8, anchor_factor: float = 1000.0
    ) -> None:
        if every < 1 or anchor_batches < 1:
            raise ValueError(
                f"estimator.every={every}, estimator.anchor_batches={anchor_batches}: both at"
                " least 1"
            )
        self.every, self.anchor_batches, self.factor = every, anchor_batches, anchor_factor
        self.forwards = (2 * anchor_batches + 4 * (every - 1)) / every
        self._anchor: dict[Key, float] = {}  # g
        self._moved: dict[Key, float] = {}  # since the anchor

    def cost(self, steps: int) -> int:
        anchors = -(-steps // self.every)
        return 2 * self.anchor_batches * anchors + 4 * (steps - anchors)

    def estimate(self, step: Step) -> Asks:
        if step.number % self.every == 0:
            return (yield from self._renew(step))
        key, eps = step.key(0), step.eps
        back = {k: -moved for k, moved in self._moved.items()}
        pair = [{key: eps}, {key: -eps}]
        *earlier, plus, minus = yield [*({**back, **point} for point in pair), *pair]
        then = (earlier[0] - earlier[1]) / (2.0 * eps)
        now = (plus - minus) / (2.0 * eps)
        grad = {key: now - then, **self._anchor}
        self._moved = dict(self._moved)
        for k, coefficient in grad.items():
            self._moved[k] = self._moved.get(k, 0.0) - step.lr * coefficient
        return Feedback((plus + minus) / 2, {GRAD: grad})

    def _renew(self, step: Step) -> Asks:
        """Estimate at new anchor weights over `anchor_batches` batches, and step along it."""
        first = step.number // self.every * self.anchor_batches
        batches = range(first, first + self.anchor_batches)
        key, losses = step.key(0), {}
        for sign in (1.0, -1.0):
            losses[sign] = 0.0
            for batch in batches:
                losses[sign] += yield Request({key: sign * step.eps}, batch=batch)
        plus, minus = (losses[sign] / self.anchor_batches for sign in (1.0, -1.0))
        slope = (plus - minus) / (2.0 * step.eps)
        self._anchor = {key: slope}
        self._moved = {key: -step.lr * self.factor * slope}
        return Feedback((plus + minus) / 2, {GRAD: {key: self.factor * slope}})

    def state_dict(self) -> dict[str, object]:
        logs = {"anchor": self._anchor, "moved": self._moved}
        return {name: [(tuple(k), c) for k, c in log.items()] for name, log in logs.items()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for name in ("anchor", "moved"):
            pairs = state[name]
            log = {Key(*key): value for key, value in pairs}  # type: ignore[attr-defined]
            setattr(self, f"_{name}", log)
