"""A table with all that is known of a cell: interval, test, published number, runs and costs.

Of a single column the intervals, tests and published numbers are columns; of several they are
lines under each row. Rows and columns have the names of options, as on the command line.
"""

from collections.abc import Sequence

from zobench.report.cells import costs, costs_header
from zobench.report.footer import footer
from zobench.report.layout import Layout
from zobench.report.numbers import number
from zobench.report.sheet import UNDER, Sheet
from zobench.report.significance import Facet, Place


def detailed(made: Layout) -> Sheet:
    """The sheet of a layout with its facets and costs, and a note on each cell that needs one."""
    cells, metric, target = made.cells, made.view.metric, made.view.target
    heads, shown = made.all_heads, [facet for facet in made.facets if facet.texts]
    noted = [key for key in cells if cells[key].notes]
    marks = {key: f" [{count}]" for count, key in enumerate(noted, start=1)}
    numbers = {key: cell.text(metric, marks.get(key, "")) for key, cell in cells.items()}
    numbers |= {key: number(metric, mean) for key, mean in made.averages.items()}
    single = len(heads) == 1
    until = [f"forwards to {100 * target:g} %"] if target is not None and single else []
    body = []
    for name in made.names:
        mine = made.of_row(name)
        ends = costs(mine)
        if target is not None and single:
            ends.append(mine[0].forwards_to(target))
        here = [(name, head) for head in heads]
        further = [facet.texts.get(here[0], "-") for facet in shown] if single else []
        body.append([name, *[numbers.get(place, "-") for place in here], *further, *ends])
        body += [] if single else _under(shown, here, len(ends))
    listed = [f"{marks[k].strip()} {', '.join(k)}: {n}" for k in noted for n in cells[k].notes]
    facts = footer(made.suite, list(cells.values()), metric, target)
    facts += [note for facet in made.facets for note in facet.notes]
    columns = [*heads, *([facet.title for facet in shown] if single else [])]
    return Sheet(
        title=made.title,
        header=[made.view.rows, *columns, *costs_header(list(cells.values())), *until],
        body=body,
        notes=[*facts, *listed],
        records=made.records(),
        differs=made.differs(),
    )


def _under(facets: Sequence[Facet], places: Sequence[Place], costs: int) -> list[list[str]]:
    """A line per facet that has texts for the row."""
    return [
        [UNDER + facet.title, *[facet.texts.get(place, "-") for place in places], *[""] * costs]
        for facet in facets
        if any(place in facet.texts for place in places)
    ]
