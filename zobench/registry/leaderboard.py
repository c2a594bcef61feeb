"""Makes docs/results/leaderboard.md from the entries of results/: `make leaderboard`.

Entries are run folders, so that `zobench table SUITE --runs results` and the other commands on
suites read them, too.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from zobench.errors import UserError
from zobench.names import lower_is_better
from zobench.registry.entry import Entry, Tuning
from zobench.report.cells import Cell, fill
from zobench.report.numbers import is_share, number
from zobench.report.runs import Suite, read_suite, suites
from zobench.report.score_notes import target
from zobench.report.scoring import Scores, rules_of, scored
from zobench.report.table import DEFAULTS
from zobench.report.workloads import Workload
from zobench.run.folder import read_json

WORKLOAD = ("task", "model", "tuning")
_HEAD = """\
# Leaderboard

The entries of `results/`: scored runs with the files that show how they came about, which
`zobench verify results` checks and replays. Dev selects among the settings of a row, test ranks the
rows. "To target" is the forwards until dev was as good as the target under the table, with the
number of seeds that got there; "score" is the area under the performance profile over all
workloads of the suite, without tuning ([Score optimizers](../score.md)). A forward with
back-propagation counts as one, so that other rows often score 0 where AdamW is listed. "Tuning" is
what choosing a row's settings cost, over all candidates: compare rows at equal tuning. How to add
an entry is in CONTRIBUTING.md, "Contribute a result".
"""
_COLUMNS = (
    *("dev/loss", "forwards", "to target", "score"),
    *("tuning", "who", "date", "commit", "verified"),
)


def page(results: Path) -> str:
    """The page, as markdown: a section for each suite, a table for each of its workloads.

    Args:
        results: the folder of all entries.
    """
    lines = [_HEAD]
    for name in suites(results):
        suite = read_suite(results, name)
        metric = suite.preset("table", "metric") or DEFAULTS["metric"]
        suite.check_metric(metric)
        lines += [f"## {name}", "", _about(suite), ""]
        scores = _scores(suite)
        for workload, runs in suite.frame.groupby([suite.labels(key) for key in WORKLOAD]):
            lines += _table(suite, ", ".join(map(str, workload)), runs, metric, scores)
    return "\n".join(lines)


def _scores(suite: Suite) -> Scores | None:
    """The scores of a suite; None where there are none, as without a row that sets the targets."""
    try:
        return scored(suite, rules_of(suite))
    except UserError:
        return None


def _table(
    suite: Suite, workload: str, runs: pd.DataFrame, metric: str, scores: Scores | None
) -> Iterator[str]:
    """The rows of a workload by their mean on test, the best first, and the target below."""
    select = suite.preset("table", "select") or DEFAULTS["select"]
    percent = ", %" if is_share(metric) else ""
    yield f"**{workload}**"
    yield ""
    heads = ["rank", "optimizer", f"{metric}{percent} (seeds)", *_COLUMNS]
    yield "| " + " | ".join(heads) + " |"
    numbers = ["---:"] * 6  # test, dev, forwards, to target, score, tuning
    yield "| " + " | ".join(["---:", "---", *numbers, "---", "---", "---", "---"]) + " |"
    cells = [
        fill(suite, str(row), workload, mine, metric, select)
        for row, mine in runs.groupby("optimizer")
    ]
    mine = set(runs["folder"])
    here = None if scores is None else next(w for w in scores.workloads if mine & w.folders)
    sign = 1.0 if lower_is_better(metric) else -1.0
    cells.sort(key=lambda cell: (cell.values.empty, sign * cell.values.mean(), cell.row))
    means = [sign * cell.values.mean() for cell in cells]
    for cell, mean in zip(cells, means, strict=True):
        rank = "-" if cell.values.empty else str(1 + sum(other < mean for other in means))
        entries = [Entry.read(suite.path / folder) for folder in cell.runs["folder"]]
        texts = [rank, *_facts(cell, metric), *_profile(cell.row, here, scores), *_origin(entries)]
        yield "| " + " | ".join(texts) + " |"
    yield ""
    if scores is not None and here is not None:
        yield from (_told([target(scores, here)]), "")


def _profile(row: str, workload: Workload | None, scores: Scores | None) -> list[str]:
    """Forwards to the target in a workload, and the score; `-` for a row that takes no step."""
    areas = {} if scores is None else {one.row: one.score for one in scores.profiles}
    if workload is None or row not in areas:
        return ["-", "-"]
    return [workload.entries[row].text("cost/forwards"), f"{areas[row]:.3f}"]


def _about(suite: Suite) -> str:
    """The machines and versions of a suite's entries, and the command for its profile score."""
    metas = [read_json(suite.path / folder / "meta.json") for folder in suite.frame["folder"]]
    devices = _told([meta["device"] for meta in metas])
    versions = _told([f"torch {meta['versions']['torch']}" for meta in metas])
    return (
        f"Run on {devices} with {versions}. Scores by seconds, or to other targets:"
        f" `zobench score {suite.name} --runs results`."
    )


def _facts(cell: Cell, metric: str) -> list[str]:
    """Row, score on test, and the means of dev loss and forwards."""
    done = cell.done
    return [
        cell.row,
        cell.text(metric, ""),
        number("dev/loss", done["dev/loss"].mean()),
        f"{done['cost/forwards'].mean():,.0f}" if len(done) else "-",
    ]


def _origin(entries: Sequence[Entry]) -> list[str]:
    """What the entries of a row say: tuning, who, date, commit, how they were verified."""
    return [
        _told([_spent(entry.tuning) for entry in entries]),
        _told([entry.who for entry in entries]),
        _told([entry.date for entry in entries]),
        _told([entry.commit or "-" for entry in entries]),
        _told([entry.verified for entry in entries]),
    ]


def _spent(tuning: Tuning) -> str:
    if not tuning.trials:
        return "none"
    trials = "1 trial" if tuning.trials == 1 else f"{tuning.trials} trials"
    return f"{tuning.forwards:,} forwards, {trials}"


def _told(texts: Sequence[str]) -> str:
    """Different texts once each, safe in a cell of a table."""
    told = "; ".join(dict.fromkeys(texts))
    return told.replace("|", "\\|").replace("<", "&lt;")


def main(argv: list[str] | None = None) -> None:
    """Command line of `make leaderboard`."""
    parser = argparse.ArgumentParser(description="Write the page of all entries.")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/leaderboard.md"))
    args = parser.parse_args(argv)
    args.out.write_text(page(args.results))
    print(f"{args.out}: from {args.results}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
