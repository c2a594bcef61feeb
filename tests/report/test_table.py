"""`zobench table`: what a cell holds, who chooses, and that nothing is left out in silence."""

import io
import random
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.suites import SUITE, write_run
from zobench.errors import UserError
from zobench.report.numbers import number
from zobench.report.table import main, table


def cells(root: Path, **options: Any) -> pd.DataFrame:
    """The CSV of the suite, read back."""
    answer = table(root, SUITE, format="csv", **options)
    return pd.read_csv(io.StringIO(answer), dtype={"setting": str, "seeds": str, "row": str})


def details(root: Path, **options: Any) -> str:
    """The suite's table with --details."""
    return table(root, SUITE, details=True, **options)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_cell_is_numpys_mean_and_sample_std_in_any_order(
    values: list[float], shuffle: random.Random
) -> None:
    """Mean and std equal numpy's with ddof=1, and the names of the folders do not matter."""
    answers = []
    for _ in range(2):
        prefixes = shuffle.sample("abcdefgh", len(values))
        with tempfile.TemporaryDirectory() as root:
            for seed, (value, prefix) in enumerate(zip(values, prefixes, strict=True)):
                write_run(Path(root), seed, test=value, prefix=prefix)
            answers.append(cells(Path(root)))
    pd.testing.assert_frame_equal(answers[0], answers[1], check_exact=True)
    cell = answers[0].iloc[0]
    assert cell["n"] == len(values)
    assert cell["mean"] == pytest.approx(np.mean(values), abs=1e-12)
    if len(values) > 1:
        assert cell["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    else:
        assert np.isnan(cell["std"])


def test_text_shows_percent_spread_and_number_of_runs(tmp_path: Path) -> None:
    """A cell reads `91.0 +- 1.0 (3)`, a single run has no spread, and the costs stand beside."""
    for seed, value in enumerate((0.90, 0.91, 0.92)):
        write_run(tmp_path, seed, test=value)
    write_run(tmp_path, optimizer="conmezo", test=0.8)
    answer = details(tmp_path)
    assert " 91.0 +- 1.0 (3) |" in answer
    costs = r"\| +400 \| +0\.001111 \| +0\.5 \| 0\.0125 \|"
    assert re.search(rf"\| conmezo +\| +80\.0 \(1\) \| +- {costs}", answer)
    assert "forwards | device hours | peak GiB | s/step" in answer
    assert "\x1b" not in answer


@pytest.mark.parametrize("test_numbers", [(0.1, 0.99), (0.99, 0.1), (None, 0.5)])
def test_dev_selects_and_test_cannot(
    tmp_path: Path, test_numbers: tuple[float | None, float | None]
) -> None:
    """Whatever the test numbers are, the setting with the best mean dev accuracy is shown."""
    for seed in range(2):
        write_run(tmp_path, seed, lr=1e-3, dev=0.9, test=test_numbers[0])
        write_run(tmp_path, seed, lr=1e-2, dev=0.8, test=test_numbers[1])
    cell = cells(tmp_path).iloc[0]
    assert cell["n"] == (2 if test_numbers[0] else 0)
    if test_numbers[0]:
        assert cell["mean"] == test_numbers[0]
    assert "finished seeds (2): optimizer.lr=0.001 (dev/accuracy 90.0" in cell["note"]
    assert "not shown: optimizer.lr=0.01 (dev/accuracy 80.0" in cell["note"]
    assert cell["settings"] == 2


def test_a_seed_is_never_what_sets_settings_apart(tmp_path: Path) -> None:
    """A setting run once differs from one run twice in its rate, not in its handed-on seed."""
    for seed in (0, 1):
        write_run(tmp_path, seed)
    write_run(tmp_path, 0, lr=0.01)
    note = details(tmp_path)
    assert "optimizer.lr=0.01 (dev" in note and "seed=" not in note


def test_dev_loss_breaks_a_tie(tmp_path: Path) -> None:
    """At equal dev accuracy the smaller dev loss is shown, in whatever order the seeds summed."""
    for seed, (dev, mirrored) in enumerate(((0.1, 0.3), (0.2, 0.2), (0.3, 0.1))):
        write_run(tmp_path, seed, lr=1e-3, dev=dev, dev_loss=0.5, test=0.6)
        write_run(tmp_path, seed, lr=1e-2, dev=mirrored, dev_loss=0.4, test=0.5)
    assert cells(tmp_path)["mean"].tolist() == [0.5]


def test_fewer_seeds_do_not_win(tmp_path: Path) -> None:
    """A setting with fewer finished seeds loses whatever its dev number, and a note says so."""
    for seed in range(2):
        write_run(tmp_path, seed, lr=1e-3, dev=0.7, test=0.7)
    write_run(tmp_path, 0, lr=1e-2, dev=1.0, test=1.0)
    write_run(tmp_path, 1, lr=1e-2, status="diverged", reason="loss is nan", test=0.0)
    answer = details(tmp_path)
    assert "70.0 +- 0.0 (2) [1]" in answer
    assert "1 of 2 runs done) left out for fewer finished seeds" in answer
    assert "[1] mezo, synthetic_reviews: diverged (loss is nan): " in answer


def test_settings_are_never_mixed_even_without_dev(tmp_path: Path) -> None:
    """Settings that dev cannot tell apart are not averaged: the cell says there are two."""
    for lr in (1e-3, 1e-2):
        write_run(tmp_path, lr=lr, dev=None, dev_loss=None)
    assert "| - (0; 2 settings) [1] |" in details(tmp_path)
    assert cells(tmp_path)["mean"].isna().all()
    by_rate = cells(tmp_path, rows="optimizer.lr")
    assert by_rate["row"].tolist() == ["0.001", "0.01"]
    assert by_rate["n"].tolist() == [1, 1]


def test_lost_runs_are_shown_and_not_averaged(tmp_path: Path) -> None:
    """Diverged, failed and unfinished runs stand in the cell and in a note, not in the mean."""
    write_run(tmp_path, 0, test=0.9)
    lost = {"diverged": "loss is nan", "failed": "out of memory", "unfinished": None}
    folders = [
        write_run(tmp_path, seed, status=status, reason=reason, test=0.1)
        for seed, (status, reason) in enumerate(lost.items(), start=1)
    ]
    answer = details(tmp_path)
    assert "90.0 (1; 1 diverged, 1 failed, 1 running or stopped) [1]" in answer
    assert f"diverged (loss is nan): {folders[0].name}" in answer
    assert f"failed (oom: out of memory): {folders[1].name}" in answer
    assert f"running or stopped: {folders[2].name}" in answer
    cell = cells(tmp_path).iloc[0]
    assert cell[["done", "diverged", "failed", "unfinished"]].tolist() == [1, 1, 1, 1]


def test_a_suite_where_nothing_finished_still_has_a_table(tmp_path: Path) -> None:
    """With no finished run the table shows what there is instead of an error."""
    write_run(tmp_path, status="unfinished")
    answer = details(tmp_path)
    assert "- (0; 1 running or stopped) [1]" in answer
    assert "no run is finished" in answer


def test_a_done_run_without_the_metric_is_not_passed_over(tmp_path: Path) -> None:
    """A finished run whose metric is not a number is counted as such and named."""
    write_run(tmp_path, 0, test=0.9)
    folder = write_run(tmp_path, 1, test=float("nan"))
    answer = details(tmp_path)
    assert "90.0 (1; 1 without a number) [1]" in answer
    assert f"without a finite test/accuracy: {folder.name}" in answer


def test_budget_and_seeds_are_stated(tmp_path: Path) -> None:
    """Steps, forwards and seeds stand under the table, and it says where the rows differ."""
    write_run(tmp_path, 0, optimizer="mezo", forwards=400)
    write_run(tmp_path, 0, optimizer="loren", forwards=1200)
    answer = details(tmp_path)
    assert "seeds: 0\n" in answer
    assert "budget: budget.steps 200; forwards 400 to 1200" in answer
    assert "rows used different numbers of forwards: loren 1200; mezo 400" in answer
    write_run(tmp_path, 1, optimizer="mezo", forwards=400)
    assert "seeds differ: 0 (loren synthetic_reviews); 0, 1 (mezo" in details(tmp_path)


def grid(root: Path) -> None:
    """Two optimizers by two tasks with one cell empty and names that need escaping."""
    write_run(root, 0, optimizer="a_b|c", task="sst2", test=0.5)
    write_run(root, 1, optimizer="a_b|c", task="sst2", test=0.6)
    write_run(root, 0, optimizer="a_b|c", task="50%_&more", test=0.7)
    write_run(root, 0, optimizer="mezo", task="sst2", status="failed", reason="a_b|c 5%")


def test_markdown_rows_have_equal_columns(tmp_path: Path) -> None:
    """Every line of the Markdown table has as many unescaped bars as the header."""
    grid(tmp_path)
    lines = [ln for ln in details(tmp_path, format="markdown").splitlines() if ln.startswith("|")]
    assert len(lines) == 5  # the last is the interval of the first row
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {9}
    assert lines[3].startswith("| &nbsp;&nbsp;95 % interval | - | 4")


def test_latex_escapes_names_and_uses_booktabs(tmp_path: Path) -> None:
    """No bare special character is left in the LaTeX, and its rows have equal columns."""
    grid(tmp_path)
    answer = details(tmp_path, format="latex")
    assert r"\toprule" in answer and r"\bottomrule" in answer
    assert r"a\_b\textbar{}c & 70.0 (1) & 55.0\textsubscript{$\pm$7.1} (2) & 62.5 & 400 &" in answer
    assert r"mezo & - & - (0; 1 failed)\textsuperscript{1} & - &" in answer
    assert r"\quad 95 \% interval & - & 4" in answer
    source = "\n".join(answer.splitlines()[1:])
    assert not re.search(r"(?<!\\)[_%#]", source)
    rows = [line for line in source.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {7}


def test_rows_of_several_keys_are_ordered_part_by_part(tmp_path: Path) -> None:
    """Keys joined by commas make a row per combination, numbers by size in each part."""
    for optimizer, lr in (("b", 10.0), ("b", 9.0), ("a", 100.0)):
        write_run(tmp_path, optimizer=optimizer, lr=lr)
    rows = cells(tmp_path, rows="optimizer, optimizer.lr")["row"].tolist()
    assert rows == ["a, 100.0", "b, 9.0", "b, 10.0"]


def test_csv_has_one_line_per_cell(tmp_path: Path) -> None:
    """The CSV has fractions, not percent, and a line for each cell that has runs, or a mean."""
    grid(tmp_path)
    answer = cells(tmp_path)
    assert answer["column"].tolist() == ["50%_&more", "sst2", "sst2", "average"]
    assert answer["mean"].tolist()[3] == pytest.approx((0.7 + 0.55) / 2)
    cell = answer[(answer["row"] == "a_b|c") & (answer["column"] == "sst2")].iloc[0]
    assert cell["mean"] == pytest.approx(0.55)
    assert cell["seeds"] == "0 1"
    assert cell[["forwards", "peak_gib", "step_s"]].tolist() == [400, 0.5, 0.0125]


def test_the_suite_says_what_its_table_is(tmp_path: Path) -> None:
    """Rows, columns and metric come from the runs' `table:` settings, and an argument wins."""
    preset = {"rows": "model", "columns": "optimizer", "metric": "test/loss"}
    write_run(tmp_path, preset=preset)
    assert cells(tmp_path).iloc[0][["row", "column", "mean"]].tolist() == ["tiny", "mezo", 0.25]
    assert cells(tmp_path, rows="task").iloc[0]["row"] == "synthetic_reviews"
    write_run(tmp_path, 1, preset=preset | {"metric": "dev/loss"})
    with pytest.raises(UserError, match=r"disagree about table.metric: dev/loss, test/loss"):
        details(tmp_path)


def test_forwards_to_a_target_stand_beside_the_costs(tmp_path: Path) -> None:
    """Mean and spread of the finished runs that reached it, how many if not all, `-` if none."""
    for seed, first in enumerate((100, 200)):
        write_run(tmp_path, seed, accuracies=((0, 0.5), (first, 0.9), (300, 0.8), (400, 0.95)))
        write_run(tmp_path, seed, optimizer="sgd", accuracies=((0, 0.5), (50, 0.9 - seed / 10)))
        write_run(tmp_path, seed, optimizer="worse", accuracies=((0, 0.5), (400, 0.8999)))
    write_run(tmp_path, 2, status="diverged", accuracies=((0, 0.9),))
    answer = details(tmp_path, target="0.9")
    rows = [line.split("|")[-2].strip() for line in answer.splitlines() if line[0] == "|"]
    assert rows == ["forwards to 90 %", "150 +- 70.71", "50 (1 of 2)", "-"]
    assert "forwards to 90 %: cost/forwards at the first evaluation" in answer
    numbers = cells(tmp_path, target="0.9").set_index("row")
    assert numbers["forwards_to_0.9"].tolist() == pytest.approx([150, 50, np.nan], nan_ok=True)
    assert numbers.loc["mezo", "forwards_to_0.9_std"] == pytest.approx(np.std((100, 200), ddof=1))
    assert numbers["forwards_to_0.9_n"].tolist() == [2, 1, 0]
    assert "forwards to" not in details(tmp_path)


def test_a_target_comes_from_the_suite_and_needs_a_single_column(tmp_path: Path) -> None:
    """The runs' `table.target` is used, an argument wins, and of two columns a note speaks."""
    write_run(tmp_path, preset={"target": "0.75"}, accuracies=((10, 0.7), (20, 0.75)))
    assert details(tmp_path).splitlines()[2].endswith("| forwards to 75 % |")
    assert re.search(r"\| +10 \|\n", details(tmp_path, target="0.7"))
    write_run(tmp_path, task="sst2")
    answer = details(tmp_path)
    assert "forwards to 75 %" not in answer.splitlines()[2]
    assert "shown where there is one column" in answer
    for wrong in ("90", "0", "high", "nan"):
        with pytest.raises(UserError, match=f"target {wrong}: must be .* such as 0.9"):
            details(tmp_path, target=wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "test/f1"}, r"'test/f1'.*known: .*test/accuracy"),
        ({"rows": "optimiser"}, r"'optimiser'.*estimator, model, optimizer, task.*optimizer.lr"),
        ({"columns": "optimizer"}, r"both 'optimizer'"),
        ({"format": "pdf"}, r"'pdf'.*text, markdown, csv, latex, html"),
        ({"select": "test"}, r"select=test: choose one of mean, seed"),
        ({"baseline": "adam"}, r"baseline 'adam' is no row; there are mezo"),
    ],
)
def test_unknown_options_name_the_known_ones(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """A wrong metric, key or format is answered with those there are."""
    write_run(tmp_path, lr=1e-3)
    write_run(tmp_path, lr=1e-2)
    with pytest.raises(UserError, match=message):
        details(tmp_path, **options)


def truncate(name: str) -> Callable[[Path], object]:
    """A damage: the file is cut in the middle of a value."""
    return lambda folder: (folder / name).write_text('{"a": [')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate("meta.json"), r"meta\.json"),
        (truncate("config.yaml"), r"config\.yaml"),
        (truncate("result.json"), r"result\.json"),
        (lambda folder: (folder / "result.json").write_bytes(b"\xff\xfe"), r"result\.json"),
        (lambda folder: (folder / "result.json").write_text("[]"), r"result\.json.*mapping"),
        (lambda folder: (folder / "result.json").write_text("{}"), r"result\.json: status is None"),
        (lambda folder: (folder / "meta.json").write_text("{}"), r"meta\.json: 'id' is missing"),
        (lambda folder: (folder / "meta.json").unlink(), r"meta\.json"),
        (
            lambda folder: shutil.copytree(folder, folder.parent / "copy"),
            r"same id .*: copy and synthetic_reviews-",
        ),
    ],
)
def test_damaged_folders_are_named(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    """A file that cannot be read, or a run that is there twice, is an error that names it."""
    damage(write_run(tmp_path))
    with pytest.raises(UserError, match=message):
        details(tmp_path)


def test_unknown_and_empty_suites(tmp_path: Path) -> None:
    """An unknown suite lists those there are, and a suite without runs says that it has none."""
    write_run(tmp_path)
    (tmp_path / "void").mkdir()
    (tmp_path / "void" / "multirun.yaml").write_text("a: 1")
    with pytest.raises(UserError, match=rf"no suite 'nope' in .*: {SUITE}, void"):
        table(tmp_path, "nope")
    with pytest.raises(UserError, match="'void' has no runs"):
        table(tmp_path, "void")
    with pytest.raises(UserError, match="no folder of runs"):
        table(tmp_path / "elsewhere", SUITE)


def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`zobench table` prints the table of the folder named by --runs or ZOBENCH_RUNS."""
    write_run(tmp_path)
    assert main([SUITE, "--runs", str(tmp_path), "--format", "csv"]) == 0
    assert capsys.readouterr().out == table(tmp_path, SUITE, format="csv")
    monkeypatch.setenv("ZOBENCH_RUNS", str(tmp_path))
    assert main([SUITE, "--rows", "task", "--columns", "model", "--metric", "dev/loss"]) == 0
    assert "dev/loss" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "example: zobench table" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123456, "0.1235"), (999.94, "999.9"), (12345.6, "12346"), (-1e130, "-1e+130")],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    """Four digits, whole numbers from a thousand up, and a power of ten for what has blown up."""
    assert number("final/loss", value) == shown
