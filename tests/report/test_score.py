"""`zobench score`: planted runs get the ranks, costs and targets that they were planted with."""

import io
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.scored_runs import TASKS, costs_of, reaches, scores_of, write_run
from zobench.cli import run_command
from zobench.errors import UserError
from zobench.report.page import build
from zobench.report.page.build import page
from zobench.report.plot import plot
from zobench.report.score import score


def planted(root: Path) -> None:
    """MeZO, its twin, a row twice or four times as fast, and one that diverges; three seeds."""
    for task in TASKS:
        for seed in range(3):
            for row in ("mezo", "twin"):
                write_run(root, row, reaches(0.3, at=400), task=task, seed=seed, test=0.80)
            fast = reaches(0.3, at=200 if task == "sst2" else 100)
            write_run(root, "fast", fast, task=task, seed=seed, test=0.85)
            write_run(
                root, "broken", reaches(0.1, at=100), task=task, seed=seed, status="diverged",
                test=None,
            )  # fmt: skip


def test_planted_rows_get_their_ranks(tmp_path: Path) -> None:
    """The fast row is first, the twin ties to the last bit, the diverging one is last with 0."""
    planted(tmp_path)
    scores = scores_of(tmp_path)
    assert [workload.name for workload in scores.workloads] == ["rte", "sst2"]
    found = [(profile.row, profile.score) for profile in scores.profiles]
    assert found == [("fast", 1.0), ("mezo", 1 / 3), ("twin", 1 / 3), ("broken", 0.0)]
    mezo, twin = (scores.aggregates[row] for row in ("mezo", "twin"))
    assert {name: mezo[name] for name in ("mean", "median", "IQM")} == {
        name: twin[name] for name in ("mean", "median", "IQM")
    }
    assert twin["P(better)"].value == 0.5 and scores.aggregates["fast"]["P(better)"] == (1, 1, 1)
    assert "broken" not in scores.aggregates


def test_seeds_that_never_get_there_count(tmp_path: Path) -> None:
    """One of three leaves the median later; two of four leave none."""
    ends = {"one": (100, 900, 300), "two": (100, 100, 900, 900), "mezo": (100, 100, 100)}
    for row, places in ends.items():
        for seed, at in enumerate(places):
            write_run(tmp_path, row, reaches(0.3, at=at), seed=seed)
    [workload] = scores_of(tmp_path, target="0.3").workloads
    assert {row: workload.cost(row) for row in ends} == {"one": 300, "two": math.inf, "mezo": 100}
    texts = {row: workload.entries[row].text("cost/forwards") for row in ends}
    assert texts == {"one": "300 (2 of 3)", "two": "inf (2 of 4)", "mezo": "100 (3)"}


@pytest.mark.parametrize("status", ["diverged", "failed", "unfinished"])
def test_a_run_without_an_end_counts_as_infinite(tmp_path: Path, status: str) -> None:
    """It reached the target and then had no end: nothing is gained by that."""
    write_run(tmp_path, "mezo", reaches(0.3, at=100))
    folder = write_run(tmp_path, "x", reaches(0.3, at=100), status=status)
    if status == "failed":
        (folder / "failure.json").write_text('{"kind": "oom", "reason": "x"}')
    scores = scores_of(tmp_path)
    assert [(p.row, p.score) for p in scores.profiles] == [("mezo", 1.0), ("x", 0.0)]


def curves(root: Path) -> None:
    """Losses of three seeds of two rows: mezo's best are 0.4, 0.3, 0.5, adamw's 0.2, 0.1, 0.3."""
    for row, shift in (("mezo", 0.0), ("adamw", 0.2)):
        for seed, best in enumerate((0.4, 0.3, 0.5)):
            low = best - shift
            write_run(
                root, row, [(0, 1.0), (100, low + 0.2), (200, low), (400, low + 0.1)], seed=seed
            )


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({}, 0.4),
        ({"baseline": "adamw"}, 0.2),
        ({"target_of": "adamw"}, 0.2),
        ({"target_of": "adamw@100"}, 0.4),
        ({"target_of": "mezo@199"}, 0.6),
        ({"target": "0.35"}, 0.35),
        ({"metric": "dev/accuracy"}, 0.6),
        ({"metric": "dev/accuracy", "target_of": "adamw"}, 0.8),
        ({"metric": "dev/accuracy", "target": "0.55"}, 0.55),
    ],
)
def test_targets_follow_their_rule(tmp_path: Path, options: dict[str, str], target: float) -> None:
    """The median over seeds of the best of a row, up to some forwards, or what was typed."""
    curves(tmp_path)
    scores = scores_of(tmp_path, **options)
    assert scores.workloads[0].target == pytest.approx(target)
    reached = [sum(map(math.isfinite, e.costs)) for e in scores.workloads[0].entries.values()]
    assert max(reached) >= 2  # the row itself does in more than half of its seeds


def test_of_two_seeds_the_worse_sets_the_target(tmp_path: Path) -> None:
    """So that the row itself reaches it, for a loss and for an accuracy."""
    for seed, loss in enumerate((0.3, 0.5)):
        write_run(tmp_path, "mezo", reaches(loss, at=200), seed=seed)
    for metric, target in (("dev/loss", 0.5), ("dev/accuracy", 0.5)):
        [workload] = scores_of(tmp_path, metric=metric).workloads
        assert workload.target == target and workload.cost("mezo") == 200


def test_each_workload_has_its_target(tmp_path: Path) -> None:
    """By the baseline's own curve there, or typed by task; the output says which."""
    for task, loss in (("sst2", 0.3), ("rte", 0.6)):
        write_run(tmp_path, "mezo", reaches(loss, at=200), task=task)
    targets = {w.name: w.target for w in scores_of(tmp_path).workloads}
    assert targets == {"sst2": 0.3, "rte": 0.6}
    said = score(tmp_path, ["s"], target="sst2=0.5,rte=0.7")
    assert "sst2: target dev/loss <= 0.5 (as typed); cap 400 forwards (the largest budget" in said
    assert "rte: target dev/loss <= 0.7 (as typed)" in said


def test_the_cost_is_seconds_where_asked(tmp_path: Path) -> None:
    """A row of fewer forwards that each take longer is first by forwards, and last by seconds."""
    for task in TASKS:
        write_run(tmp_path, "mezo", reaches(0.3, at=200), task=task, pace=0.1)
        write_run(tmp_path, "slow", reaches(0.3, at=100), task=task, pace=1.0)
    assert [p.row for p in scores_of(tmp_path).profiles] == ["slow", "mezo"]
    by_time = scores_of(tmp_path, cost="seconds")
    assert [p.row for p in by_time.profiles] == ["mezo", "slow"]
    assert costs_of(by_time, "slow") == [100.0, 100.0]


def test_what_is_beyond_the_cap_was_not_reached(tmp_path: Path) -> None:
    """The default is the largest budget; a typed one ends all runs there."""
    write_run(tmp_path, "mezo", reaches(0.3, at=200, budget=200))
    write_run(tmp_path, "late", reaches(0.3, at=600, budget=800))
    [workload] = scores_of(tmp_path).workloads
    assert workload.cap == 800 and workload.cost("late") == 600
    [workload] = scores_of(tmp_path, cap="500").workloads
    assert workload.cap == 500 and workload.cost("late") == math.inf
    said = score(tmp_path, ["s"])
    assert (
        "cap 800 forwards (the largest budget of a run); budgets differ: late 800, mezo 200" in said
    )


def test_dev_selects_the_setting(tmp_path: Path) -> None:
    """A rate that is at the target sooner, and is worse in the end, does not count."""
    for seed in range(2):
        write_run(tmp_path, "mezo", reaches(0.2, at=400), seed=seed, lr=1e-3)
        write_run(tmp_path, "mezo", reaches(0.3, at=100), seed=seed, lr=1e-2, test=1.0)
    scores = scores_of(tmp_path, target="0.35")
    assert costs_of(scores, "mezo") == [400.0]
    assert scores.aggregates["mezo"]["mean"].value == pytest.approx(0.9)
    said = score(tmp_path, ["s"])
    assert "settings competed, and dev selected as in `zobench table`: mezo sst2 (2)" in said


def test_suites_are_scored_together(tmp_path: Path) -> None:
    """The workloads of all; a run that both have counts once, the finished copy of it."""
    for suite, task in (("a", "sst2"), ("b", "rte")):
        for row, at in (("mezo", 200), ("lozo", 100)):
            write_run(tmp_path, row, reaches(0.3, at=at), task=task, suite=suite)
    write_run(tmp_path, "mezo", reaches(0.3, at=200), task="sst2", suite="b", status="unfinished")
    scores = scores_of(tmp_path, "a", "b")
    assert scores.suite.name == "a + b" and [w.name for w in scores.workloads] == ["rte", "sst2"]
    assert costs_of(scores, "mezo") == [200.0, 200.0]
    assert [p.score for p in scores.profiles] == [1.0, 2 / 3]
    other = scores_of(tmp_path, "a", "b", workloads="task,model")
    assert [w.name for w in other.workloads] == ["rte", "sst2"]  # only what differs is named


def test_a_workload_is_named_by_what_tells_it_apart(tmp_path: Path) -> None:
    """A model that follows from the task is not named."""
    for task, model in (("sst2", "tiny"), ("quadratic", "point")):
        write_run(tmp_path, "mezo", reaches(0.3, at=200), task=task, model=model)
    assert [w.name for w in scores_of(tmp_path).workloads] == ["quadratic", "sst2"]
    write_run(tmp_path, "mezo", reaches(0.3, at=200), task="sst2", model="opt")
    names = [w.name for w in scores_of(tmp_path).workloads]
    assert names == ["quadratic, point", "sst2, opt", "sst2, tiny"]


def test_suites_that_show_different_metrics_are_compared_by_loss(tmp_path: Path) -> None:
    """Each task has one; the notes say that means of it over tasks say little."""
    for suite, task, metric in (("a", "sst2", "test/accuracy"), ("b", "quadratic", "test/loss")):
        for row in ("mezo", "lozo"):
            table = {"metric": metric}
            write_run(tmp_path, row, reaches(0.3, at=200), task=task, suite=suite, table=table)
    scores = scores_of(tmp_path, "a", "b")
    assert scores.rules.test == "test/loss" and scores.aggregates["lozo"]["P(better)"].value == 0.5
    said = score(tmp_path, ["a", "b"])
    assert (
        "show different metrics (test/accuracy, test/loss): the aggregates are of test/loss" in said
    )


def test_a_target_that_is_met_at_the_start_is_named(tmp_path: Path) -> None:
    """A baseline that never got better than untrained sets such a one."""
    write_run(tmp_path, "mezo", [(0, 0.5), (100, 0.6)])
    write_run(tmp_path, "lozo", [(0, 0.5), (100, 0.3)])
    assert [(p.row, p.score) for p in scores_of(tmp_path).profiles] == [("lozo", 1), ("mezo", 1)]
    assert "sst2: the target is met before the first step, so that it" in score(tmp_path, ["s"])


def test_a_row_without_runs_is_named_and_never_gets_there(tmp_path: Path) -> None:
    """Where a workload has no run of a row its cost there is infinite."""
    planted(tmp_path)
    write_run(tmp_path, "partial", reaches(0.3, at=100), task="rte")
    scores = scores_of(tmp_path)
    [partial] = [profile for profile in scores.profiles if profile.row == "partial"]
    assert partial.score == 0.5 and costs_of(scores, "partial") == [100.0, math.inf]
    said = score(tmp_path, ["s"])
    assert "sst2: no run of partial, which counts as infinite" in said and "missing" in said
    assert "no aggregates, as a workload has no test/accuracy: partial, broken" in said


def test_rows_that_do_not_train_have_no_score(tmp_path: Path) -> None:
    """Zero-shot is evaluated at no cost, and would make every cost infinitely larger than its."""
    planted(tmp_path)
    for task in TASKS:
        write_run(tmp_path, "zero_shot", [(0, 0.2)], task=task, test=0.7)
    scores = scores_of(tmp_path)
    assert scores.untrained == ["zero_shot"] and scores.profiles[0].row == "fast"
    assert scores.aggregates["zero_shot"]["mean"].value == pytest.approx(0.7)
    assert "without a score, as they take no step: zero_shot" in score(tmp_path, ["s"])


def test_rows_and_workloads_are_any_keys(tmp_path: Path) -> None:
    """A row may be a learning rate, a workload a task alone."""
    for lr, at in ((1e-3, 400), (1e-2, 100)):
        write_run(tmp_path, "mezo", reaches(0.3, at=at), lr=lr)
    scores = scores_of(tmp_path, rows="optimizer.lr", workloads="task", target="0.3")
    assert [(p.row, p.score) for p in scores.profiles] == [("0.01", 1.0), ("0.001", 0.0)]


def test_the_suite_names_its_rows_and_its_baseline(tmp_path: Path) -> None:
    """`table.rows` and `table.baseline` are the defaults, as of a table."""
    table = {"rows": "optimizer,model", "baseline": "lozo, tiny"}
    for model, loss in (("tiny", 0.3), ("opt", 0.2)):
        write_run(tmp_path, "lozo", reaches(loss, at=200), model=model, table=table)
    scores = scores_of(tmp_path)
    assert scores.rules.workloads == "task,tuning" and scores.workloads[0].target == 0.3
    assert {p.row for p in scores.profiles} == {"lozo, tiny", "lozo, opt"}


def test_what_differs_within_a_workload_is_said(tmp_path: Path) -> None:
    """As a table's first line does; what differs between workloads is meant to."""
    for row, task, version in (("mezo", "rte", 1), ("mezo", "sst2", 2), ("fast", "sst2", 3)):
        path = write_run(tmp_path, row, reaches(0.3, at=100), task=task) / "config.yaml"
        path.write_text(path.read_text() + f"task: {{version: {version}}}\n")
    said = [line for line in score(tmp_path, ["s"]).splitlines() if "differ in" in line]
    assert said == ["sst2: these runs differ in: task.version: 3 (fast sst2), 2 (mezo sst2)"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"metric": "test/accuracy"}, "--metric test/accuracy: targets are on dev"),
        ({"metric": "dev/f1"}, "no run of suite 's' has the metric 'dev/f1'"),
        ({"cost": "joules"}, "--cost joules: choose one of forwards, seconds"),
        ({"cap": "0"}, "--cap 0: must be a number of forwards or seconds above 0"),
        ({"cap": "much"}, "--cap much: must be"),
        ({"select": "test"}, "--select test: choose one of mean, seed"),
        ({"target": "low"}, "--target low: must be a number, or WORKLOAD=NUMBER"),
        ({"target": "nan"}, "--target nan: must be"),
        ({"metric": "dev/accuracy", "target": "90"}, "dev/accuracy is a fraction, such as 0.9"),
        ({"target": "sst2=0.5"}, "--target gives 'rte' no target; the workloads are 'rte', 'sst2'"),
        ({"target": "0.3,rte=0.5"}, "--target gives 'rte' 2 targets"),
        ({"target": "0.3,cb=0.5"}, "--target cb=...: no such workload; there are 'rte', 'sst2'"),
        ({"target": "0.3", "target_of": "mezo"}, "--target and --target-of: choose one"),
        ({"target_of": "adamw"}, "--target-of adamw: no such row; there are broken, fast"),
        ({"target_of": "mezo@soon"}, "--target-of mezo@soon: must be ROW or ROW@FORWARDS"),
        ({"target_of": "broken"}, "no finished run of 'broken' has an evaluation of 'rte'"),
        ({"baseline": "adamw"}, "--baseline adamw: no such row"),
        ({"rows": "optimizer.lr"}, "there is no baseline to take the targets from"),
        ({"test": "dev/loss"}, "--test dev/loss: must be a test metric"),
        ({"test": "test/f1"}, "no run of suite 's' has the metric 'test/f1'"),
        ({"format": "pdf"}, "--format pdf: choose one of text"),
        ({"tuning": []}, "no suite 's_search'"),
        ({"workloads": "planet"}, "no run of suite 's' has the key 'planet'"),
    ],
)
def test_refusals_are_one_line(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    """Each names the option and what to choose."""
    planted(tmp_path)
    with pytest.raises(UserError) as error:
        score(tmp_path, ["s"], **options)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_runs_without_evaluations_are_refused(tmp_path: Path) -> None:
    """Without a curve of the metric there is nothing to score."""
    (write_run(tmp_path, "mezo", reaches(0.3, at=100)) / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="no finished run of suite 's' has dev/loss against cost"):
        score(tmp_path, ["s"])


def test_the_command_writes_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is sorted by score; the CSV has a line per row and workload."""
    planted(tmp_path)
    command = ["score", "s", "--runs", str(tmp_path)]
    out = {}
    for form in ("text", "markdown", "csv", "latex", "html"):
        assert run_command([*command, "--format", form]) == 0
        out[form] = capsys.readouterr().out
    lines = [line.split("|")[1:6] for line in out["text"].splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells[0][:4] == ["optimizer", "score", "rte: forwards", "sst2: forwards"]
    assert [line[:2] for line in cells[1:]] == [
        ["fast", "1.000"], ["mezo", "0.333"], ["twin", "0.333"], ["broken", "0.000"],
    ]  # fmt: skip
    assert cells[1][2:4] == ["100 (3)", "200 (3)"]
    assert cells[4][2:4] == ["inf (0 of 3; 3 diverged)"] * 2
    assert "| fast | 1.000 | 100 (3) |" in out["markdown"]
    assert r"\caption{s: score by forwards" in out["latex"] and "<table>" in out["html"]
    frame = pd.read_csv(io.StringIO(out["csv"])).set_index(["row", "workload"])
    assert len(frame) == 8 and frame.loc[("fast", "sst2"), "cost"] == 200
    assert frame.loc[("broken", "rte"), "cost"] == math.inf
    assert frame.loc[("mezo", "sst2"), "ratio"] == 2 and frame.loc[("mezo", "rte"), "ratio"] == 4
    assert frame.loc[("fast", "rte"), "IQM"] == pytest.approx(0.85)
    assert run_command([*command, "--metric", "test/loss"]) == 1
    assert "targets are on dev" in capsys.readouterr().err


def test_the_profiles_are_drawn(tmp_path: Path) -> None:
    """`zobench plot --kind profile` and `zobench score --figure` write the same figure."""
    planted(tmp_path)
    out = tmp_path / "profiles.png"
    said = plot(tmp_path, "s", kind="profile", out=out)
    assert f"{out}\nfast: score 1.000\nmezo: score 0.333\ntwin: score 0.333\n" in said
    score(tmp_path, ["s"], figure=tmp_path / "new" / "same.png")
    assert (tmp_path / "new" / "same.png").read_bytes() == out.read_bytes()
    with pytest.raises(UserError, match=r"the suffix must be \.png"):
        score(tmp_path, ["s"], figure=tmp_path / "x.gif")
    with pytest.raises(UserError, match="choose one of cost/forwards, time/train_s"):
        plot(tmp_path, "s", kind="profile", x="step")
    with pytest.raises(UserError, match="linear axes; leave --log out"):
        plot(tmp_path, "s", kind="profile", log="x")


def test_the_page_has_the_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A section with the table and the figure, from two rows on; nothing else differs."""
    for seed in range(2):
        write_run(tmp_path, "mezo", reaches(0.3, at=400), seed=seed)
    assert 'id="scores"' not in page(tmp_path, "s")
    for seed in range(2):
        write_run(tmp_path, "fast", reaches(0.3, at=200), seed=seed)
    html = page(tmp_path, "s")
    section = html[html.index('<section id="scores">') :]
    section = section[: section.index("</section>")]
    assert "fast" in section and "1.000" in section and "200" in section
    assert 'alt="performance profiles: fast 1.000, mezo 0.667"' in section
    assert "target dev/loss &lt;= 0.3 (the best that mezo reached, median over seeds)" in section
    monkeypatch.setattr(build, "scores_of", lambda _: None)
    without = page(tmp_path, "s").partition("<main>")[2]
    rest = html.replace(section + "</section>", "").partition("<main>")[2]
    assert without.split() == rest.split()


@pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning:wandb_workspaces")
def test_the_dashboard_has_the_scores(tmp_path: Path) -> None:
    """The W&B report holds them as a table, where there is something to score."""
    pytest.importorskip("wandb_workspaces")
    from zobench.report.dashboard import dashboard, specification

    write_run(tmp_path, "mezo", reaches(0.3, at=400))
    before = specification(dashboard(tmp_path, "s", "p", "me"))
    write_run(tmp_path, "fast", reaches(0.3, at=200))
    after = specification(dashboard(tmp_path, "s", "p", "me"))
    assert "score by forwards" not in str(before)
    assert "| fast | 1.000 | 200 (1) |" in str(after)
