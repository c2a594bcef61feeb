"""`zobench compare`: differences to a baseline, per seed, at the setting that dev selects."""

import json
from pathlib import Path

import pytest
import yaml

from zobench.cli import run_command
from zobench.errors import UserError
from zobench.report.compare import compared
from zobench.report.runs import read_suite

# row -> lr -> accuracy on dev and test by seed
RUNS = {
    "mezo": {"1e-3": [(0.8, 0.70), (0.8, 0.72), (0.8, 0.74)]},
    "better": {
        "1e-3": [(0.9, 0.80), (0.9, 0.82), (0.9, 0.84)],
        "1e-2": [(0.7, 0.99), (0.7, 0.99), (0.7, 0.99)],  # best on test, which must not choose
    },
    "worse": {"1e-3": [(0.6, 0.60), (0.6, 0.62), (0.6, 0.64)]},
    "unclear": {"1e-3": [(0.8, 0.90), (0.8, 0.50), (0.8, 0.80)]},
    "single": {"1e-3": [(0.8, 0.90)]},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A suite of finished runs with those numbers."""
    for row, rates in RUNS.items():
        for lr, seeds in rates.items():
            for seed, (dev, test) in enumerate(seeds):
                folder = tmp_path / "suite" / f"{row}-{lr}-{seed}"
                folder.mkdir(parents=True)
                meta = {"id": folder.name, "setting": f"{row}-{lr}", "seed": seed}
                meta |= {"choices": {"optimizer": row, "task": "t"}}
                (folder / "meta.json").write_text(json.dumps(meta))
                config = {"optimizer": {"lr": float(lr)}, "seed": seed}
                (folder / "config.yaml").write_text(yaml.safe_dump(config))
                numbers = {"dev": {"accuracy": dev, "loss": 1.0}, "test": {"accuracy": test}}
                result = {"status": "done", "reason": None, "cost": {"forwards": 600}, **numbers}
                (folder / "result.json").write_text(json.dumps(result))
    return tmp_path


def test_differences_are_paired_and_selected_on_dev(root: Path) -> None:
    """Seed by seed: a constant gain has no spread, whatever seeds have; test never selects."""
    found = {d.label: d for d in compared(read_suite(root, "suite"), *WANTED)}
    assert list(found) == ["single", "better", "unclear", "worse"]
    better = found["better"]
    assert better.difference == pytest.approx(0.1) and better.mean == pytest.approx(0.82)
    assert better.high - better.low < 1e-9 and better.verdict == "above"
    assert found["worse"].verdict == "below"


def test_the_interval_is_students(root: Path) -> None:
    """Three seeds: mean +- 4.303 s / sqrt(3); one seed has no interval and no verdict."""
    found = {d.label: d for d in compared(read_suite(root, "suite"), *WANTED)}
    gains = [0.2, -0.22, 0.06]
    mean = sum(gains) / 3
    spread = (sum((g - mean) ** 2 for g in gains) / 2) ** 0.5
    unclear = found["unclear"]
    assert unclear.low == pytest.approx(mean - 4.303 * spread / 3**0.5)
    assert unclear.high == pytest.approx(mean + 4.303 * spread / 3**0.5)
    assert unclear.verdict == "no difference seen"
    assert found["single"].verdict == "unknown" and found["single"].seeds == 1


WANTED = ("optimizer", "mezo", "test/accuracy")


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (("optimizer", "adam", "test/accuracy"), "baseline 'adam'; there are better, mezo"),
        (("optimizer", "mezo", "test/f1"), "has the metric 'test/f1'; known: cost/forwards"),
    ],
)
def test_what_is_not_there_is_named(root: Path, wanted: tuple[str, str, str], says: str) -> None:
    """An unknown baseline or metric is refused with what there is."""
    with pytest.raises(UserError, match=says):
        compared(read_suite(root, "suite"), *wanted)


def test_the_command_prints_a_table_and_draws_a_figure(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line a row, in percent, and a PNG where --out says."""
    out = tmp_path / "figure" / "x.png"
    assert run_command(["compare", "suite", "--runs", str(root), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "| better | 82.0 | +10.0 | +10.0 to +10.0 | 3 | above |" in said
    assert said.rstrip().endswith(str(out))
    assert out.read_bytes().startswith(b"\x89PNG")
