"""Differences that make numbers of a table incomparable: budgets, dtypes, seeds, versions, sizes.

Within a cell they are an error; between cells the table's first line names them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from zobench.errors import UserError
from zobench.report.cells import Cell
from zobench.report.numbers import counts, order
from zobench.report.runs import Suite
from zobench.report.significance import listed

# what no search varies: dev is then another one for each setting
_DATA = {"task.data_seed": "data seeds", "task.data_dir": "data", "task.label": "labels"}


def refuse_unequal(suite: Suite, runs: pd.DataFrame, place: tuple[str, str]) -> None:
    """Raise UserError when settings that compete for a cell had other budgets, data or versions.

    The versions are those of the task. Also when runs of one setting have read files of other
    content.
    """
    done = runs[runs["status"] == "done"]
    _refuse_other_files(done, place)
    if done["setting"].nunique() < 2:
        return
    groups = {str(setting): group for setting, group in done.groupby("setting")}
    declared = {setting: _declared(suite, group) for setting, group in groups.items()}
    forwards = {counts(group["cost/forwards"]) for group in groups.values()}
    if len(set(declared.values())) > 1 and (len(forwards) > 1 or "-" in forwards):
        _refuse(place, "budgets", sorted(set(declared.values()), key=order))
    for _, same in done.groupby("seed"):
        for key, what in _DATA.items():
            moved = key == "task.data_dir" and same["read"].nunique() == 1  # files of one content
            if not moved:
                _refuse_several(suite, same, key, what, place)
    for _, same in done.groupby("task") if "task" in done else ():
        _refuse_several(suite, same, "task.version", "versions of the task", place)


def _refuse_several(
    suite: Suite, runs: pd.DataFrame, key: str, what: str, place: tuple[str, str]
) -> None:
    """Raise UserError when the runs have several values of a setting."""
    found = {str(suite.flat[run].get(key)) for run in runs["id"]}
    if len(found) > 1:
        _refuse(place, what, [f"{key}={value}" for value in sorted(found, key=order)])


def _refuse_other_files(done: pd.DataFrame, place: tuple[str, str]) -> None:
    """Raise UserError when runs of one setting have read files of different content."""
    for _, same in done[done["read"] != ""].groupby("setting"):
        if same["read"].nunique() > 1:
            apart = sorted(sorted(set(some["seed"])) for _, some in same.groupby("read"))
            seeds = " and ".join(", ".join(map(str, some)) for some in apart)
            raise UserError(
                f"{', '.join(place)}: seeds {seeds} have read different files of data or model"
                " under the same settings; remove the folders of the outdated ones"
            )


def _refuse(place: tuple[str, str], what: str, found: list[str]) -> None:
    key = found[0].partition("=")[0]
    raise UserError(
        f"{', '.join(place)}: settings with different {what} compete for one cell: "
        f"{', '.join(found)}; separate them, as in --rows optimizer,{key}, or remove runs"
    )


def _declared(suite: Suite, runs: pd.DataFrame) -> str:
    """The budget as it was given, for example `budget.forwards=600`."""
    flat = suite.flat[runs["id"].iloc[0]]
    given = [f"budget.{key}" for key in ("seconds", "forwards", "steps") if f"budget.{key}" in flat]
    return f"{given[0]}={flat[given[0]]}" if given else "budget.steps=unknown"


def what_differs(
    suite: Suite, cells: Sequence[Cell], axes: str, names: Mapping[str, str] | None = None
) -> str:
    """The differences of the shown runs, for example `model.dtype: a (row), b (row column)`.

    Args:
        suite: read for settings.
        cells: those of the table.
        axes: the keys of rows and columns, which are meant to differ.
        names: printed names of rows, where they are not the labels.

    Returns:
        The differences; empty when there are none.
    """
    cells = [
        replace(cell, row=(names or {}).get(cell.row, cell.row)) for cell in cells if len(cell.done)
    ]
    facts = []
    for key in ("model.dtype", "train.precision", "task.data_seed", "task.chat"):
        if key not in axes:
            facts += _apart(cells, key, partial(_values, suite, key))
    for _, same in _by(cells, lambda cell: cell.done.get("task", pd.Series("-")).iloc[0]):
        if "task.version" not in axes:
            facts += _apart(same, "task.version", partial(_values, suite, "task.version"))
        if "task.sizes" not in axes:
            facts += _apart(same, "test examples", _sizes)
    if "budget." not in axes:
        for _, same in _by(cells, lambda cell: (cell.row, _optimizer(cell))):
            facts += _apart(same, "steps", partial(_steps, suite))
        for _, same in _by(cells, lambda cell: cell.column):
            means = {round(cell.done["cost/forwards"].mean(), 6) for cell in same}
            if len({mean for mean in means if mean > 0}) > 1:
                facts.append("forwards (named by row below)")
                break
    return "; ".join(dict.fromkeys(facts))


def _by(cells: Sequence[Cell], key: Callable[[Cell], Any]) -> list[tuple[Any, list[Cell]]]:
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.items())


def _apart(cells: Sequence[Cell], name: str, value: Callable[[Cell], str]) -> list[str]:
    """`name: value (where), other (where)` unless all cells that have a value have the same.

    Of several columns, rows that have one value each are named without columns, and the value of
    most rows is that of `all others` if they are more than three.
    """
    places: dict[str, list[tuple[str, str]]] = {}
    for cell in cells:
        if shown := value(cell):
            places.setdefault(shown, []).append((cell.row, cell.column))
    if len(places) < 2:
        return []
    rows = {shown: list(dict.fromkeys(row for row, _ in where)) for shown, where in places.items()}
    mixed = len(set().union(*rows.values())) < sum(map(len, rows.values()))
    if mixed or len({cell.column for cell in cells}) == 1:
        parts = [f"{shown} ({listed(where)})" for shown, where in places.items()]
    else:
        most = max(rows, key=lambda shown: len(rows[shown]))
        last = {most: "all others"} if len(rows[most]) > 3 else {}
        order_of = sorted(rows, key=lambda shown: shown in last)
        parts = [
            f"{one} ({last.get(one) or listed([(r,) for r in rows[one]])})" for one in order_of
        ]
    return [f"{name}: {', '.join(parts)}"]


def _values(suite: Suite, key: str, cell: Cell) -> str:
    """What the cell's runs have for a key; a precision that is not set is that of the weights."""
    unset = {"train.precision": "that of the weights", "task.chat": False}.get(key)
    found = {suite.flat[run].get(key, unset) for run in cell.done["id"]}
    return " ".join(sorted({_text(value) for value in found if value is not None}, key=order))


def chat_stated(suite: Suite, cells: Sequence[Cell]) -> str:
    """`, task.chat=true` where prompts of shown runs are turns of a chat; else nothing."""
    found = {suite.flat[run].get("task.chat") for cell in cells for run in cell.done["id"]}
    values = sorted(_text(value) for value in found if value)
    return f", task.chat={' and '.join(values)}" if values else ""


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sizes(cell: Cell) -> str:
    return " ".join(str(size) for size in sorted(set(cell.done["test_size"].dropna().astype(int))))


def _steps(suite: Suite, cell: Cell) -> str:
    """Steps of the cell's runs, or nothing where forwards or seconds were the budget."""
    flat = [suite.flat[run] for run in cell.done["id"]]
    if any("budget.forwards" in one or "budget.seconds" in one for one in flat):
        return ""
    return " ".join(sorted({str(one.get("budget.steps", "")) for one in flat}, key=order))


def _optimizer(cell: Cell) -> str:
    return " ".join(sorted(set(cell.done["optimizer"]))) if "optimizer" in cell.done else ""
