"""`zobench score --tuning`: what the search of a row has cost is a part of the row's cost."""

from pathlib import Path

from tests.report.scored_runs import TASKS, costs_of, reaches, scores_of, write_run
from zobench.registry.entry import Tuning
from zobench.registry.submit import search_cost
from zobench.report.score import score


def search(root: Path) -> None:
    """A quick row whose rate took five trials to find, and a steady one that took one."""
    for task in TASKS:
        write_run(root, "quick", reaches(0.3, at=200), task=task)
        write_run(root, "mezo", reaches(0.3, at=400), task=task)
        for n in range(5):
            write_run(root, "quick", reaches(0.3, at=200), task=task, lr=n + 1, suite="s_search")
        write_run(root, "mezo", reaches(0.3, at=400), task=task, lr=7, suite="s_search")
        # neither another model's search nor another row's counts
        write_run(root, "mezo", reaches(0.3, at=400), task=task, model="opt", suite="s_search")
        write_run(root, "else", reaches(0.3, at=400), task=task, suite="s_search")


def test_the_cost_of_tuning_changes_a_rank(tmp_path: Path) -> None:
    """Without it the quick row is first; five searches of 400 forwards make it last."""
    search(tmp_path)
    assert [p.row for p in scores_of(tmp_path).profiles] == ["quick", "mezo"]
    tuned = scores_of(tmp_path, search="s_search")
    assert [p.row for p in tuned.profiles] == ["mezo", "quick"]
    assert costs_of(tuned, "quick") == [2200.0, 2200.0]
    assert costs_of(tuned, "mezo") == [800.0, 800.0]
    assert "tuning: not included" in score(tmp_path, ["s"])
    for named in ([], ["s_search"]):
        said = score(tmp_path, ["s"], tuning=named)
        assert "tuning: included, the forwards of all runs of s_search" in said


def test_a_held_out_variant_has_the_search_of_its_task(tmp_path: Path) -> None:
    """As a workload of its own, alone in a suite, and as a part of a row's name."""
    search(tmp_path)
    for row, at in (("quick", 200), ("mezo", 400)):
        variant = "sst2-held_out=7"
        write_run(tmp_path, row, reaches(0.3, at=at), task=variant)
        write_run(tmp_path, row, reaches(0.3, at=at), task=variant, suite="variant")
    both = scores_of(tmp_path, search="s_search")
    assert [w.name for w in both.workloads] == ["rte", "sst2", "sst2-held_out=7"]
    assert costs_of(both, "quick") == [2200.0] * 3 and costs_of(both, "mezo") == [800.0] * 3
    alone = scores_of(tmp_path, "variant", search="s_search")
    assert costs_of(alone, "quick") == [2200.0] and costs_of(alone, "mezo") == [800.0]
    rows = {"rows": "optimizer,task", "target": "0.3"}
    named = scores_of(tmp_path, "variant", search="s_search", **rows)
    assert costs_of(named, "quick, sst2-held_out=7") == [2200.0]


def test_an_entry_of_a_variant_states_the_search_of_its_task(tmp_path: Path) -> None:
    """`zobench submit --search` counts as `zobench score --tuning` does, lost trials too."""
    search(tmp_path)
    choices = {"task": "sst2-held_out=7", "model": "tiny", "tuning": "full", "optimizer": "quick"}
    assert search_cost(tmp_path, "s_search", choices) == Tuning(2000, 5, "s_search")
    for status in ("unfinished", "failed", "diverged"):
        curve = reaches(0.3, at=200, budget=300)
        write_run(tmp_path, "quick", curve, lr=9, seed=len(status), suite="s_search", status=status)
    assert search_cost(tmp_path, "s_search", choices) == Tuning(2900, 8, "s_search")
    variant = scores_of(tmp_path, search="s_search")
    assert costs_of(variant, "quick")[1] == 200.0 + 2900.0


def test_the_search_of_a_variant_is_not_that_of_its_task(tmp_path: Path) -> None:
    """Nor of another variant: what was tried on it has tuned nothing else."""
    for task in ("sst2", "sst2-held_out=7", "sst2-held_out=8"):
        write_run(tmp_path, "mezo", reaches(0.3, at=200), task=task)
    write_run(tmp_path, "mezo", reaches(0.3, at=200), task="sst2-held_out=7", suite="s_search")
    assert costs_of(scores_of(tmp_path, search="s_search"), "mezo") == [200.0, 600.0, 200.0]


def test_a_suite_may_be_its_own_search(tmp_path: Path) -> None:
    """The rates that lost are the tuning; the runs that are scored are not counted twice."""
    for lr, loss in ((1e-3, 0.3), (1e-2, 0.9)):
        write_run(tmp_path, "mezo", reaches(loss, at=200), lr=lr)
    assert costs_of(scores_of(tmp_path, search="s"), "mezo") == [200.0 + 400.0]
    write_run(tmp_path, "other", reaches(0.3, at=200))
    said = score(tmp_path, ["s"], tuning=["s"])
    assert "none there, and so 0, for other sst2" in said
