"""Published numbers: the file, the row that stands beside a cell, and how a table shows it."""

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.suites import write_run
from tests.report.test_table import cells, details
from zobench.errors import UserError
from zobench.report.published import FILE, PublishedNumbers, load
from zobench.report.published_columns import MARKS

T1 = {"paper": "mezo", "table": "T1", "setting": "1000-train"}


def mezo(**changes: Any) -> PublishedNumbers:
    """MeZO's numbers on OPT-13B, or what else is wanted."""
    asked: dict[str, Any] = {"model": None, "metric": "accuracy", "names": {}, **T1, **changes}
    return PublishedNumbers(**asked)


def test_the_file_is_sound() -> None:
    """Known levels of evidence, numbers everywhere, no row twice, and a page that explains it."""
    rows = load()
    assert len(rows) > 1090
    assert set(rows["evidence"]) == {"paper", "readme", *MARKS}
    assert rows["value"].notna().all()
    assert not rows.drop(columns=["value", "std", "evidence"]).duplicated().any()
    page = (FILE.parent / "README.md").read_text()
    assert all(f"`{name}`" in page for name in (*rows.columns, *set(rows["evidence"])))


@pytest.mark.parametrize(
    ("changes", "run", "value"),
    [
        ({}, ("mezo", "sst2", "full"), 91.4),
        ({}, ("mezo", "sst2", "lora"), 89.6),
        ({}, ("zero_shot", "sst2", "full"), 58.8),  # not trained: whatever the tuning is
        ({}, ("mezo", "squad", "full"), 84.7),  # F1, as there is no accuracy
        ({"names": {"in_context": "icl"}}, ("in_context", "sst2", "full"), 87.0),
        ({"names": {"linear_probe": "lp"}}, ("linear_probe", "sst2", "head"), 93.4),
        ({"names": {"reviews": "sst2"}}, ("mezo", "reviews", "full"), 91.4),
        ({}, ("mezo", "sst2", "bitfit"), None),
        ({}, ("mezo", "cola", "full"), None),
        (
            {"table": "T20", "names": {"opt_66b": "opt-66b"}},
            ("mezo", "sst2", "full", "opt_66b"),
            91.2,
        ),
        (
            {"paper": "aimzo", "table": "T1/T29", "model": "opt-13b", "setting": None},
            ("aimzo", "sst2", "full"),
            93.78,
        ),
    ],
)
def test_the_row_of_a_run(changes: dict[str, Any], run: Any, value: float | None) -> None:
    """Method, task and tuning find one number, under the paper's names where they are given."""
    row = mezo(**changes).find(*run)
    assert (None if row is None else row["value"]) == value


def test_several_rows_are_not_chosen_from() -> None:
    """Where more than one row fits, the error names the settings that tell them apart."""
    wide = mezo(table="T18", setting=None)
    with pytest.raises(UserError, match=r"2 numbers of mezo on sst2.*setting \(k16, k512"):
        wide.find("mezo", "sst2", "full")
    with pytest.raises(UserError, match=r"published.table=T99: no such row.*T1, T11"):
        mezo(table="T99").find("mezo", "sst2", "full")
    with pytest.raises(UserError, match=r"published.paper=nobody: .*conmezo"):
        mezo(paper="nobody").find("mezo", "sst2", "full")


def test_published_stands_beside_ours(tmp_path: Path) -> None:
    """One column: published, and ours minus it in points; no row is `-`; models are named."""
    for name, value in (("mezo", 0.9), ("ours", 0.5)):
        write_run(
            tmp_path,
            0,
            optimizer=name,
            task="sst2",
            test=value,
            published=T1,
            choices={"tuning": "full"},
        )
    answer = details(tmp_path)
    assert "| published | difference |" in answer
    assert re.search(r"\| mezo +\| +90\.0 \(1\) \| +91\.4 \| +-1\.4 \|", answer)
    assert re.search(r"\| ours +\| +50\.0 \(1\) \| +- \| +- \|", answer)
    assert "published: opt-13b (mezo T1, 1000-train)" in answer
    assert "ours: model tiny, 200 steps; published: opt-13b; the difference is no check" in answer
    mine, other = cells(tmp_path).to_dict("records")
    assert mine["difference"] == pytest.approx(-1.4)
    assert (mine["published"], mine["evidence"]) == (91.4, "paper")
    assert all(value != value for value in (other["published"], other["difference"]))


def test_the_papers_own_model_needs_no_warning(tmp_path: Path) -> None:
    """opt_13b is opt-13b, and so is a path that ends in it."""
    for seed, choices in enumerate(({"model": "opt_13b"}, {"model": "hf"})):
        write_run(
            tmp_path,
            seed,
            task="sst2",
            published=T1,
            choices={"tuning": "full", **choices},
            more={"model": {"path": "facebook/opt-13b"}},
        )
        answer = details(tmp_path, rows="model")
    assert "91.4" in answer and "is no check" not in answer


def test_evidence_is_marked_in_every_format(tmp_path: Path) -> None:
    """Numbers that were not read in their paper carry a sign, and a note says what it means."""
    asked: dict[str, Any] = {"paper": "zobench", "table": "T2", "model": "opt-1.3b"}
    asked |= {"setting": "1000-train", "names": {"mezo": "zo_sgd", "sign": "zo_sgd_sign"}}
    rows = load().query("paper == 'zobench' and model == 'opt-1.3b'")
    rows = rows[rows["tuning"].isin(("full", "prompt"))]
    assert {"secondhand", "recall"} <= set(rows["evidence"])
    for tuning in ("full", "prompt"):
        write_run(
            tmp_path,
            task="sst2",
            published=asked,
            choices={"tuning": tuning},
            more={"tuning": tuning},
        )
    options = {"columns": "tuning"}
    level = rows.query("method == 'zo_sgd'").set_index("tuning")["evidence"]
    for tuning in ("full", "prompt"):
        said = pd.read_csv(io.StringIO(details(tmp_path, format="csv", **options)))
        assert said.set_index("column").loc[tuning, "evidence"] == level[tuning]
        sign, meaning = MARKS[level[tuning]]
        text = details(tmp_path, **options)
        assert re.search(rf"\|   published +\|.* \[{sign}\]", text)
        assert f"[{sign}] {level[tuning]}, {meaning}" in text
        assert rf"\textsuperscript{{{sign}}}" in details(tmp_path, format="latex", **options)
        assert f"<sup>{sign}</sup>" in details(tmp_path, format="html", **options)


def test_the_mean_over_tasks_stands_beside_the_papers(tmp_path: Path) -> None:
    """Where a paper has a mean over its tasks there is a column of ours, if no task is missing."""
    asked = {"paper": "conmezo", "model": "opt-1.3b", "table": "README"}
    for name in ("mezo", "conmezo"):
        for task, value in (("sst2", 0.9), ("rte", 0.5)):
            if (name, task) != ("conmezo", "rte"):
                write_run(
                    tmp_path,
                    optimizer=name,
                    task=task,
                    test=value,
                    published=asked,
                    choices={"tuning": "full"},
                )
    answer = details(tmp_path)
    assert re.search(r"\| optimizer +\| +rte \| +sst2 \| +average \|", answer)
    assert re.search(r"\| mezo +\| +50\.0 \(1\) \| +90\.0 \(1\) \| +70\.0 \|", answer)
    assert re.search(r"\| conmezo +\| +- \| +90\.0 \(1\) \| +- \|", answer)
    line = cells(tmp_path).query("row == 'mezo' and column == 'average'").iloc[0]
    assert line["mean"] == pytest.approx(0.7)
    assert line["difference"] == pytest.approx(70 - line["published"])


def test_without_a_paper_nothing_is_published(tmp_path: Path) -> None:
    """No column without `published.paper`, and none for a metric that the paper's is not."""
    write_run(tmp_path, task="sst2", choices={"tuning": "full"}, published={"metric": "accuracy"})
    assert "published" not in details(tmp_path)
    write_run(tmp_path, 1, task="sst2", choices={"tuning": "full"}, published=T1)
    assert "| published |" in details(tmp_path)
    answer = details(tmp_path, metric="dev/loss")
    assert "| published |" not in answer and "no published numbers: those of mezo" in answer


def test_runs_must_agree_on_what_is_published(tmp_path: Path) -> None:
    """Two papers in one suite are an error that names both."""
    write_run(tmp_path, 0, published=T1)
    write_run(tmp_path, 1, published=T1 | {"table": "T20"})
    with pytest.raises(UserError, match=r"disagree about published.table: T1, T20|T20, T1"):
        details(tmp_path)
