"""`zobench why`: the place it names for a setting is the place that the value is from."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from zobench.schema import register
from zobench.why import Composition, leaves

Command = Callable[..., tuple[int, str, str]]
LINES = [
    (),
    ("optimizer=loren", "tuning=lora", "optimizer.lr=0.5"),
    ("experiment=lab_seeds", "optimizer=conmezo"),
    ("experiment=mezo_opt13b", "grid=mezo_opt13b-ft", "optimizer=adamw"),
    ("experiment=zobench_sst2", "scale=smoke", "optimizer=zo_sign_mean", "tuning=prefix"),
    ("task=wsc", "data=folder", "evaluation=in_context", "optimizer=zero_shot"),
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_the_last_place_holds_the_value_that_is_composed(line: tuple[str, ...]) -> None:
    """Of every setting, interpolations as they are written."""
    register()
    composition = Composition(line)
    composed: Any = OmegaConf.to_container(composition.config, resolve=False)
    for key, value in leaves({k: v for k, v in composed.items() if k != "hydra"}).items():
        if value in ({}, "???"):
            continue
        last = composition.sources(key)[-1]
        assert last.value == value or str(value) == last.value or float(last.value) == value, key


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ("optimizer.lr", "experiment=lab_seeds", "optimizer=mezo", "optimizer.lr=1e-3"),
            ("optimizer.lr = 0.01", "conf/optimizer/mezo.yaml", "command line", "from lr_factor"),
        ),
        (
            ("optimizer.sampler.beta", "optimizer=conmezo"),
            ("is ${sampler}, by conf/optimizer/", "conf/sampler/cone.yaml", "tuned_sampler: tiny"),
        ),
        (("train.eval_every", "budget.forwards=100"), ("computed from budget.forwards",)),
        (("optimizer", "optimizer=loren"), ("optimizer.graph = null", "tuned: tiny-loren")),
        (("lr_factor", "experiment=lab_search"), ("sweeps over 0.33,1,3.3,10,33",)),
    ],
)
def test_the_history_names_each_place(
    command: Command, words: tuple[str, ...], lines: tuple[str, ...]
) -> None:
    """Files, rows of tables, overrides, and what a value is computed from."""
    status, out, err = command("why", *words)
    assert status == 0, err
    for line in lines:
        assert line in out


def test_a_folder_of_the_users_is_a_place_too(command: Command, tmp_path: Path) -> None:
    """Files and tables of a `--config-dir`."""
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "mine.yaml").write_text("tuned: {tiny: {mezo: {optimizer: {lr: 0.25}}}}")
    status, out, _ = command("why", "optimizer.lr", "--config-dir", os.fspath(tmp_path))
    assert status == 0 and f"{tmp_path / 'cells' / 'mine.yaml'}, tuned: tiny-mezo" in out


def test_a_key_that_is_not_there_is_refused(command: Command) -> None:
    """With what is close to it."""
    status, _, err = command("why", "optimizer.ls")
    assert status == 1 and "optimizer.ls: no such setting; there is optimizer.lr" in err
