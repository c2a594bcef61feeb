"""zobench from Python: the same runs as from the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zobench
from zobench import api
from zobench.errors import UserError
from zobench.run.folder import read_json

SHORT = (
    *("logger=none", "threads=1", "budget.steps=2", "train.batch_size=4", "suite=s"),
    *("task.sizes.train=24", "task.sizes.dev=16", "task.sizes.test=16"),
)


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs."""
    monkeypatch.setenv("ZOBENCH_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_a_run_returns_its_result(runs: Path) -> None:
    """What result.json says; a second call reads it; `sys.argv` stays as it was."""
    before = [*sys.argv]
    result = api.run(*SHORT, "optimizer=conmezo")
    folder = result.pop("folder")
    assert folder.parent == runs / "s" and "-conmezo-s0-" in folder.name
    assert result == read_json(folder / "result.json") and result["status"] == "done"
    began = (folder / "attempts.jsonl").read_text()
    assert api.run(*SHORT, "optimizer=conmezo") == {**result, "folder": folder}
    assert (folder / "attempts.jsonl").read_text() == began
    assert sys.argv == before


def test_a_sweep_returns_its_runs() -> None:
    """A frame with a row per run, which `load_suite` and `table` read again."""
    frame = api.sweep(*SHORT, "optimizer=mezo,adamw", "seed=0,1")
    assert sorted(zip(frame["optimizer"], frame["seed"], strict=True)) == [
        *(("adamw", 0), ("adamw", 1), ("mezo", 0), ("mezo", 1))
    ]
    assert set(frame["status"]) == {"done"} and frame["test/accuracy"].between(0, 1).all()
    assert api.load_suite("s").equals(frame)
    text = api.table("s", format="markdown")
    assert "| MeZO" in text and "| First-order AdamW" in text


def test_settings_are_plain_data() -> None:
    settings = api.compose("optimizer=mezo", "lr_factor=2", "model=hf", "model.path=none")
    assert settings["optimizer"]["lr"] == 2e-6


@pytest.mark.parametrize(
    ("override", "message"),
    [("optimizer=mezzo", "mezzo"), ("optimizer.lr=high", "high"), ("train.stepz=1", "stepz")],
)
def test_bad_settings_raise(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        api.run(*SHORT, override)


def test_a_failed_run_raises(runs: Path) -> None:
    """The error names the folder and its log."""
    with pytest.raises(UserError, match=r"the run has no result; .*stderr\.log"):
        api.run(*SHORT, "model=hf", f"model.path={runs}/nowhere")


def test_the_package_imports_nothing_heavy() -> None:
    """`import zobench` loads no torch; `zobench.ZOOptimizer` does."""
    code = (
        "import sys, zobench; assert 'torch' not in sys.modules; zobench.ZOOptimizer; import torch"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'ZoOptimizer'"):
        _ = zobench.ZoOptimizer


def test_parameters_need_names() -> None:
    """The error says which method of the model to call."""
    from zobench.zo.estimators.two_sided import TwoSided
    from zobench.zo.rules.sgd import SGD
    from zobench.zo.samplers.gaussian import Gaussian

    parts = {"sampler": Gaussian(), "estimator": TwoSided(), "rule": SGD()}
    model = torch.nn.Linear(2, 2)
    for given in (model.parameters(), [{"params": model.parameters(), "lr": 1.0}]):
        with pytest.raises(TypeError, match=r"give model\.named_parameters\(\)"):
            zobench.ZOOptimizer(given, lr=1e-3, eps=1e-3, **parts)


def test_the_package_leads_to_its_functions() -> None:
    """`import zobench` is enough; who looks for a function in the package is told where it is."""
    code = "import zobench; assert zobench.api.compose; zobench.compose"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.endswith("no attribute 'compose'; functions are in zobench.api\n")
