"""Names in figures: near what they name, and never on each other."""

from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from zobench.report.plots.draw import Painted, draw
from zobench.report.plots.labels import End, label_ends, label_points, spread_out

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

PLACES = st.lists(st.tuples(st.floats(-50, 150), st.floats(1, 20)), min_size=1, max_size=7)


@given(PLACES)
def test_intervals_are_moved_apart_and_no_further(places: list[tuple[float, float]]) -> None:
    """They keep their order, do not overlap, stay inside if they fit, and else nothing moves."""
    wanted, sizes = zip(*places, strict=True)
    found = spread_out(wanted, sizes, 0, 200)
    ranked = sorted(range(len(found)), key=lambda n: (wanted[n], n))
    for one, two in pairwise(ranked):
        assert found[two] - found[one] >= (sizes[one] + sizes[two]) / 2 - 1e-9
    for centre, size in zip(found, sizes, strict=True):
        assert centre - size / 2 >= -1e-9 and centre + size / 2 <= 200 + 1e-9
    np.testing.assert_allclose(spread_out(found, sizes, 0, 200), found, atol=1e-9)


def test_names_that_meet_part_evenly() -> None:
    """Two names for one height share the way."""
    assert spread_out([50.0, 50.0], [10.0, 10.0], 0, 100) == [45.0, 55.0]


def boxes(axes: Axes) -> list[Bbox]:
    """Where the names of the axes are, in pixels."""
    return [Text.get_window_extent(text) for text in axes.findobj(Annotation)]


def overlaps(one: Bbox, two: Bbox) -> bool:
    """Whether two boxes share more than an edge."""
    return one.x0 < two.x1 and two.x0 < one.x1 and one.y0 < two.y1 and two.y0 < one.y1


@pytest.mark.parametrize("log", [False, True])
def test_names_at_ends_do_not_overlap(tmp_path: Path, log: bool) -> None:
    """Seven lines that end at almost one height have seven names, beside the axes and legible."""
    seen: list[Axes] = []

    def paint(part: "SubFigure", panel: str, width: float) -> Painted:  # noqa: ARG001
        axes = part.add_subplot()
        axes.set_yscale("log" if log else "linear")
        axes.plot([0, 1], [1, 100])
        ends = [End(f"row {n}", "black", 1.0 if n else None, 99 + n / 10) for n in range(7)]
        seen.append(axes)
        return Painted(2.0, label_ends(axes, ends))

    draw([""], paint, "", tmp_path / "a.png")
    found = boxes(seen[0])
    assert len(found) == 7
    assert not any(overlaps(one, two) for one, two in combinations(found, 2))
    frame, figure = seen[0].get_window_extent(), seen[0].get_figure(root=True)
    assert figure is not None
    for box in found:
        assert box.x0 > frame.x1 and box.x1 <= figure.bbox.x1
        assert frame.y0 - 1 <= box.y0 and box.y1 <= frame.y1 + 1


def test_names_at_points_do_not_overlap(tmp_path: Path) -> None:
    """A crowd of points has every name inside the axes, on no other name and on no point."""
    rng = np.random.default_rng(0)
    points = [(f"row {n}", x, y, "black") for n, (x, y) in enumerate(rng.random((15, 2)) ** 3)]
    seen: list[Axes] = []

    def paint(part: "SubFigure", panel: str, width: float) -> Painted:  # noqa: ARG001
        axes = part.add_subplot()
        axes.plot([x for _, x, _, _ in points], [y for _, _, y, _ in points], "o")
        axes.margins(0.15)
        seen.append(axes)
        return Painted(2.4, label_points(axes, points, [(0, 0, 1, 0), (0, 0, 0, 1)]))

    draw([""], paint, "", tmp_path / "a.png")
    found, frame = boxes(seen[0]), seen[0].get_window_extent()
    assert len(found) == 15
    assert not any(overlaps(one, two) for one, two in combinations(found, 2))
    spots = seen[0].transData.transform([(x, y) for _, x, y, _ in points])
    assert not any(box.contains(x, y) for box in found for x, y in spots)
    assert all(frame.contains(x, y) for box in found for x, y in (box.min, box.max))
