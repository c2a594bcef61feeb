"""Labels at the ends of lines or next to points, without overlaps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Boxes = NDArray[np.float64]  # rows of left, bottom, right, top in pixels
DIRECTIONS = [math.pi * n / 8 for n in range(16)]


@dataclass(frozen=True)
class End:
    """The end of a line and its name; x None is a level, which ends at the right edge."""

    text: str
    colour: str
    x: float | None
    y: float


def spread_out(
    ideal: Sequence[float], sizes: Sequence[float], low: float, high: float
) -> list[float]:
    """Centres nearest to the ideal ones (least squares) that keep intervals of `sizes` apart.

    They lie between low and high if all fit; if not, the pile begins at low.
    """
    ranked = sorted(range(len(ideal)), key=lambda n: (ideal[n], n))
    ends = np.cumsum([sizes[n] for n in ranked])
    offsets = ends - [sizes[n] / 2 for n in ranked]
    # Packed from low on, the n-th centre is low + offsets[n]; what is left is to move the packed
    # pile apart without changing its order, which is isotonic regression.
    blocks: list[tuple[float, int]] = []
    for n, offset in zip(ranked, offsets, strict=True):
        mean, count = ideal[n] - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, size = blocks.pop()
            mean, count = (before * size + mean * count) / (size + count), size + count
        blocks.append((mean, count))
    starts = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    placed = np.clip(starts, low, max(low, high - (ends[-1] if len(ends) else 0))) + offsets
    centres = dict(zip(ranked, placed, strict=True))
    return [float(centres[n]) for n in range(len(ideal))]


def label_ends(axes: "Axes", ends: Sequence[End]) -> Callable[[], None]:
    """Write the names of lines right of the axes; what is returned moves them apart."""
    from matplotlib.text import Text

    right = axes.get_yaxis_transform()
    names = [
        axes.annotate(
            end.text,
            (1.0 if end.x is None else end.x, end.y),
            xycoords=right if end.x is None else "data",
            xytext=(1.04, end.y),
            textcoords=right,
            color=_dark(end.colour),
            fontsize=7,
            va="center",
            linespacing=1.0,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": end.colour,
                "linewidth": 0.5,
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 2,
            },
        )
        for end in ends
    ]

    def settle() -> None:
        frame = axes.get_window_extent()
        heights = [Text.get_window_extent(name).height * 1.05 for name in names]
        ideal = [float(axes.transData.transform((1.0, end.y))[1]) for end in ends]
        placed = spread_out(ideal, heights, frame.y0, frame.y1)
        for name, y in zip(names, placed, strict=True):
            name.xyann = (1.04, float(axes.transData.inverted().transform((frame.x0, y))[1]))

    return settle


def label_points(
    axes: "Axes",
    points: Sequence[tuple[str, float, float, str]],
    whiskers: Sequence[Sequence[float]],
) -> Callable[[], None]:
    """Write names next to points: text, x, y, colour; what is returned finds a place for each.

    whiskers: left, bottom, right, top of each in data coordinates; names avoid them if they can.
    A name that is not right beside its point gets a thin line to it.
    """
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    names = [
        axes.annotate(
            text,
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=7,
            ha="center",
            va="center",
            color=colour,
            bbox={"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 0.4},
            zorder=4,
        )
        for text, x, y, colour in points
    ]
    for name in names:
        name.set_in_layout(False)

    def settle() -> None:
        scale = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
        frame = axes.get_window_extent()
        spots = axes.transData.transform([(x, y) for _, x, y, _ in points])
        dots = np.hstack([spots - 2.5 * scale, spots + 2.5 * scale])
        corners = axes.transData.transform(np.reshape(whiskers, (-1, 2)))
        soft = np.reshape(corners, (-1, 4)) + np.array([-1, -1, 1, 1]) * 0.5 * scale
        taken = dots
        for name, spot in zip(names, spots, strict=True):
            box = Text.get_window_extent(name)
            size = np.array([box.width, box.height]) + 1.5 * scale
            offset = _free(spot, size, taken, soft, np.array(frame.extents), scale)
            name.xyann = tuple(offset / scale)
            low, high = spot + offset - size / 2, spot + offset + size / 2
            taken = np.vstack([taken, [*low, *high]])
            edge = np.clip(spot, low, high)
            if np.hypot(*(edge - spot)) > 8 * scale:
                xs, ys = zip(*axes.transAxes.inverted().transform([spot, edge]), strict=True)
                thin: dict[str, Any] = {"color": "0.4", "linewidth": 0.4, "zorder": 2}
                axes.add_artist(Line2D(xs, ys, transform=axes.transAxes, **thin))

    return settle


def _free(
    spot: NDArray[np.float64],
    size: NDArray[np.float64],
    taken: Boxes,
    soft: Boxes,
    frame: NDArray[np.float64],
    scale: float,
) -> NDArray[np.float64]:
    """Where the name's centre goes, relative to its point: the nearest place that is free."""
    radii = scale * np.array([3, 5, 8, 12, 17, 23, 30, 38, 47, 57, 68, 80, 95, 110, 130])
    unit = np.array([(math.cos(angle), math.sin(angle)) for angle in DIRECTIONS])
    # On a rounded box around the point, so that a name touches it with its edge or corner.
    offsets = np.concatenate([np.clip(unit * 1.5, -1, 1) * size / 2 + unit * r for r in radii])
    boxes = np.hstack([spot + offsets - size / 2, spot + offsets + size / 2])
    outside = (boxes[:, :2] < frame[:2]).any(1) | (boxes[:, 2:] > frame[2:]).any(1)
    cost = np.repeat(radii, len(DIRECTIONS)) / scale
    cost = cost + 1e3 * _overlaps(boxes, taken) + 1e5 * outside + 3 * _overlaps(boxes, soft)
    return np.asarray(offsets[int(np.argmin(np.round(cost, 6)))])


def _overlaps(boxes: Boxes, others: Boxes) -> NDArray[np.int64]:
    """With how many of the others each box overlaps."""
    a, b = boxes[:, None], others[None]
    apart = (a[..., 0] >= b[..., 2]) | (b[..., 0] >= a[..., 2])
    apart |= (a[..., 1] >= b[..., 3]) | (b[..., 1] >= a[..., 3])
    return np.asarray((~apart).sum(1))


def _dark(colour: str) -> tuple[float, float, float]:
    """The colour as small print needs it: the light ones are faint on white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (0.7 * part for part in to_rgb(colour))
    return red, green, blue
