"""`zobench plot --kind target|pareto|rates`: their numbers, and the files of every kind."""

import io
import json
import math
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from tests.report.suites import SUITE, write_run
from zobench.report.cells import Cell
from zobench.report.plot import KINDS, plot
from zobench.report.plots.options import FigureOptions
from zobench.report.plots.pareto import front, spots
from zobench.report.plots.rates import chosen, diverged
from zobench.report.plots.target import Bar, bars
from zobench.report.runs import read_suite
from zobench.report.table import table

FAST, SLOW, NEVER = (
    ((0, 0.5), (100, 0.95)),
    ((0, 0.5), (100, 0.6), (300, 0.9)),
    ((0, 0.5), (400, 0.8)),
)
TARGET = FigureOptions("cost/forwards", "dev/accuracy", "optimizer", "none", 0.9)


def costs(folder: Path, gib: float) -> None:
    """Make the run's peak memory another."""
    path = folder / "result.json"
    result = json.loads(path.read_text())
    result["memory"]["peak_gib"] = gib
    path.write_text(json.dumps(result))


def losses(folder: Path) -> None:
    """Add dev/loss, 1 - dev/accuracy, to the run's evaluations."""
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.dumps(row | {"dev/loss": 1 - row["dev/accuracy"]}) + "\n" for row in rows]
    path.write_text("".join(lines))


def rich_suite(root: Path) -> None:
    """Three rows with two rates and two seeds each, of which some diverged."""
    for n, optimizer in enumerate(("conmezo", "lozo", "mezo")):
        for lr in (1e-3, 1e-2):
            for seed in (0, 1):
                dev = 0.9 - n / 20 - (lr == 1e-2) / 10
                status = "diverged" if optimizer == "mezo" and lr == 1e-2 else "done"
                curve = ((0, 0.5), (100 + 50 * n + 10 * seed, dev))
                folder = write_run(
                    root, seed, optimizer=optimizer, lr=lr, dev=dev, test=dev, status=status,
                    accuracies=curve,
                )  # fmt: skip
                costs(folder, 0.5 + n / 10)
                losses(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_writes_every_format_and_the_same_bytes(tmp_path: Path, kind: str) -> None:
    """A PNG, an SVG and a PDF begin as such and are the same when drawn again."""
    rich_suite(tmp_path)
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        paths = [tmp_path / f"{n}{suffix}" for n in range(2)]
        for path in paths[: 2 if suffix == ".pdf" else 1]:
            said = plot(tmp_path, SUITE, kind=kind, target="0.8", out=path)
            assert said.startswith(f"{path}\n")
        assert paths[0].read_bytes().startswith(start)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_names_overlap(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no kind of figure does a name lie on another, and all rows are named."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    rich_suite(tmp_path)
    plot(tmp_path, SUITE, kind=kind, target="0.8")
    names = [t for t in figures[0].findobj(Annotation) if isinstance(t, Text) and t.get_text()]
    shown = {text.get_text() for text in figures[0].findobj(Text) if isinstance(text, Text)}
    assert {"conmezo", "lozo", "mezo"} <= shown
    assert len(names) >= 3
    for one, two in combinations((Text.get_window_extent(name) for name in names), 2):
        assert one.x0 >= two.x1 or two.x0 >= one.x1 or one.y0 >= two.y1 or two.y0 >= one.y1


def test_forwards_to_the_target_are_the_tables(tmp_path: Path) -> None:
    """The points of a bar have the mean that the table shows, at the setting that dev selects."""
    for seed, curve in enumerate((FAST, SLOW, SLOW)):
        write_run(tmp_path, seed, accuracies=curve)
        write_run(tmp_path, seed, lr=1.0, dev=0.1, test=1.0, accuracies=((0, 1.0),))
    [bar] = bars(read_suite(tmp_path, SUITE), TARGET)
    assert bar.costs == [100, 300, 300] and bar.median == 300
    text = table(tmp_path, SUITE, target="0.9", format="csv")
    [line] = pd.read_csv(io.StringIO(text)).to_dict("records")
    assert line["forwards_to_0.9"] == pytest.approx(np.mean(bar.costs))
    assert line["setting"] == bar.cell.setting


def test_rows_that_never_got_there_say_so(tmp_path: Path) -> None:
    """Half the seeds make no bar, none says the budget, and a diverged run got nowhere."""
    rows = {"a": (FAST, SLOW, FAST), "b": (FAST, NEVER, SLOW), "c": (FAST, NEVER, NEVER)}
    for optimizer, curves in (rows | {"d": (NEVER, NEVER)}).items():
        for seed, curve in enumerate(curves):
            write_run(tmp_path, seed, optimizer=optimizer, accuracies=curve)
    write_run(tmp_path, 2, optimizer="d", status="diverged", accuracies=FAST)
    found = bars(read_suite(tmp_path, SUITE), TARGET)
    assert [bar.cell.row for bar in found] == ["a", "b", "c", "d"]
    assert [bar.median for bar in found] == [100, 300, math.inf, math.inf]
    texts = ["100", "300 (2 of 3)", "no median (1 of 3)", "never in 400 (1 diverged)"]
    assert [bar.text("cost/forwards") for bar in found] == texts
    said = plot(tmp_path, SUITE, kind="target")
    assert all(f"{row}: {text}\n" in said for row, text in zip("abcd", texts, strict=True))


@given(st.lists(st.one_of(st.floats(1, 99), st.just(math.inf)), min_size=1, max_size=7))
def test_the_median_counts_those_that_never_got_there(costs: list[float]) -> None:
    """It is infinite when half or more did not, and else what numpy says of large numbers."""
    cell = Cell("", "", "", 1, pd.DataFrame(), pd.Series(dtype=float), [])
    late = sum(s == math.inf for s in costs)
    found = Bar(cell, costs, 100).median
    if 2 * late >= len(costs):
        assert found == math.inf
    else:
        assert found == pytest.approx(np.median([min(s, 1e9) for s in costs]))


POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@given(POINTS, st.booleans())
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]], higher: bool) -> None:
    """None in front is beaten, each other is by one in front, and equal points share their lot."""
    found = front([(float(x), float(y)) for x, y in points], higher)

    def beats(one: tuple[int, int], two: tuple[int, int]) -> bool:
        better = one[1] >= two[1] if higher else one[1] <= two[1]
        return one[0] <= two[0] and better and one != two

    first = [point for point, is_first in zip(points, found, strict=True) if is_first]
    for point, is_first in zip(points, found, strict=True):
        assert is_first != any(beats(other, point) for other in first)
        assert is_first != any(beats(other, point) for other in points)


def test_pareto_shows_what_dev_selects(tmp_path: Path) -> None:
    """A rate that is best on test only is not shown; whiskers are the seeds' deviations."""
    for seed, test in enumerate((0.6, 0.8)):
        costs(write_run(tmp_path, seed, test=test, dev=0.9), 0.5 + seed)
        write_run(tmp_path, seed, test=1.0, dev=0.5, lr=1.0)
        costs(write_run(tmp_path, seed, optimizer="adamw", test=0.65, dev=0.9), 4.0)
    write_run(tmp_path, optimizer="lozo", status="failed")
    options = FigureOptions("memory/peak_gib", "test/accuracy", "optimizer", "none", 0.9)
    found, without = spots(read_suite(tmp_path, SUITE), options)
    adamw, mezo = found
    assert (mezo.x, mezo.y, mezo.front) == (1.0, pytest.approx(0.7), True)
    assert mezo.y_std == pytest.approx(np.std((0.6, 0.8), ddof=1))
    assert mezo.x_std == pytest.approx(np.std((0.5, 1.5), ddof=1))
    assert not adamw.front and [cell.row for cell in without] == ["lozo"]
    said = plot(tmp_path, SUITE, kind="pareto")
    assert "Pareto front: mezo (1, 70.0)\n" in said and "not shown: lozo (1 failed)" in said
    assert "Pareto front: adamw, mezo" not in plot(tmp_path, SUITE, kind="pareto", y="dev/loss")


def test_rates_mark_the_dev_best_and_the_diverged(tmp_path: Path) -> None:
    """The marked rate is dev's although test prefers another; lost rates are counted."""
    for seed in (0, 1):
        write_run(tmp_path, seed, lr=1e-3, dev=0.9, test=0.1)
        write_run(tmp_path, seed, lr=1e-2, dev=0.8, test=1.0)
        write_run(tmp_path, seed, lr=1e-1, status="diverged")
    write_run(tmp_path, 2, lr=1e-2, status="diverged")
    suite = read_suite(tmp_path, SUITE)
    assert chosen(suite, "optimizer.lr", "dev/accuracy", "optimizer") == {("", "mezo"): [1e-3]}
    lost = diverged(suite, "optimizer.lr", "optimizer")
    assert [(d.x, d.runs, d.of) for d in lost] == [(1e-2, 1, 3), (1e-1, 2, 2)]
    said = plot(tmp_path, SUITE, kind="rates")
    assert "dev selects mezo: 0.001\n" in said
    assert "mezo: 1 of 3 runs diverged at 0.01" in said and "2 of 2 runs diverged at 0.1" in said


def test_a_suite_may_select_for_each_seed(tmp_path: Path) -> None:
    """With `table.select: seed` every figure shows each seed at the rate that is its best."""
    for seed, best in enumerate((1e-3, 1e-2)):
        for lr in (1e-3, 1e-2):
            dev = 0.9 if lr == best else 0.6
            curve = FAST if lr == best else NEVER
            write_run(tmp_path, seed, lr=lr, dev=dev, accuracies=curve, preset={"select": "seed"})
    suite = read_suite(tmp_path, SUITE)
    [bar] = bars(suite, TARGET)
    assert bar.costs == [100, 100]
    picked = chosen(suite, "optimizer.lr", "dev/accuracy", "optimizer")
    assert picked == {("", "mezo"): [1e-3, 1e-2]}


def test_axes_of_the_suites_own_kind_are_not_another_kinds(tmp_path: Path) -> None:
    """`plot:` names axes for one kind; the target is the table's."""
    folder = write_run(tmp_path, accuracies=SLOW, preset={"target": 0.6})
    config = folder / "config.yaml"
    config.write_text(config.read_text() + "plot: {y: dev/loss, x: step, lines: task}\n")
    said = plot(tmp_path, SUITE, kind="target")
    assert re.search(r"cost/forwards until dev/accuracy was 60 % .*rows by task", said)
    assert "synthetic_reviews: 100\n" in said
    config.write_text(config.read_text().replace("y: dev/loss, x: step", "kind: target"))
    assert f"{SUITE}.png\ncost/forwards until" in plot(tmp_path, SUITE)
