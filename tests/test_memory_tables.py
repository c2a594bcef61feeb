"""The overlays that measure memory and time: exact sizes, no download, the papers' settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from zobench.paths import PACKAGE_DIR
from zobench.run.folder import RunFolder
from zobench.run.runner import run

Compose = Callable[..., dict[str, Any]]
TABLES = ("mezo_memory", "loren_memory", "mezo_step_time", "qlora_memory")
GIB = 2**30


def carried_out(settings: dict[str, Any], place: Path) -> dict[str, Any]:
    """The result of a run of these settings."""
    folder = RunFolder(place)
    choices = {"task": "t", "model": "m", "tuning": "u", "optimizer": "o"}
    meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": choices}
    folder.begin(settings, meta)
    return run(folder)


@pytest.mark.parametrize("table", (*TABLES, "pays_memory"))
def test_a_table_needs_no_weights_and_no_data(compose: Compose, table: str) -> None:
    """Random weights where the run is, random tokens; a few batches, none of them twice."""
    settings = compose(f"experiment={table}", "model=opt_13b", "device=cuda:1")
    assert settings["model"]["weights"] == "random"
    assert settings["model"]["weights_device"] == "cuda:1"
    assert settings["model"]["architecture"]["num_hidden_layers"] == 40
    assert settings["model"]["dtype"] == "bfloat16"
    assert settings["task"]["_target_"].endswith("RandomTokens")
    assert settings["task"]["sizes"]["train"] >= settings["train"]["batch_size"]


def test_the_rows_are_measured_as_the_paper_measured_them(compose: Compose) -> None:
    """Float32 weights under autocast for fine-tuning, 32 demonstrations in context, batch 1."""
    chosen = "experiment=mezo_memory", "model=opt_1_3b"
    tuned = compose(*chosen, "optimizer=adamw")
    assert (tuned["model"]["dtype"], tuned["train"]["precision"]) == ("float32", "bfloat16")
    assert compose(*chosen, "evaluation=in_context")["task"]["demonstrations"] == 32
    plain = compose(*chosen, "optimizer=mezo")
    assert (plain["model"]["dtype"], plain["train"]["precision"]) == ("bfloat16", None)
    assert plain["train"]["batch_size"] == plain["evaluation"]["batch_size"] == 1
    assert plain["task"]["length"] == 400


@pytest.mark.parametrize("table", TABLES)
def test_the_published_numbers_are_there(compose: Compose, table: str) -> None:
    """Paper, table, metric, setting and every name of an overlay occur in the file together."""
    wanted = compose(f"experiment={table}")["published"]
    rows = pd.read_csv(PACKAGE_DIR / "published" / "published.csv", dtype=str)
    for key in ("paper", "table", "model", "setting", "metric"):
        if wanted[key] is not None:
            rows = rows[rows[key] == wanted[key]]
    assert len(rows)
    assert set(wanted["names"].values()) <= {*rows["model"], *rows["method"], *rows["task"]}


JOBS = [
    ("mezo_memory", "optimizer=zero_shot", "tuning=prefix"),
    ("mezo_memory", "optimizer=zero_shot", "evaluation=in_context", "tuning=full"),
    ("mezo_memory", "optimizer=mezo", "tuning=full"),
    ("mezo_memory", "optimizer=adamw", "tuning=prefix"),
    ("loren_memory", "optimizer=mezo_svrg"),
    ("loren_memory", "optimizer=loren"),
    ("mezo_step_time", "optimizer=adamw"),
    ("pays_memory", "optimizer=badam", "task.length=16"),
    ("pays_memory", "optimizer=mezo", "tuning=lora", "task.length=16"),
]


@pytest.mark.parametrize("job", JOBS, ids=" ".join)
@pytest.mark.parametrize("weights", ["random", "pretrained"])
def test_jobs_run_on_the_tiny_model(
    compose: Compose, tmp_path: Path, job: tuple[str, ...], weights: str
) -> None:
    """With random weights and its own, down to the number that the table shows."""
    small = "model=tiny", f"model.weights={weights}", "device=cpu", "budget.steps=2"
    sizes = "task.sizes={train: 4, dev: 2, test: 2}"
    settings = compose(f"experiment={job[0]}", *job[1:], *small, sizes)
    result = carried_out(settings, tmp_path)
    assert result["status"] == "done"
    part, key = settings["table"]["metric"].split("/")
    assert result[part][key] > 0 or result["steps"] == 0


def test_what_an_optimizer_keeps_is_measured(compose: Compose, tmp_path: Path) -> None:
    """AdamW: gradient and two moments of every float32 weight; MeZO: nothing."""
    small = "model=tiny", "device=cpu", "budget.steps=2"
    kept = {}
    for optimizer in ("mezo", "adamw"):
        settings = compose("experiment=mezo_memory", f"optimizer={optimizer}", *small)
        kept[optimizer] = carried_out(settings, tmp_path / optimizer)["memory"]["state_gib"] * GIB
    weights = 146_560  # of the tiny model
    assert kept["mezo"] == 0
    assert kept["adamw"] == pytest.approx(3 * 4 * weights, rel=0.01)  # and counters of steps
