"""`zobench table` as papers print it: names, order, best numbers, averages, and what is missing."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.suites import SUITE, write_run
from zobench.report.best import best_and_close
from zobench.report.latex import COLUMN, characters
from zobench.report.method_names import readable
from zobench.report.runs import read_suite
from zobench.report.table import sheet, table

TASKS = ("sst2", "rte", "cb")
NAN = float("nan")


def scores(seed: int, share: float, examples: int = 200) -> list[float]:
    return (np.random.default_rng(seed).random(examples) < share).astype(float).tolist()


def lines(answer: str) -> list[list[str]]:
    """The cells of each line of a text table, the header first."""
    rows = [line for line in answer.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def run_of(root: Path, optimizer: str, task: str, value: float, **more: Any) -> None:
    write_run(root, optimizer=optimizer, task=task, scores=scores(len(task), value), **more)


def test_one_line_per_method_under_its_printed_name(tmp_path: Path) -> None:
    """The name is in the first line of the row's yaml; the way of tuning stands in parentheses."""
    for optimizer, tuning in (("mezo", "full"), ("mezo", "lora"), ("mine", "prefix")):
        choices = {"tuning": tuning}
        write_run(tmp_path, optimizer=optimizer, choices=choices, more={"tuning": tuning})
    found = lines(table(tmp_path, SUITE, rows="optimizer,tuning"))
    assert [row[0] for row in found] == ["method", "MeZO", "MeZO (LoRA)", "mine (prefix)"]
    assert [row[0] for row in lines(table(tmp_path, SUITE, rows="tuning"))][1:] == [
        *("full", "LoRA", "prefix")
    ]


def test_a_name_that_two_rows_would_share_is_left_to_neither() -> None:
    """Labels of options stay where names would hide a difference, or a value has a comma."""
    assert readable("optimizer,tuning", ["mezo, full", "MeZO, full"]) == {
        "mezo, full": "mezo, full",
        "MeZO, full": "MeZO, full",
    }
    assert readable("optimizer", ["a, b", "zero_shot", "in_context", "mezo-calibrated"]) == {
        "a, b": "a, b",
        "zero_shot": "Zero-shot",
        "in_context": "In-context learning",
        "mezo-calibrated": "MeZO, calibrated",
    }
    assert readable("optimizer,tuning", ["zero_shot, head", "linear_probe, head"]) == {
        "zero_shot, head": "Zero-shot",
        "linear_probe, head": "Linear probing",
    }
    assert readable("optimizer,optimizer.lr", ["mezo, 0.1"]) == {"mezo, 0.1": "MeZO, 0.1"}


def test_columns_and_rows_are_in_the_order_of_the_sweep(tmp_path: Path) -> None:
    """The experiment's overlay lists them; what it does not list follows in alphabetical order."""
    for optimizer in ("adamw", "mezo", "agzo", "zero_shot"):
        for task in ("wsc", "sst2", "rte", "anli"):
            choices = {"experiment": "mezo_opt13b", "tuning": "full"}
            write_run(tmp_path, optimizer=optimizer, task=task, choices=choices)
    head, *rows = lines(table(tmp_path, SUITE))
    assert head == ["method", "sst2", "rte", "wsc", "anli", "average"]
    assert [row[0] for row in rows] == ["MeZO", "First-order AdamW", "Zero-shot", "AGZO"]


def test_the_papers_order_comes_first(tmp_path: Path) -> None:
    """Where the suite names published numbers, their order counts, by the paper's names, too."""
    asked = {"paper": "mezo", "table": "T1", "names": {"in_context": "icl"}}
    for optimizer in ("adamw", "in_context", "mezo", "zero_shot"):
        for task in ("cb", "rte", "sst2"):
            choices = {"tuning": "full"}
            write_run(tmp_path, optimizer=optimizer, task=task, choices=choices, published=asked)
    head, *rows = lines(table(tmp_path, SUITE))
    assert head[1:4] == list(TASKS)
    assert [row[0] for row in rows] == [
        *("Zero-shot", "In-context learning", "MeZO", "First-order AdamW")
    ]


def test_empty_cells_of_one_kind_have_no_count(tmp_path: Path) -> None:
    """A count would be read as that of all cells; failed settings are no tie of dev."""
    for lr in (1e-3, 1e-2):
        for task in ("sst2", "rte"):
            write_run(tmp_path, task=task, lr=lr, status="failed", reason="data")
    write_run(tmp_path, task="cb", status="diverged", reason="nan")
    write_run(tmp_path, 1, task="cb", status="failed", reason="data")
    answer = table(tmp_path, SUITE)
    assert "\n-: 1 diverged, 1 failed: MeZO cb; failed: MeZO rte, sst2\n" in answer


@pytest.mark.parametrize(
    ("metric", "numbers", "spans", "best", "close"),
    [
        ("test/accuracy", {"a": 0.9, "b": 0.8, "c": 0.7},
         {"a": (0.85, 0.95), "b": (0.75, 0.86), "c": (0.6, 0.8)}, {"a"}, {"b"}),
        ("dev/loss", {"a": 0.9, "b": 0.8}, {"a": (0.85, 0.95), "b": (0.75, 0.86)}, {"b"}, {"a"}),
        ("memory/peak_gib", {"a": 2.0, "b": 1.0}, {}, {"b"}, set()),
        ("test/accuracy", {"a": 0.9, "b": 0.9, "c": 0.1}, {}, {"a", "b"}, set()),
        ("test/accuracy", {"a": 0.9, "b": 0.9, "c": NAN}, {}, set(), set()),
        ("test/accuracy", {"a": 0.9, "b": NAN}, {}, set(), set()),
        ("test/mcc", {"a": -0.1, "b": 0.2}, {}, {"b"}, set()),
        ("best_step", {"a": 1.0, "b": 2.0}, {}, set(), set()),
    ],
)  # fmt: skip
def test_best_and_within_noise(
    metric: str, numbers: Any, spans: Any, best: set[str], close: set[str]
) -> None:
    """The best by the metric's direction; close is what has an interval that overlaps its."""
    assert best_and_close(metric, numbers, spans) == (best, close)


def test_each_format_marks_the_best_and_says_how(tmp_path: Path) -> None:
    """`*` and `~` in text, bold and underlined elsewhere, with a note; not with --details."""
    for optimizer, share in (("mezo", 0.9), ("conmezo", 0.88), ("zero_shot", 0.5)):
        run_of(tmp_path, optimizer, "sst2", share)
    answer = table(tmp_path, SUITE)
    values = {row[0]: row[1] for row in lines(answer)[1:]}
    assert values["MeZO"].endswith("*") and values["ConMeZO"].endswith("~")
    assert re.fullmatch(r"[\d.]+", values["Zero-shot"])
    assert "*: the best of its column; ~: its 95 % interval overlaps that of the best" in answer
    best, close = values["MeZO"][:-1], values["ConMeZO"][:-1]
    latex = table(tmp_path, SUITE, format="latex")
    assert rf"\textbf{{{best}}}" in latex and rf"\underline{{{close}}}" in latex
    marked = table(tmp_path, SUITE, format="markdown")
    assert f"| **{best}** |" in marked and f"| <u>{close}</u> |" in marked
    page = table(tmp_path, SUITE, format="html")
    assert f'<td class="best">{best}' in page and f'<td class="close">{close}' in page
    for shown in (latex, marked, page):
        assert "bold: the best of its column; underlined: its 95 % interval" in " ".join(
            shown.replace("\\%", "%").split()
        )
    assert "the best of" not in table(tmp_path, SUITE, details=True)


def test_the_average_is_of_rows_that_have_every_column(tmp_path: Path) -> None:
    """A row with a hole has `-` there, and the hole is named."""
    for optimizer, tasks in (("mezo", TASKS), ("conmezo", TASKS[:2])):
        for number, task in enumerate(tasks):
            write_run(tmp_path, optimizer=optimizer, task=task, test=0.5 + number / 10)
    write_run(tmp_path, 1, task="cb", status="diverged", reason="nan")
    answer = table(tmp_path, SUITE)
    rows = {row[0]: row for row in lines(answer)}
    assert rows["method"][-1] == "average" and rows["MeZO"][-1] == "60.0"
    assert rows["ConMeZO"][-1] == "-"
    assert "\n-: no run: ConMeZO cb\n" in answer
    assert "\nnot in the mean: 1 diverged: MeZO cb\n" in answer


def test_what_the_experiment_has_and_the_suite_has_not_is_named(tmp_path: Path) -> None:
    """Tasks and rows without any run are in a note, by key; so is why a cell is empty."""
    choices = {"experiment": "mezo_opt13b", "tuning": "full"}
    write_run(tmp_path, task="sst2", choices=choices)
    write_run(tmp_path, task="rte", choices=choices, status="failed", reason="out of memory")
    answer = table(tmp_path, SUITE, rows="optimizer,tuning")
    assert "\n-: failed: MeZO rte\n" in answer
    tasks = "cb, boolq, wsc, wic, multirc, copa, record, squad, drop"
    assert f"no run of task {tasks}, which the experiment has, too" in answer
    assert "no run of optimizer adamw, zero_shot, in_context, linear_probe, which" in answer
    assert "no run of tuning lora, prefix, head, which" in answer


def test_numbers_of_seeds_stand_in_cells_only_where_they_differ(tmp_path: Path) -> None:
    """With equal seeds a note has them; else each cell has its number of runs."""
    for seed in (0, 1):
        write_run(tmp_path, seed, test=0.5 + seed / 10)
        write_run(tmp_path, seed, optimizer="conmezo", test=0.7)
    assert "(2)" not in table(tmp_path, SUITE)
    assert "over seeds 0, 1;" in table(tmp_path, SUITE)
    write_run(tmp_path, 2, test=0.5)
    answer = table(tmp_path, SUITE)
    assert "(3)" in answer and "(2)" in answer
    assert "over seeds 0, 1, 2, as many as stand in parentheses" in answer


def test_costs_are_columns_of_a_single_task_and_forwards_a_note_of_several(tmp_path: Path) -> None:
    """A table of several tasks has the tasks and their average, and no other column."""
    write_run(tmp_path, task="a", forwards=400)
    write_run(tmp_path, task="a", optimizer="loren", forwards=1200)
    assert lines(table(tmp_path, SUITE))[0][2:] == [
        *("forwards", "device hours", "peak GiB", "s/step")
    ]
    write_run(tmp_path, task="b", forwards=400)
    answer = table(tmp_path, SUITE)
    assert lines(answer)[0] == ["method", "a", "b", "average"]
    assert "forwards: LOREN 1200, MeZO 400" in answer


def test_latex_takes_a_column_or_the_page(tmp_path: Path) -> None:
    """What is wider than a column of text by its characters spans the page; both are scaled."""
    for seed in (0, 1):
        write_run(tmp_path, seed, task="a", test=0.5 + seed / 10)
        write_run(tmp_path, seed, task="b", optimizer="conmezo", test=0.6)
    narrow = table(tmp_path, SUITE, format="latex")
    assert characters(sheet(read_suite(tmp_path, SUITE))) <= COLUMN
    assert narrow.count(r"\begin{table}") == narrow.count(r"\end{table}") == 1
    for task in "cdefghijkl":
        for seed in (0, 1):
            write_run(tmp_path, seed, task=f"task_{task}", test=0.5 + seed / 10)
    wide = table(tmp_path, SUITE, format="latex")
    assert characters(sheet(read_suite(tmp_path, SUITE))) > COLUMN
    assert wide.count(r"\begin{table*}") == wide.count(r"\end{table*}") == 1
    for source in (narrow, wide):
        assert r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{\begin" in source
        assert source.count("{") == source.count("}")
        assert source.count("$") % 2 == 0


def test_selection_and_notes_on_the_data_are_announced(tmp_path: Path) -> None:
    """That dev selected, and how many notes --details has, is one note."""
    for lr in (1e-3, 1e-2):
        write_run(tmp_path, lr=lr, dev=0.5 + lr, meta={"notes": ["odd rows"]})
    answer = table(tmp_path, SUITE)
    assert "dev selected, among up to 2 settings a cell; 1 note on the data's rows" in answer
    assert "(-{}-details lists them)" in table(tmp_path, SUITE, format="latex")
    assert "odd rows" not in answer and "odd rows" in table(tmp_path, SUITE, details=True)


def test_runs_of_settings_that_are_not_shown_are_counted(tmp_path: Path) -> None:
    """What diverged, failed or runs at a rate that dev did not select is no silent loss."""
    write_run(tmp_path)
    for lr, status in ((0.1, "diverged"), (0.2, "failed"), (0.3, "unfinished")):
        write_run(tmp_path, lr=lr, status=status)
    answer = table(tmp_path, SUITE)
    assert "of 4 runs 1 diverged, 1 failed, 1 running or stopped (--details" in answer


def test_a_baseline_adds_the_details(tmp_path: Path) -> None:
    """A test against a row needs the columns that only the details have."""
    run_of(tmp_path, "mezo", "sst2", 0.8)
    run_of(tmp_path, "conmezo", "sst2", 0.6)
    assert table(tmp_path, SUITE, baseline="mezo") == table(
        tmp_path, SUITE, baseline="mezo", details=True
    )
    assert "| p vs mezo |" in table(tmp_path, SUITE, baseline="mezo")
