"""The options of a figure, of every kind."""

from dataclasses import dataclass

SPREAD = "mean and sample standard deviation over seeds"


@dataclass(frozen=True)
class FigureOptions:
    """The axes, what a row is, the logarithmic axes (none, x, y, both) and a dev accuracy."""

    x: str
    y: str
    lines: str
    log: str
    target: float
