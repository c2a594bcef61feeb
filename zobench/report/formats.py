r"""Write a sheet of strings as plain text, Markdown or LaTeX, or its numbers as CSV.

Cells are written in ASCII, `91.2 +- 1.0 (3) [1]`; LaTeX gets a real `\pm` and a superscript.
"""

import io
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from zobench.report.runs import STATUSES

EXTRAS = {"forwards": "cost/forwards", "peak GiB": "memory/peak_gib", "s/step": "time/step_s"}
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{character: "\\" + character for character in "&%$#_{}"},
    }
)


@dataclass(frozen=True)
class Cell:
    """One cell: the runs of the setting it shows (of all, if none could be chosen), and notes."""

    row: str
    column: str
    setting: str
    rivals: int
    runs: pd.DataFrame
    values: pd.Series
    notes: list[str]

    @property
    def done(self) -> pd.DataFrame:
        """The finished runs, whose numbers count."""
        return self.runs[self.runs["status"] == "done"] if self.setting else self.runs[:0]

    @property
    def lost(self) -> dict[str, int]:
        """How many of the runs have no number to show, by what became of them."""
        counts = Counter(self.runs["status"])
        counts["without a number"] = len(self.done) - len(self.values)
        return {what: counts[what] for what in (*STATUSES[1:], "without a number") if counts[what]}

    def text(self, metric: str, mark: str) -> str:
        """For example `91.2 +- 1.0 (2; 1 diverged) [1]`: mean, std, runs, what is missing, note."""
        lost = [f"{count} {what}" for what, count in self.lost.items()]
        if self.rivals > 1 and not self.setting:
            lost.append(f"{self.rivals} settings")
        missing = f"; {', '.join(lost)}" if lost else ""
        return f"{spread(metric, self.values)} ({len(self.values)}{missing}){mark}"

    def forwards_to(self, target: float) -> str:
        """For example `1200 +- 100 (2 of 3)`: the runs that reached the target, if not all did."""
        reached = self.done[forwards_key(target)].dropna()
        some = f" ({len(reached)} of {len(self.done)})" if 0 < len(reached) < len(self.done) else ""
        return spread("cost/forwards", reached) + some

    def record(self, metric: str, target: float | None = None) -> dict[str, Any]:
        """The numbers behind the cell; with a target also the forwards until it was reached."""
        counts = Counter(self.runs["status"])
        until: dict[str, Any] = {}
        if target is not None:
            key, reached = forwards_key(target), self.done[forwards_key(target)].dropna()
            until = {key: reached.mean(), f"{key}_std": reached.std(), f"{key}_n": len(reached)}
        return {
            "row": self.row,
            "column": self.column,
            "metric": metric,
            "mean": self.values.mean(),
            "std": self.values.std(),
            "n": len(self.values),
            **{status: counts[status] for status in STATUSES},
            "setting": self.setting,
            "settings": self.rivals,
            "seeds": " ".join(map(str, self.done["seed"])),
            **{name.split("/")[1]: self.done[name].mean() for name in EXTRAS.values()},
            **until,
            "note": " | ".join(self.notes),
        }


@dataclass(frozen=True)
class Sheet:
    """A table ready to be written; `cells` of the header are its columns, `records` the numbers."""

    title: str
    header: list[str]
    body: list[list[str]]
    notes: list[str]
    records: list[dict[str, Any]]


def text(sheet: Sheet) -> str:
    """A table for the terminal, without colours and never cut to a width."""
    from rich.box import ASCII2
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=ASCII2)
    for number, name in enumerate(sheet.header):
        grid.add_column(Text(name), justify="right" if number else "left", no_wrap=True)
    for line in sheet.body:
        grid.add_row(*map(Text, line))
    out = io.StringIO()
    Console(file=out, width=10_000, color_system=None, force_terminal=False).print(grid)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join([sheet.title, *lines, *sheet.notes]) + "\n"


def markdown(sheet: Sheet) -> str:
    """A GitHub table with the notes as a list under it."""

    def row(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    rule = ["---", *["---:"] * (len(sheet.header) - 1)]
    table = [row(sheet.header), row(rule), *map(row, sheet.body)]
    notes = [f"- {note}" for note in sheet.notes]
    return "\n".join([f"**{sheet.title}**", "", *table, "", *notes]) + "\n"


def latex(sheet: Sheet) -> str:
    """A booktabs table with the notes in small print under it."""

    def escape(cell: str) -> str:
        return cell.translate(LATEX)

    def name(cell: str) -> str:
        # The braces keep a label such as [1, 2] from being read as the argument of a line break.
        return "{" + escape(cell) + "}" if cell.startswith("[") else escape(cell)

    def value(cell: str) -> str:
        marked = re.sub(r" \[(\d+)\]$", r"\\textsuperscript{\1}", escape(cell))
        return marked.replace(" +- ", r" $\pm$ ")

    body = [[name(line[0]), *map(value, line[1:])] for line in sheet.body]
    frame = pd.DataFrame(body, columns=[name(cell) for cell in sheet.header])
    layout = "l" + "r" * (len(sheet.header) - 1)
    tabular = frame.style.hide(axis="index").to_latex(hrules=True, column_format=layout)
    notes = [escape(note).replace(" +- ", r" $\pm$ ") + r" \par" for note in sheet.notes]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(sheet.title)}}}",
            tabular.rstrip(),
            r"\par\smallskip\footnotesize\raggedright",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def csv(sheet: Sheet) -> str:
    """One line per cell, with full-precision numbers (an accuracy stays a fraction)."""
    return pd.DataFrame(sheet.records).to_csv(index=False)


FORMATS: dict[str, Callable[[Sheet], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": csv,
    "latex": latex,
}


def is_share(metric: str) -> bool:
    """Whether a metric is a fraction that people read in percent."""
    return metric.rsplit("/", 1)[-1] == "accuracy"


def number(metric: str, value: float) -> str:
    """A number for people: percent with one decimal for an accuracy, else four digits."""
    if value != value:
        return "-"
    if is_share(metric):
        return f"{100 * value:.1f}"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"


def spread(metric: str, values: pd.Series) -> str:
    """`mean +- std` for people: the sample standard deviation of more than one number."""
    shown = number(metric, values.mean())
    return f"{shown} +- {number(metric, values.std())}" if len(values) > 1 else shown


def forwards_key(target: float) -> str:
    """Column of the forwards that a run spent until it reached `target`, NaN if it never did."""
    return f"forwards_to_{target:g}"


def counts(values: pd.Series) -> str:
    """One whole number, or the smallest and the largest of several."""
    low, high = (number("", value) for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
