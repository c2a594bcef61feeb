"""One-sided (forward difference) estimator: the clean loss is the base point of all queries."""

from collections.abc import Callable, Generator

from zobench.zo.feedback import GRAD, Feedback, Key, Point


class OneSided:
    """c_k = (L(w + eps z_k) - L(w)) / (eps q); costs q + 1 forwards, no memory.

    The reported loss is the clean loss L(w).
    """

    emits = frozenset({GRAD})

    def __init__(self, *, queries: int = 1) -> None:
        if queries < 1:
            raise ValueError(f"estimator.queries={queries}: must be at least 1")
        self.queries = self.directions = queries
        self.forwards = queries + 1

    def estimate(self, key: Callable[[int], Key], eps: float) -> Generator[Point, float, Feedback]:
        clean = yield {}
        grad: dict[Key, float] = {}
        for query in range(self.queries):
            shifted = yield {key(query): eps}
            grad[key(query)] = (shifted - clean) / (eps * self.queries)
        return Feedback(loss=clean, channels={GRAD: grad})
