"""`zobench plot`: the numbers of a figure, who chooses, what is missing, and the file itself."""

import hashlib
import io
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from zobench.errors import UserError
from zobench.report.curves import curve, forwards_to, mean_curve, read_metrics
from zobench.report.plot import main, plot
from zobench.report.plots.chart import Chart, chart
from zobench.report.plots.draw import COLOURS
from zobench.report.runs import read_suite
from zobench.report.table import table

SUITE = "figure_1"
RISING = ((0, 0.5), (100, 0.7), (200, 0.9))


def write_run(
    root: Path,
    seed: int = 0,
    *,
    optimizer: str = "mezo",
    task: str = "sst2",
    lr: float = 1e-3,
    theta: float | str | None = None,
    accuracy: Sequence[tuple[float, float | None]] = RISING,
    dev: float | None = 0.9,
    test: float | None = 0.8,
    status: str = "done",
    preset: dict[str, str] | None = None,
) -> Path:
    """Write one run folder: `accuracy` are the forwards and dev accuracies of metrics.jsonl."""
    sampler = {"theta": theta} if theta is not None else {}
    config: dict[str, Any] = {
        "optimizer": {"name": optimizer, "lr": lr, "sampler": sampler},
        "task": {"name": task},
        "budget": {"steps": 100},
    }
    setting = hashlib.sha1(json.dumps(config).encode()).hexdigest()[:8]
    identity = hashlib.sha1(f"{setting}{seed}".encode()).hexdigest()[:8]
    folder = root / SUITE / f"{task}-{hashlib.sha1(optimizer.encode()).hexdigest()[:4]}-{identity}"
    folder.mkdir(parents=True)
    config |= {"seed": seed} | ({"plot": preset} if preset else {})
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    choices = {"optimizer": optimizer, "task": task, "model": "tiny"}
    meta = {"id": identity, "setting": setting, "seed": seed, "choices": choices}
    (folder / "meta.json").write_text(json.dumps(meta))
    rows = []
    for forwards, value in accuracy:
        costs = {"step": forwards / 2, "cost/forwards": forwards, "time/step_s": 0.5}
        rows += [costs | {"train/loss": 1.0}, costs | {"dev/accuracy": value, "dev/loss": 0.3}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = {
        "status": status,
        "reason": "loss is nan" if status == "diverged" else None,
        "test": {"accuracy": test, "loss": 0.25},
        "dev": {"accuracy": dev, "loss": None if dev is None else 0.3},
        "cost": {"forwards": 200},
    }
    if status in ("done", "diverged"):
        (folder / "result.json").write_text(json.dumps(result))
    if status == "failed":
        (folder / "failure.json").write_text(json.dumps({"kind": "oom", "reason": "no memory"}))
    return folder


def figure(
    root: Path, x: str = "cost/forwards", y: str = "dev/accuracy", by: str = "optimizer"
) -> Chart:
    """The chart of the suite before it is drawn."""
    return chart(read_suite(root, SUITE), x, y, by)


def test_a_curve_has_the_last_known_x_and_a_gap_for_null() -> None:
    """x may stand on an earlier line, a null y stays as a gap, and of equal x the last counts."""
    rows = [
        {"step": 0.0, "dev/loss": 9.0},
        {"step": 0.0, "cost/forwards": 0.0},
        {"step": 0.0, "dev/loss": 3.0},
        {"step": 1.0, "cost/forwards": 2.0, "train/loss": 5.0},
        {"step": 1.0, "dev/loss": math.nan},
        {"step": 2.0, "cost/forwards": 4.0, "dev/loss": 8.0},
        {"step": 2.0, "cost/forwards": math.nan, "dev/loss": 1.0},
    ]
    wanted = pd.DataFrame({"x": [0.0, 2.0, 4.0], "y": [3.0, math.nan, 1.0]})
    pd.testing.assert_frame_equal(curve(rows, "cost/forwards", "dev/loss"), wanted)
    with pytest.raises(UserError, match=r"dev/loss decreases .*choose step, cost/forwards"):
        curve(rows, "dev/loss", "step")


def test_metrics_are_numbers_and_seconds_of_training(tmp_path: Path) -> None:
    """Nulls are NaN, texts are passed over, the time of all steps so far is added.

    A last line without its end is one that a run is writing; any other damage is named.
    """
    line = {"step": 4, "time/step_s": 0.5, "dev/loss": None, "note": "x", "flag": True}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    [row] = read_metrics(tmp_path)
    assert row.keys() == {"step", "time/step_s", "dev/loss", "time/train_s"}
    assert row["time/train_s"] == 2.0 and math.isnan(row["dev/loss"])
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + '\n{"step": 8, "ti')
    assert [row["step"] for row in read_metrics(tmp_path)] == [4]
    for damaged in ('{"step": 1', "[1]"):
        (tmp_path / "metrics.jsonl").write_text(damaged + "\n")
        with pytest.raises(UserError, match=r"cannot read .*metrics\.jsonl"):
            read_metrics(tmp_path)


GRIDS = st.lists(st.integers(1, 90), max_size=6, unique=True)
SLOPES = st.lists(st.tuples(st.floats(-5, 5), GRIDS), min_size=2, max_size=4)


@given(SLOPES, st.integers(-3, 3))
def test_curves_of_seeds_are_aligned_by_interpolation(
    lines: list[tuple[float, list[int]]], shift: int
) -> None:
    """Straight lines at different x have, at every x of any in the common range, exact moments."""
    grids = [np.array([0, *sorted(grid), 100 + shift * n]) for n, (_, grid) in enumerate(lines)]
    curves = [
        pd.DataFrame({"x": grid.astype(float), "y": slope * grid})
        for grid, (slope, _) in zip(grids, lines, strict=True)
    ]
    found = mean_curve(curves)
    stop = min(grid[-1] for grid in grids)
    assert found["x"].tolist() == sorted({int(x) for grid in grids for x in grid if x <= stop})
    slopes = [slope for slope, _ in lines]
    np.testing.assert_allclose(found["mean"], float(np.mean(slopes)) * found["x"], atol=1e-9)
    np.testing.assert_allclose(found["std"], float(np.std(slopes, ddof=1)) * found["x"], atol=1e-9)
    assert set(found["n"]) == {len(lines)}


def test_gaps_and_single_seeds_and_nothing_in_common() -> None:
    """A gap reaches to its neighbours, one seed has no spread, and without overlap is no mean."""
    full = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [1.0, 1.0, 1.0, 1.0]})
    torn = pd.DataFrame({"x": [0.0, 1.5, 2.0, 3.0], "y": [3.0, math.nan, 3.0, 3.0]})
    mean = mean_curve([full, torn])["mean"]
    np.testing.assert_array_equal(mean, [2.0, math.nan, math.nan, 2.0, 2.0])
    assert mean_curve([full])["std"].isna().all() and mean_curve([full])["mean"].eq(1.0).all()
    with pytest.raises(UserError, match="no x in common"):
        mean_curve([full, full.assign(x=full["x"] + 4)])


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=8), st.floats(0, 1))
def test_forwards_to_is_the_first_evaluation_at_or_above_the_target(
    values: list[float], target: float
) -> None:
    """The x of the first y that is not below the target, NaN if there is none."""
    accuracy = pd.DataFrame({"x": [10.0 * n for n in range(len(values))], "y": values}, dtype=float)
    found = forwards_to(accuracy, target)
    if math.isnan(found):
        assert not any(value >= target for value in values)
    else:
        first = int(found / 10)
        assert values[first] >= target and not any(v >= target for v in values[:first])


def test_a_line_is_mean_and_sample_deviation_over_seeds(tmp_path: Path) -> None:
    """Three seeds make one line of numpy's mean and standard deviation with ddof=1."""
    ends = (0.7, 0.8, 0.96)
    for seed, end in enumerate(ends):
        write_run(tmp_path, seed, accuracy=((0, 0.5), (200, end)))
    [line] = figure(tmp_path).lines
    assert line.points["x"].tolist() == [0, 200]
    assert line.points["mean"].tolist() == pytest.approx([0.5, np.mean(ends)])
    assert line.points["std"].tolist() == pytest.approx([0, np.std(ends, ddof=1)])
    assert line.legend() == "mezo (3)"
    [seconds] = figure(tmp_path, "time/train_s").lines
    assert seconds.points["x"].tolist() == [0, 50]


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.sampled_from((None, 0.6, 0.7, 0.8)), st.integers(1, 2)), min_size=1, max_size=4
    )
)
def test_the_selection_is_the_tables(rates: list[tuple[float | None, int]]) -> None:
    """Whatever dev says of a grid of rates, the line shows the setting that the table shows."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for n, (dev, seeds) in enumerate(rates):
            for seed in range(seeds):
                # The end of a curve tells its rate, and is best where dev is not.
                write_run(root, seed, lr=n + 1, dev=dev, accuracy=((0, 0.1), (200, 0.9 - n / 10)))
        cell = pd.read_csv(io.StringIO(table(root, SUITE, format="csv")), dtype=str).iloc[0]
        [line] = figure(root).lines
        chosen = "" if isinstance(cell["setting"], float) else cell["setting"]
        assert line.cells[0].setting == chosen
        if chosen:
            config = next(
                config
                for run, config in read_suite(root, SUITE).configs.items()
                if run in set(line.cells[0].done["id"])
            )
            rate = config["optimizer"]["lr"]
            assert line.points["mean"].iloc[-1] == pytest.approx(0.9 - (rate - 1) / 10)
            assert len(line.cells[0].values) == int(cell["n"])
        else:
            with pytest.raises(UserError, match=r"nothing to plot.*no dev numbers to select by"):
                plot(root, SUITE)


def test_dev_never_chooses_between_tasks(tmp_path: Path) -> None:
    """Two tasks are two panels with a line each, unless the task is drawn or named itself."""
    write_run(tmp_path, task="easy", dev=1.0)
    write_run(tmp_path, task="hard", dev=0.6)
    assert [(line.panel, line.label) for line in figure(tmp_path).lines] == [
        ("easy", "mezo"),
        ("hard", "mezo"),
    ]
    assert [line.label for line in figure(tmp_path, by="task,optimizer").lines] == [
        "easy, mezo",
        "hard, mezo",
    ]
    [line] = figure(tmp_path, "task").lines
    assert line.panel == "" and line.points["x"].tolist() == ["easy", "hard"]


def test_every_setting_can_have_its_line(tmp_path: Path) -> None:
    """`setting` selects nothing and labels by what differs within an optimizer."""
    for seed in (0, 1):
        write_run(tmp_path, seed, lr=0.1)
        write_run(tmp_path, seed, lr=0.01, dev=None)
    labels = [line.label for line in figure(tmp_path, by="setting").lines]
    assert labels == ["optimizer.lr=0.01", "optimizer.lr=0.1"]
    write_run(tmp_path, optimizer="adamw")
    labels = [line.legend() for line in figure(tmp_path, by="setting").lines]
    assert labels == ["adamw (1)", "mezo, optimizer.lr=0.01 (2)", "mezo, optimizer.lr=0.1 (2)"]


def test_missing_runs_are_named_and_stay_in_the_legend(tmp_path: Path) -> None:
    """Runs that did not finish, or left no curve, are counted in the legend and said by name."""
    write_run(tmp_path, 0)
    lost = [write_run(tmp_path, 1, status="diverged"), write_run(tmp_path, 2, status="failed")]
    lost += [write_run(tmp_path, 3, status="unfinished"), write_run(tmp_path, 4)]
    (lost[-1] / "metrics.jsonl").unlink()
    lost.append(write_run(tmp_path, 0, optimizer="loren", status="diverged"))
    said = plot(tmp_path, SUITE)
    assert all(folder.name in said for folder in lost)
    summary = said.splitlines()[1]
    assert "missing: 2 diverged, 1 failed, 1 unfinished, 1 without a number" in summary
    assert "runs shown: 1 of 6; " in summary and "seeds 0;" in summary
    legends = [line.legend() for line in figure(tmp_path).lines]
    assert legends == [
        "loren (0; 1 diverged)",
        "mezo (1; 1 diverged, 1 failed, 1 unfinished, 1 without a number)",
    ]


def test_gaps_are_said(tmp_path: Path) -> None:
    """A loss that was not finite is a gap in the line and a note under it."""
    write_run(tmp_path, accuracy=((0, 0.5), (100, None), (200, 0.9)))
    assert "mezo: points without a finite number, left as gaps: 1" in plot(tmp_path, SUITE)


def test_a_suite_without_a_finished_run_is_one_line(tmp_path: Path) -> None:
    """It says what became of the runs instead."""
    write_run(tmp_path, 0, status="failed")
    write_run(tmp_path, 1, status="diverged")
    with pytest.raises(UserError, match=r"no finished run to plot: 1 diverged, 1 failed$"):
        plot(tmp_path, SUITE)


def test_a_point_per_value_of_a_setting(tmp_path: Path) -> None:
    """Numbers stand by size, dev selects for each point, and who lacks the setting is a level."""
    for theta in (9.0, 10.0):
        for seed, test in enumerate((0.5, 0.7)):
            write_run(tmp_path, seed, theta=theta, optimizer="cone", test=test)
            write_run(tmp_path, seed, theta=theta, optimizer="cone", lr=1.0, dev=theta / 11, test=1)
    write_run(tmp_path, optimizer="mezo", test=0.4)
    found = figure(tmp_path, "optimizer.sampler.theta", "test/accuracy")
    cone, mezo = found.lines
    assert not found.categories and not found.curves
    assert cone.points["x"].tolist() == [9.0, 10.0]
    assert cone.points["mean"].tolist() == pytest.approx([0.6, 1.0])  # dev: .9 > 9/11, < 10/11
    assert cone.points["std"].tolist() == pytest.approx([np.std((0.5, 0.7), ddof=1), 0])
    assert mezo.level and mezo.points["mean"].tolist() == [0.4]
    write_run(tmp_path, theta="auto", optimizer="cone")
    words = figure(tmp_path, "optimizer.sampler.theta", "test/accuracy")
    assert words.categories == ("9.0", "10.0", "-", "auto")
    assert [line.points["x"].tolist() for line in words.lines] == [["9.0", "10.0", "auto"], ["-"]]


def test_a_run_without_training_is_a_level(tmp_path: Path) -> None:
    """Zero-shot spends nothing: a level across the curves, also on a logarithmic axis."""
    write_run(tmp_path)
    write_run(tmp_path, optimizer="zero_shot", accuracy=((0, 0.5),))
    assert [line.level for line in figure(tmp_path).lines] == [False, True]
    said = plot(tmp_path, SUITE, log="both")
    assert "mezo: not on the logarithmic x axis, as 0 or below: 1" in said
    assert "zero_shot:" not in said


def test_logarithmic_axes_lose_nothing_in_silence(tmp_path: Path) -> None:
    """What a logarithmic axis cannot show is said, and an error where it is all there is."""
    for seed, value in enumerate((0.0, 0.1)):
        write_run(tmp_path, seed, accuracy=((0, 0.0), (100, value), (200, 0.9)))
    said = plot(tmp_path, SUITE, log="y")
    assert "mezo: not on the logarithmic y axis, as 0 or below: 1" in said
    assert "spreads cut on the logarithmic y axis, as they reach 0 or below: 1" in said
    with pytest.raises(UserError, match="needs numbers, and task has other values"):
        plot(tmp_path, SUITE, x="task", log="x")
    for theta in (-1.0, -2.0):
        write_run(tmp_path / "negative", theta=theta)
    with pytest.raises(UserError, match=r"nothing to plot.*as 0 or below: 2"):
        plot(tmp_path / "negative", SUITE, x="optimizer.sampler.theta", log="x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "cost/joules"}, r"'cost/joules'.*optimizer, task.*optimizer\.lr.*cost/forwards"),
        ({"y": "dev/f1"}, r"'dev/f1'.*known: .*dev/accuracy.*train/loss"),
        ({"x": "optimizer.lr", "y": "train/loss"}, r"'train/loss'; known: .*test/accuracy"),
        ({"lines": "optimiser"}, r"'optimiser'.*model, optimizer, task"),
        ({"x": "task", "lines": "optimizer, task"}, r"both 'task'"),
        ({"log": "z"}, r"'z'.*none, x, y, both"),
        ({"out": Path("figure.gif")}, r"figure\.gif: the suffix must be \.png or \.svg or \.pdf"),
        ({"kind": "bars"}, r"unknown kind 'bars'; choose one of curves, target, pareto, rates"),
        ({"kind": "target", "target": "90"}, r"target 90: must be a dev accuracy as a fraction"),
        ({"kind": "target", "y": "dev/loss"}, r"reads dev/accuracy; leave --y dev/loss out"),
        ({"kind": "target", "log": "x"}, r"bars, which start at 0; leave --log out"),
        ({"kind": "rates", "y": "test/accuracy"}, r"selects by dev .* not test/accuracy"),
        ({"kind": "rates", "x": "task"}, r"needs a setting that is a number; task is not"),
        ({"kind": "pareto", "x": "memory/watts"}, r"no run .* has the metric 'memory/watts'"),
    ],
)
def test_unknown_options_name_the_known_ones(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """A wrong key, scale or format is answered with those there are."""
    write_run(tmp_path, lr=1e-3)
    write_run(tmp_path, lr=1e-2)
    with pytest.raises(UserError, match=message):
        plot(tmp_path, SUITE, **options)


def test_the_suite_says_what_its_figure_is(tmp_path: Path) -> None:
    """What is not said comes from the runs' `plot:` settings, and an argument wins."""
    preset = {"x": "step", "y": "train/loss", "lines": "model", "log": "x"}
    write_run(tmp_path, preset=preset)
    assert "train/loss against step, lines by model (1)" in plot(tmp_path, SUITE)
    assert "dev/loss against step, lines by model (1)" in plot(tmp_path, SUITE, y="dev/loss")
    write_run(tmp_path, 1, preset=preset | {"x": "cost/forwards"})
    with pytest.raises(UserError, match=r"disagree about plot\.x: cost/forwards, step"):
        plot(tmp_path, SUITE)


def test_the_figure_shows_the_numbers_in_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn is the chart: an accuracy in percent, a loss as it is."""
    drawn: list[tuple[list[float], list[float]]] = []
    original = Axes.plot

    def spy(self: Axes, x: Any, y: Any, **style: Any) -> Any:
        drawn.append((list(x), list(y)))
        return original(self, x, y, **style)

    write_run(tmp_path)
    monkeypatch.setattr(Axes, "plot", spy)
    plot(tmp_path, SUITE)
    plot(tmp_path, SUITE, y="dev/loss")
    assert drawn == [([0, 100, 200], [50, 70, 90]), ([0, 100, 200], [0.3] * 3)]


def test_the_file_is_an_image_with_the_lines(tmp_path: Path) -> None:
    """The PNG decodes and has the colours of both lines; the SVG is well-formed."""
    write_run(tmp_path)
    write_run(tmp_path, optimizer="adamw", accuracy=((0, 0.5), (100, 0.9)))
    said = plot(tmp_path, SUITE)
    path = tmp_path / SUITE / f"{SUITE}.png"
    assert said.splitlines()[0] == str(path)
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    assert min(pixels.shape[:2]) > 500
    for colour in COLOURS[:2]:
        rgb = [int(colour[n : n + 2], 16) for n in (1, 3, 5)]
        assert (np.abs(pixels - rgb).max(-1) <= 1).sum() > 100
    assert not (np.abs(pixels - [0, 158, 115]).max(-1) <= 1).any()  # the third colour
    vector = tmp_path / "new" / "figure.svg"
    plot(tmp_path, SUITE, out=vector)
    assert ElementTree.parse(vector).getroot().tag.endswith("svg")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_runs_give_the_same_bytes(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file holds no time and none of the user's matplotlib settings; pyplot is not used."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    write_run(tmp_path)
    write_run(tmp_path, 1, lr=0.1)
    plot(tmp_path, SUITE, out=tmp_path / f"one.{suffix}")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 20, "savefig.dpi": 20}):
        plot(tmp_path, SUITE, out=tmp_path / f"two.{suffix}")
        assert matplotlib.rcParams["lines.linewidth"] == 9
    bytes_ = (tmp_path / f"one.{suffix}").read_bytes()
    assert bytes_ == (tmp_path / f"two.{suffix}").read_bytes()
    assert b"Matplotlib v" not in bytes_ and b"matplotlib.org" not in bytes_
    assert suffix != "pdf" or (b"/FontFile2" in bytes_ and b"/Type3" not in bytes_)


def test_any_name_and_any_number_of_lines_can_be_drawn(tmp_path: Path) -> None:
    """Names with markup, underscores, unknown scripts or great length do not warn or fail."""
    names = [r"$\frac$", "a$b", "_hidden", "零階\t\u0007", "long name " * 20]
    for n, name in enumerate([*names, *(f"row {n}" for n in range(35))]):
        write_run(tmp_path, optimizer=name, task=f"$_{n % 2}")
    assert "lines by optimizer (40): " in plot(tmp_path, SUITE)
    plot(tmp_path, SUITE, x="optimizer", lines="task")


def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`zobench plot` draws the suite in the folder named by --runs or ZOBENCH_RUNS."""
    write_run(tmp_path)
    out = tmp_path / "a.svg"
    monkeypatch.setenv("ZOBENCH_RUNS", str(tmp_path))
    assert main([SUITE, "--x", "step", "--y", "dev/loss", "--log", "y", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}\ndev/loss against step, lines by")
    monkeypatch.delenv("ZOBENCH_RUNS")
    assert main([SUITE, "--runs", str(tmp_path), "--lines", "setting"]) == 0
    assert (tmp_path / SUITE / f"{SUITE}.png").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*b\.png"):
        plot(tmp_path, SUITE, out=tmp_path / "file" / "b.png")
