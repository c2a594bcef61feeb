r"""A sheet as a LaTeX table (booktabs) that fits the line.

A cell such as `91.2 +- 1.0 (3) [1]` gets a real `\pm`, as a subscript, and a superscript.
"""

import re

import pandas as pd

from zobench.report.sheet import UNDER, Sheet

COLUMN = 55  # characters of \small that fit the column of a page with two
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


def latex(sheet: Sheet) -> str:
    """A booktabs table with the notes in small print under it.

    What is wider than a line is scaled down to it; a table of more than `COLUMN` characters takes
    the width of the page (`table*`).
    """

    def name(cell: str) -> str:
        # The braces keep a label such as [1, 2] from being read as the argument of a line break.
        text = "{" + escaped(cell) + "}" if cell.startswith("[") else escaped(cell)
        return r"\quad " + text.strip() if cell.startswith(UNDER) else text

    body = [
        [
            _value(cell, sheet.sign(n, place, "textbf", "underline")) if place else name(cell)
            for place, cell in enumerate(line)
        ]
        for n, line in enumerate(sheet.body)
    ]
    frame = pd.DataFrame(body, columns=[name(cell) for cell in sheet.header])
    layout = "l" + "r" * (len(sheet.header) - 1)
    tabular = frame.style.hide(axis="index").to_latex(hrules=True, column_format=layout)
    notes = [*sheet.legend("bold", "underlined"), *sheet.notes]
    warning = escaped(sheet.warning)
    wide = characters(sheet) > COLUMN
    return "\n".join(
        [
            *([f"% {sheet.warning}"] if warning else []),
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table*}" if wide else r"\begin{table}",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escaped(sheet.title)}}}",
            *([rf"{warning} \par\smallskip"] if warning else []),
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"
            + tabular.strip()
            + "}",
            r"\par\smallskip\footnotesize\raggedright",
            *(escaped(note).replace(" +- ", r" $\pm$ ") + r" \par" for note in notes),
            r"\end{table*}" if wide else r"\end{table}",
            "",
        ]
    )


def characters(sheet: Sheet) -> int:
    """The width of a LaTeX table in characters of its font, with the spaces between columns.

    A spread counts half: it is set as a subscript.
    """
    widths = [
        max(len(cell) - len(spread(cell)) // 2 for cell in column)
        for column in zip(sheet.header, *sheet.body, strict=True)
    ]
    return sum(widths) + 2 * (len(widths) - 1)


def spread(cell: str) -> str:
    """The ` +- 1.0` of a cell, or nothing."""
    found = re.search(r" \+- \S+", cell)
    return found[0] if found else ""


def escaped(text: str) -> str:
    """The text for LaTeX, in which two hyphens stay two."""
    return text.translate(LATEX).replace("--", "-{}-")


def _value(cell: str, sign: str) -> str:
    """A number in LaTeX: its mean under the command `sign`, its spread and its mark small."""
    text = escaped(cell)
    text = re.sub(r" \[(\w+)\]$", r"\\textsuperscript{\1}", text)
    text = re.sub(r"^\S+", rf"\\{sign}{{\g<0>}}", text) if sign else text
    return re.sub(r" \+- (\S+?)(?= |\\|$)", r"\\textsubscript{$\\pm$\1}", text)
