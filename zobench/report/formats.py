r"""Write a sheet of strings as plain text, Markdown, LaTeX or HTML, or its numbers as CSV.

Cells are written in ASCII, `91.2 +- 1.0 (3) [1]`; LaTeX gets a real `\pm` and a superscript.
"""

import io
import re
from collections.abc import Callable

import pandas as pd

from zobench.report.html import html
from zobench.report.sheet import UNDER, Sheet

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


def text(sheet: Sheet) -> str:
    """A table for the terminal, without colours and never cut to a width."""
    from rich.box import ASCII2
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=ASCII2)
    for place, name in enumerate(sheet.header):
        grid.add_column(Text(name), justify="right" if place else "left", no_wrap=True)
    for line in sheet.body:
        grid.add_row(*map(Text, line))
    out = io.StringIO()
    Console(file=out, width=10_000, color_system=None, force_terminal=False).print(grid)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    warning = [sheet.warning] if sheet.warning else []
    return "\n".join([*warning, sheet.title, *lines, *sheet.notes]) + "\n"


def markdown(sheet: Sheet) -> str:
    """A GitHub table with the notes as a list under it."""

    def row(cells: list[str]) -> str:
        label = cells[0]
        if label.startswith(UNDER):  # spaces in front would be dropped
            label = "&nbsp;&nbsp;" + label.strip()
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in [label, *cells[1:]]) + " |"

    rule = ["---", *["---:"] * (len(sheet.header) - 1)]
    table = [row(sheet.header), row(rule), *map(row, sheet.body)]
    notes = [f"- {note}" for note in sheet.notes]
    warning = [sheet.warning, ""] if sheet.warning else []
    return "\n".join([*warning, f"**{sheet.title}**", "", *table, "", *notes]) + "\n"


def latex(sheet: Sheet) -> str:
    """A booktabs table with the notes in small print under it."""

    def escape(cell: str) -> str:
        return cell.translate(LATEX)

    def name(cell: str) -> str:
        # The braces keep a label such as [1, 2] from being read as the argument of a line break.
        text = "{" + escape(cell) + "}" if cell.startswith("[") else escape(cell)
        return r"\quad " + text.strip() if cell.startswith(UNDER) else text

    def value(cell: str) -> str:
        marked = re.sub(r" \[(\w+)\]$", r"\\textsuperscript{\1}", escape(cell))
        return marked.replace(" +- ", r" $\pm$ ")

    body = [[name(line[0]), *map(value, line[1:])] for line in sheet.body]
    frame = pd.DataFrame(body, columns=[name(cell) for cell in sheet.header])
    layout = "l" + "r" * (len(sheet.header) - 1)
    tabular = frame.style.hide(axis="index").to_latex(hrules=True, column_format=layout)
    notes = [escape(note).replace(" +- ", r" $\pm$ ") + r" \par" for note in sheet.notes]
    warning = escape(sheet.warning)
    return "\n".join(
        [
            *([f"% {sheet.warning}"] if warning else []),
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(sheet.title)}}}",
            *([rf"{warning} \par\smallskip"] if warning else []),
            tabular.rstrip(),
            r"\par\smallskip\footnotesize\raggedright",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def csv(sheet: Sheet) -> str:
    """One line per cell, with full-precision numbers (an accuracy stays a fraction).

    The differences of the runs are a column, so that programs can read the file.
    """
    return pd.DataFrame(sheet.records).to_csv(index=False)


FORMATS: dict[str, Callable[[Sheet], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": csv,
    "latex": latex,
    "html": html,
}
