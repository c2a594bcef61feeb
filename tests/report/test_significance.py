"""Intervals and paired tests from the answers to the test examples, and the page they stand on."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.report.suites import write_run
from tests.report.test_table import cells, details
from zobench.errors import UserError
from zobench.report.statistics import interval, sign_flip

EXAMPLES = 60


def scores(seed: int, share: float) -> list[float]:
    """Right or wrong, of so many examples."""
    return (np.random.default_rng(seed).random(EXAMPLES) < share).astype(float).tolist()


def test_the_interval_is_over_seeds_and_examples(tmp_path: Path) -> None:
    """A cell's interval is that of its predictions, and a note says over what."""
    runs = [scores(seed, 0.8) for seed in (0, 1)]
    for seed, mine in enumerate(runs):
        write_run(tmp_path, seed, scores=mine)
    low, high = interval([np.array(mine) for mine in runs], shared=True)
    answer = details(tmp_path)
    assert f" {100 * low:.1f} to {100 * high:.1f} |" in answer
    assert "95 % interval: bootstrap over seeds and test examples (2000 resamples)" in answer
    assert details(tmp_path) == answer
    cell = cells(tmp_path).iloc[0]
    assert cell[["interval_low", "interval_high"]].tolist() == pytest.approx([low, high])


def test_without_predictions_the_interval_is_over_seeds(tmp_path: Path) -> None:
    """So it is where they are missing or do not have the metric for a mean; a note says it."""
    for seed in (0, 1):
        write_run(tmp_path, seed, scores=scores(seed, 0.8))
        write_run(tmp_path, seed, optimizer="old", test=0.7 + 0.1 * seed)
    answer = details(tmp_path)
    assert "95 % interval over seeds only, without predictions: old synthetic_reviews" in answer
    assert "over seeds only where examples have no scores" in answer
    assert "bootstrap over seeds (2000" in details(tmp_path, metric="cost/forwards")


def test_p_is_of_the_scores_averaged_over_common_seeds(tmp_path: Path) -> None:
    """Each row against the baseline, of the seeds that both have; the baseline has none."""
    mine = [scores(seed, 0.9) for seed in (0, 1)]
    other = [scores(seed + 10, 0.6) for seed in (0, 1, 2)]
    for seed, run in enumerate(mine):
        write_run(tmp_path, seed, optimizer="conmezo", scores=run)
    for seed, run in enumerate(other):
        write_run(tmp_path, seed, preset={"baseline": "mezo"}, scores=run)
    p = sign_flip(np.mean(mine, axis=0) - np.mean(other[:2], axis=0))
    assert 0 < p < 0.2
    numbers = cells(tmp_path).set_index("row")
    assert numbers.loc["conmezo", "p"] == pytest.approx(p)
    assert numbers["p"].isna().tolist() == [False, True]
    assert f" {p:.4f} |" in details(tmp_path, baseline="mezo")
    assert "p vs" not in details(tmp_path, rows="model")


@pytest.mark.parametrize(
    ("seed", "gold", "tested", "why"),
    [
        (0, ["1"] * EXAMPLES, True, "as the test rows are not the same"),
        (1, None, True, "as there is no common finished seed"),
        (0, None, False, "as runs have no predictions whose mean is test/accuracy"),
    ],
)
def test_a_note_says_why_there_is_no_p(
    tmp_path: Path, seed: int, gold: list[str] | None, tested: bool, why: str
) -> None:
    """Other test rows, other seeds or no predictions: `-`, and a reason."""
    write_run(tmp_path, scores=scores(0, 0.5))
    mine = scores(1, 0.5) if tested else None
    write_run(tmp_path, seed, optimizer="conmezo", scores=mine, gold=gold)
    answer = details(tmp_path, baseline="mezo")
    assert f"no p vs mezo, {why}: conmezo synthetic_reviews" in answer
    assert "| p vs mezo |" not in answer


def test_seeds_with_test_rows_of_their_own_are_paired_too(tmp_path: Path) -> None:
    """Splits that follow the seed are the same for both rows: the examples stand side by side."""
    for seed in (0, 1):
        gold = [str(seed)] * EXAMPLES
        write_run(tmp_path, seed, scores=scores(seed, 0.5), gold=gold)
        write_run(tmp_path, seed, optimizer="x", scores=scores(seed + 5, 0.6), gold=gold)
    differences = [np.subtract(scores(s + 5, 0.6), scores(s, 0.5)) for s in (0, 1)]
    p = cells(tmp_path, baseline="mezo").set_index("row").loc["x", "p"]
    assert p == pytest.approx(sign_flip(np.concatenate(differences)))


def test_a_baseline_that_has_not_begun_is_no_error(tmp_path: Path) -> None:
    """The suite names its baseline; of a sweep that has not come to it the table is shown."""
    write_run(tmp_path, optimizer="conmezo", scores=scores(0, 0.5), preset={"baseline": "mezo"})
    assert "no p vs mezo, as it has no number there" in details(tmp_path)


def test_damaged_predictions_are_named(tmp_path: Path) -> None:
    """A file that is no gzip is an error with its path."""
    folder = write_run(tmp_path, scores=scores(0, 0.5))
    (folder / "predictions.csv.gz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cannot read .*predictions\.csv\.gz.*repair or remove"):
        details(tmp_path)


def test_of_several_columns_they_are_lines_under_the_row(tmp_path: Path) -> None:
    """Interval and p of each task stand under the row's numbers, costs beside the row."""
    for task in ("a", "b"):
        write_run(tmp_path, task=task, scores=scores(0, 0.5))
        write_run(tmp_path, task=task, optimizer="x", scores=scores(1, 0.5))
    rows = [line for line in details(tmp_path).splitlines() if line[0] == "|"]
    lines = [line.split("|")[1].rstrip() for line in rows]
    assert lines == [" optimizer", " mezo", "   95 % interval", " x", "   95 % interval"]
    answer = details(tmp_path, baseline="mezo")
    assert len(re.findall(r"\|   p vs mezo +\| +[01]\.\d{4} \| +[01]\.\d{4} \|", answer)) == 1
    assert re.search(r"\| mezo .*\| +400 \| +0\.002222 \| +0\.5 \| 0\.0125 \|", answer)


@pytest.mark.parametrize(
    ("devices", "kind"),
    [(("cpu", "cpu"), "CPU-hours"), (("NVIDIA A", "NVIDIA B"), "GPU-hours"),
     (("cpu", "NVIDIA A"), "device hours")],
)  # fmt: skip
def test_hours_are_of_the_device_and_of_all_seeds(
    tmp_path: Path, devices: tuple[str, str], kind: str
) -> None:
    """Summed over seeds, and named by what they ran on."""
    for seed, device in enumerate(devices):
        write_run(tmp_path, seed, meta={"device": device})
    assert f"| {kind} |" in details(tmp_path)
    assert cells(tmp_path).iloc[0]["hours"] == pytest.approx(2 * 4 / 3600)


class Tree(HTMLParser):
    """What a page holds: its tags, its rows, and attributes that load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[int] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append(0)
        elif tag in ("td", "th"):
            self.rows[-1] += 1


def test_html_is_one_escaped_page(tmp_path: Path) -> None:
    """Rows of equal length with scopes and a caption, nothing to load, names never markup."""
    write_run(tmp_path, task="a", optimizer="<script>x", scores=scores(0, 0.5))
    write_run(tmp_path, task="b", optimizer="mezo", status="failed", reason="<b>&")
    page = details(tmp_path, format="html")
    tree = Tree()
    tree.feed(page)
    assert page.startswith('<!doctype html>\n<html lang="en">')
    assert "script" not in tree.tags and "b" not in tree.tags and not tree.loads
    assert "&lt;script&gt;x" in page and "&lt;b&gt;&amp;" in page
    assert {"caption", "thead", "tbody", "style", "title"} <= set(tree.tags)
    assert set(tree.rows) == {7}
    assert page.count('scope="row"') == 3 and page.count('scope="col"') == 7
    assert "<td>- (0; 1 failed)<sup>1</sup></td>" in page
