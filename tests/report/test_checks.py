"""What cannot be compared is refused within a cell and named in the first line between cells."""

import io
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.suites import SUITE, write_run
from tests.report.test_table import details
from zobench.errors import UserError
from zobench.report.table import table


@pytest.mark.parametrize(
    ("more", "meta", "says"),
    [
        ({"model": {"dtype": "bfloat16"}}, {}, "model.dtype: bfloat16 (adamw t), float32 (mezo t)"),
        (
            {"model": {"dtype": "float32"}, "train": {"precision": "bfloat16"}},
            {},
            "train.precision: bfloat16 (adamw t), that of the weights (mezo t)",
        ),
        (
            {"model": {"dtype": "float32"}, "task": {"data_seed": 7}},
            {},
            "task.data_seed: 7 (adamw t), 0 (mezo t)",
        ),
        (
            {"model": {"dtype": "float32"}, "task": {"data_seed": 0, "chat": True}},
            {},
            "task.chat: true (adamw t), false (mezo t)",
        ),
        (
            {"task": {"data_seed": 0, "version": 2}},
            {},
            "task.version: 2 (adamw t), 1 (mezo t)",
        ),
        (
            {"model": {"dtype": "float32"}},
            {"data": {"test": 50}},
            "test examples: 50 (adamw t), 100 (mezo t)",
        ),
    ],
)
def test_the_first_line_names_what_differs_and_where(
    tmp_path: Path, more: dict[str, Any], meta: dict[str, Any], says: str
) -> None:
    """In every format, with the values and the rows; the CSV has it in a column."""
    usual = {"model": {"dtype": "float32"}, "task": {"data_seed": 0, "version": 1}}
    more = {"task": usual["task"] | more.get("task", {})} | {
        k: more[k] for k in more if k != "task"
    }
    write_run(tmp_path, task="t", more=usual, meta={"data": {"test": 100}})
    assert "differ" not in details(tmp_path)
    write_run(
        tmp_path,
        task="t",
        optimizer="adamw",
        more=usual | more,
        meta={"data": {"test": 100}, **meta},
    )
    line = f"these runs differ in: {says}"
    assert details(tmp_path).splitlines()[0] == line
    assert details(tmp_path, format="markdown").splitlines()[0] == line
    assert details(tmp_path, format="latex").splitlines()[0] == f"% {line}"
    assert f'<p class="warning" role="note">{line}</p>' in details(tmp_path, format="html")
    numbers = pd.read_csv(io.StringIO(details(tmp_path, format="csv")))
    assert set(numbers["differs"]) == {says}


def test_rows_that_differ_in_all_columns_are_named_once(tmp_path: Path) -> None:
    """By the names that the table has for them, and the value of most rows without any name."""
    for optimizer in ("adamw", "conmezo", "loren", "mezo", "zo_sign_mean"):
        dtype = "bfloat16" if optimizer == "adamw" else "float32"
        for task in ("t", "u"):
            more = {"model": {"dtype": dtype}}
            write_run(tmp_path, optimizer=optimizer, task=task, more=more)
    says = "these runs differ in: model.dtype: bfloat16 ({}), float32 (all others)"
    assert details(tmp_path).splitlines()[0] == says.format("adamw")
    assert table(tmp_path, SUITE).splitlines()[0] == says.format("First-order AdamW")


def test_the_first_line_says_that_prompts_were_those_of_a_chat(tmp_path: Path) -> None:
    """Where all runs had it, which is no difference."""
    for value, stated in (("auto", "auto"), (True, "auto and true")):
        write_run(tmp_path, task=str(value), more={"task": {"chat": value}})
        first = details(tmp_path, rows="seed").splitlines()[0 if value == "auto" else 1]
        assert first == f"{SUITE}: test/accuracy (%), task.chat={stated}"


def test_steps_of_a_row_and_forwards_of_a_column_are_compared(tmp_path: Path) -> None:
    """A row that took more steps on one task is named; so are rows with other forwards."""
    write_run(tmp_path, task="a", more={"budget": {"steps": 100}}, forwards=200)
    write_run(tmp_path, task="b", more={"budget": {"steps": 300}}, forwards=600)
    first = details(tmp_path).splitlines()[0]
    assert first == "these runs differ in: steps: 100 (mezo a), 300 (mezo b)"
    write_run(tmp_path, optimizer="adamw", task="a", more={"budget": {"steps": 100}}, forwards=100)
    answer = details(tmp_path)
    assert answer.splitlines()[0].endswith("; forwards (named by row below)")
    assert "rows used different numbers of forwards: adamw 100; mezo 200 to 600" in answer
    assert "steps: " not in details(tmp_path, rows="budget.steps", columns="task")


def test_what_was_not_trained_is_not_another_budget(tmp_path: Path) -> None:
    """Zero-shot has no forwards, which makes nothing incomparable."""
    write_run(tmp_path, forwards=400)
    write_run(tmp_path, optimizer="zero_shot", forwards=0)
    assert "differ in" not in details(tmp_path)


def test_settings_of_other_budgets_do_not_compete(tmp_path: Path) -> None:
    """Within a cell another budget is an error, unless as many forwards were spent."""
    write_run(tmp_path, lr=1e-3, more={"budget": {"steps": 100}}, forwards=200)
    write_run(tmp_path, lr=1e-2, more={"budget": {"steps": 200}}, forwards=400)
    with pytest.raises(UserError, match=r"budget.steps=100, budget.steps=200; .*--rows optimizer,"):
        details(tmp_path)
    assert "(1)" in details(tmp_path, rows="optimizer,budget.steps")
    with pytest.raises(UserError, match="different budgets"):
        details(tmp_path, select="seed")


def test_settings_at_equal_forwards_compete(tmp_path: Path) -> None:
    """Fewer steps of more queries are the same budget in forwards."""
    for steps in (100, 50):
        write_run(tmp_path, more={"budget": {"steps": steps, "forwards": 400}}, forwards=400)
    assert "2 settings competed" in details(tmp_path)


def test_settings_on_other_data_do_not_compete(tmp_path: Path) -> None:
    """Two data seeds for one seed in a cell are an error; one for each seed are not."""
    for seed in (0, 1):
        write_run(tmp_path, seed, lr=1e-3, more={"task": {"data_seed": 5}})
    assert "competed" not in details(tmp_path)
    write_run(tmp_path, 0, lr=1e-2, more={"task": {"data_seed": 6}})
    with pytest.raises(UserError, match=r"data seeds .*data_seed=5, task.data_seed=6"):
        details(tmp_path)


def test_settings_of_other_versions_of_a_task_do_not_compete(tmp_path: Path) -> None:
    """A version is raised when a change moves numbers; other tasks have versions of their own."""
    for version in (1, 2):
        write_run(tmp_path, task=f"t{version}", more={"task": {"version": version}})
    assert "differ" not in details(tmp_path)
    write_run(tmp_path, lr=1e-2, task="t1", more={"task": {"version": 2}})
    with pytest.raises(UserError, match=r"versions of the task .*version=1, task.version=2; sep"):
        details(tmp_path)


def test_settings_on_other_files_or_labels_do_not_compete(tmp_path: Path) -> None:
    """Dev would choose the easier data set; a folder that was moved is the same one."""
    read = {"inputs": {"task.data_dir": {"a.csv": {"sha256": "a"}}}}
    for lr, place in ((1e-3, "a.csv"), (1e-2, "there/a.csv")):
        write_run(tmp_path, lr=lr, more={"task": {"name": "t", "data_dir": place}}, meta=read)
    assert "2 settings competed" in details(tmp_path)
    label = {"task": {"name": "t", "data_dir": "a.csv", "label": "y"}}
    other = write_run(tmp_path, lr=1e-2, more=label, meta=read)
    with pytest.raises(UserError, match="different labels"):
        details(tmp_path)
    shutil.rmtree(other)
    write_run(tmp_path, lr=3e-2, more={"task": {"name": "t", "data_dir": "b.csv"}})
    with pytest.raises(UserError, match=r"different data .*=a\.csv, task\.data_dir=b\.csv"):
        details(tmp_path)
    assert "b.csv" in details(tmp_path, columns="task,task.data_dir")


def test_runs_of_one_setting_that_read_other_files_are_no_cell(tmp_path: Path) -> None:
    """The seeds of each content are named; a run of before does not say, and counts."""
    for seed, digest in ((0, "a"), (1, "a"), (2, "b"), (3, None)):
        inputs = {"task.data_dir": {"r.csv": {"sha256": digest}}, "_target_": {"m.py": {}}}
        write_run(tmp_path, seed, meta={"inputs": inputs} if digest else {})
    with pytest.raises(UserError, match="seeds 0, 1 and 2 have read different files of data"):
        details(tmp_path)
