"""Every paper's table: it composes at each scale, says what it is, and knows the paper's names."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.paper_tables import Grid, commands, paper_tables, parents, texts
from zobench.build import check
from zobench.paths import conf_dir
from zobench.settings import RunSettings

Compose = Callable[..., dict[str, Any]]
TABLES = paper_tables()
LAB = pytest.param("lab", marks=pytest.mark.smoke)  # tests/smoke runs all of the third, smoke
# a grid has these keys and no other, so that a scale can narrow any of them
KEYS = {"optimizer", "evaluation", "tuning", "task", "lr_factor", "seed", "model"}


@pytest.fixture(scope="module", params=TABLES)
def name(request: pytest.FixtureRequest) -> str:
    """Each table in turn."""
    return str(request.param)


def said(name: str) -> dict[str, Any]:
    """The yaml of an overlay over those that it inherits from, as it stands there."""
    text = texts()[name]
    merged: dict[str, Any] = {}
    for layer in (*map(said, parents(text)), yaml.safe_load(text)):
        merged = over(merged, layer)
    return merged


def over(below: Any, above: Any) -> Any:
    """One mapping over another, key by key."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    both = {key: over(below[key], above[key]) for key in below.keys() & above.keys()}
    return below | above | both


def test_the_list_is_not_empty() -> None:
    """Overlays and those that inherit from them are found; figures and demos are not tables."""
    assert {"mezo_opt13b", "mezo_opt66b", "zobench_sst2", "loren_distilbert"} <= {*TABLES}
    assert not {"quickstart", "ldsd_law"} & {*TABLES}


@pytest.mark.parametrize("scale", ["", LAB])
def test_first_and_last_run_compose_and_bind(compose: Compose, name: str, scale: str) -> None:
    """Of each of its grids, at full size and in the lab."""
    for options in commands(name, *([f"scale={scale}"] if scale else [])):
        for corner in Grid.of(*options).corners:
            settings = compose(*options, *corner)
            check(settings)
            RunSettings.of(settings)
            assert settings["suite"] != "scratch" and settings["runs_root"].endswith(scale)


def test_it_states_budget_seeds_precision_and_selection(name: str) -> None:
    """In the overlay itself or in one that it inherits from, not by a default of ours."""
    stated = said(name)
    assert {*stated["budget"]} & {"steps", "forwards"}
    assert stated["model"]["dtype"] in ("float32", "bfloat16", "float16")
    assert stated["table"]["select"] in ("mean", "seed")
    assert stated["train"]["batch_size"] >= 1 and stated["train"]["eval_every"] >= 1
    params = stated["hydra"]["sweeper"]["params"]
    assert str(params["seed"]) and params["optimizer"] and params["task"]
    for options in commands(name):
        assert {choice[0].partition("=")[0] for choice in Grid.of(*options).choices} <= KEYS


def test_its_first_lines_say_what_it_is(name: str) -> None:
    """Paper and table, or the overlay that it belongs to; and what was inferred is called so."""
    text = texts()[name]
    comment = [line for line in text.splitlines()[1:] if line.startswith("#")]
    if parents(text):
        assert comment
    else:
        assert "arXiv" in comment[0] and "nferred" in " ".join(comment)


def test_the_paper_has_its_rows_and_columns(name: str) -> None:
    """At least half of the optimizers, and a task or the average over them."""
    wanted = said(name)["published"]
    if wanted["paper"] is None:
        pytest.skip("no number of this table is known to us")
    rows = published(**{key: wanted.get(key) for key in ("paper", "table", "model")})
    grids, names = [Grid.of(*options) for options in commands(name)], wanted.get("names", {})
    methods = {names.get(one, one) for grid in grids for one in grid.values("optimizer")}
    tasks = {names.get(one, one) for grid in grids for one in grid.values("task")} | {"avg"}
    assert len(methods & {*rows["method"]}) >= len(methods) / 2
    assert tasks & {*rows["task"]}
    if (setting := wanted.get("setting")) is not None:
        assert setting in {*rows["setting"]}


def test_translated_names_are_options_of_ours_and_names_in_the_file(name: str) -> None:
    """A misspelt one would leave a cell without its published number."""
    folders = [conf_dir() / group for group in ("optimizer", "evaluation", "task", "tuning")]
    ours = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    rows = published()
    names = said(name)["published"].get("names", {})
    assert names.keys() <= ours
    assert {*names.values()} <= {*rows["method"], *rows["task"], *rows["tuning"]}


def published(**wanted: str | None) -> pd.DataFrame:
    """The published rows with these columns."""
    from zobench.report.published import load

    rows = load()
    for key, value in wanted.items():
        if value is not None:
            rows = rows[rows[key] == value]
    return rows
