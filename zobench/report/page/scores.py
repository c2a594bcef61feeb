"""The scores of a suite for the report page: a table and the performance profiles."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from zobench.errors import UserError
from zobench.report.html import address
from zobench.report.page.grid import PageTable, taken_apart
from zobench.report.plots.profile import draw_profiles
from zobench.report.runs import Suite
from zobench.report.score import score_sheet
from zobench.report.scoring import rules_of, scored


@dataclass(frozen=True)
class PageScores:
    """The table of scores, and an address that holds the figure, with its text."""

    table: PageTable
    source: str
    text: str


def scores_of(suite: Suite) -> PageScores | None:
    """The scores under the suite's own settings; None below two rows, or without targets."""
    try:
        scores = scored(suite, rules_of(suite))
    except UserError:  # no baseline, no dev metric, or nothing finished: the table says so
        return None
    if len(scores.profiles) < 2:
        return None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "profiles.svg"
        draw_profiles(scores, out)
        source = address(out)
    areas = ", ".join(f"{profile.row} {profile.score:.3f}" for profile in scores.profiles)
    return PageScores(taken_apart(score_sheet(scores)), source, f"performance profiles: {areas}")
