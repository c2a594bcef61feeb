"""Dev chooses what a table shows, by the mean over seeds or for each seed; test never does."""

import random
from pathlib import Path

import pandas as pd
import pytest

from tests.report.suites import write_run
from tests.report.test_table import cells, details
from zobench.report.selection import choose_each

RATES = (1e-4, 1e-3, 1e-2)
# Dev accuracy by seed: 1e-3 is best in the mean, 1e-2 of the first seed.
DEV = {1e-4: (0.60, 0.70), 1e-3: (0.80, 0.90), 1e-2: (0.85, 0.50)}
SHOWN = {"mean": (1e-3, 1e-3), "seed": (1e-2, 1e-3)}


def suite(root: Path, test: dict[tuple[float, int], float]) -> None:
    """Three rates at two seeds, with the test accuracies by rate and seed."""
    for lr in RATES:
        for seed in (0, 1):
            write_run(root, seed, lr=lr, dev=DEV[lr][seed], test=test[lr, seed])


@pytest.mark.parametrize("select", SHOWN)
@pytest.mark.parametrize("shuffle", range(6))
def test_the_dev_best_is_shown_whatever_test_says(
    tmp_path: Path, select: str, shuffle: int
) -> None:
    """However test numbers are dealt out, the cell is the mean of those that dev chose."""
    numbers = [0.10, 0.99, 0.32, 0.54, 0.76, 0.98]
    random.Random(shuffle).shuffle(numbers)
    keys = [(lr, seed) for lr in RATES for seed in (0, 1)]
    test = dict(zip(keys, numbers, strict=True))
    suite(tmp_path, test)
    cell = cells(tmp_path, select=select).iloc[0]
    chosen = [test[lr, seed] for seed, lr in enumerate(SHOWN[select])]
    assert cell["mean"] == pytest.approx(sum(chosen) / 2)
    assert cell[["n", "done", "settings", "seeds"]].tolist() == [2, 2, 3, "0 1"]


@pytest.mark.parametrize("select", SHOWN)
def test_the_test_best_is_not_shown(tmp_path: Path, select: str) -> None:
    """Where the best setting on test is the worst on dev, the table has the dev-best."""
    suite(tmp_path, {(lr, seed): 1.0 if lr == 1e-4 else lr for lr in RATES for seed in (0, 1)})
    assert cells(tmp_path, select=select).iloc[0]["mean"] == pytest.approx(sum(SHOWN[select]) / 2)


def test_a_note_names_the_choice_of_each_seed(tmp_path: Path) -> None:
    """`seed` says for each seed what was chosen, by which number, among how many."""
    suite(tmp_path, {(lr, seed): 0.5 for lr in RATES for seed in (0, 1)})
    write_run(tmp_path, 2, lr=RATES[0], status="failed", reason="out of memory")
    answer = details(tmp_path, select="seed")
    assert "50.0 +- 0.0 (2; 1 failed) [1]" in answer
    assert (
        "3 settings competed; shown, best on dev for each seed: "
        "seed 0: optimizer.lr=0.01 (dev/accuracy 85.0; dev/loss 0.3; of 3 done); "
        "seed 1: optimizer.lr=0.001 (dev/accuracy 90.0; dev/loss 0.3; of 3 done)"
    ) in answer


def test_the_suite_says_how_its_table_selects(tmp_path: Path) -> None:
    """`table.select` of the runs is used, and an argument wins."""
    for lr in RATES:
        for seed in (0, 1):
            write_run(tmp_path, seed, lr=lr, dev=DEV[lr][seed], test=lr, preset={"select": "seed"})
    assert cells(tmp_path).iloc[0]["mean"] == pytest.approx(sum(SHOWN["seed"]) / 2)
    assert cells(tmp_path, select="mean").iloc[0]["mean"] == pytest.approx(1e-3)


def test_a_seed_that_dev_leaves_open_leaves_the_cell_open(tmp_path: Path) -> None:
    """Without dev numbers nothing is chosen for a seed, and the cell says how many settings."""
    for lr in RATES[:2]:
        write_run(tmp_path, 0, lr=lr, dev=None, dev_loss=None)
    assert "| - (0; 2 settings) [1] |" in details(tmp_path, select="seed")


def test_ties_of_a_seed_go_to_the_smaller_id() -> None:
    """At equal dev numbers the choice does not depend on the order of the runs."""
    runs = pd.DataFrame(
        [(name, 0, "done", 0.5, 0.5) for name in "cab"],
        columns=["setting", "seed", "status", "dev/accuracy", "dev/loss"],
    )
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        assert choose_each(runs.iloc[order]) == {0: "a"}
