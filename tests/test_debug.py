"""The presets of the group `debug`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zobench.paths import conf_dir
from zobench.settings import RunSettings

Command = Callable[..., tuple[int, str, str]]
PRESETS = sorted(path.stem for path in (conf_dir() / "debug").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_its_own_suite_and_no_logger(
    compose: Callable[..., dict[str, Any]], preset: str
) -> None:
    """With other scales and overlays, too; what is typed wins."""
    for more in ((), ("scale=smoke",), ("experiment=quickstart", "optimizer=adamw")):
        settings = compose(f"debug={preset}", *more)
        RunSettings.of(settings)
        assert settings["suite"] == "debug"
        assert settings["logger"]["_target_"].endswith("NoLogger")
    assert compose(f"debug={preset}", "suite=mine", "train.log_every=7")["train"]["log_every"] == 7


def test_one_batch_is_all_there_is(compose: Callable[..., dict[str, Any]]) -> None:
    """As many rows as a batch has."""
    settings = compose("debug=batch", "train.batch_size=5")
    assert settings["task"]["sizes"]["train"] == 5


def test_a_short_run_ends_with_a_result(command: Command, tmp_path: Path) -> None:
    """After 20 steps."""
    assert command("debug=short", "threads=1")[0] == 0
    [folder] = (tmp_path / "runs" / "debug").iterdir()
    assert json.loads((folder / "result.json").read_text())["steps"] == 20


def test_a_loss_that_grows_ends_the_run(command: Command, tmp_path: Path) -> None:
    """At the step at which it shows."""
    status, _, err = command("debug=nonfinite", "budget.steps=40", "optimizer.lr=1", "threads=1")
    assert status == 1 and "diverged" in err
    [folder] = (tmp_path / "runs" / "debug").iterdir()
    assert json.loads((folder / "result.json").read_text())["steps"] < 40
