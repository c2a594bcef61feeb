"""A run as work that stops before each step, for whoever takes the steps."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from zobench.run.steps import Steps


class Wanted(NamedTuple):
    """A step that a loop is about to take, and waits for whoever takes it; the answer is its loss.

    Whatever the step raises, such as Diverged, is thrown into the loop.
    """

    steps: "Steps"
    batch: Any


Work = Generator[Wanted, float, dict[str, Any]]


def done(work: Work) -> dict[str, Any]:
    """The result of a run by itself: each step is taken as it is wanted."""
    go, value = work.send, None
    while True:
        try:
            wanted = go(value)  # type: ignore[arg-type]
        except StopIteration as stop:
            result: dict[str, Any] = stop.value
            return result
        try:
            go, value = work.send, wanted.steps.live(wanted.batch)
        except BaseException as error:
            go, value = work.throw, error  # type: ignore[assignment]
