"""`train.export` of a run that is finished: its best weights, without training it again."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zobench.run.folder import RunFolder, write_json

Command = Callable[..., tuple[int, str, str]]
SHORT = (
    *("logger=none", "threads=1", "budget.steps=4", "train.batch_size=4", "train.eval_every=2"),
    *("task.sizes.train=24", "task.sizes.dev=16", "task.sizes.test=8"),
)


def folder_in(suite: str) -> RunFolder:
    """The one run of a suite."""
    [path] = Path(os.environ["ZOBENCH_RUNS"]).glob(f"{suite}/*/result.json")
    return RunFolder(path.parent)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


SMOKE = pytest.mark.smoke


@pytest.mark.parametrize(
    "options",
    [
        ("optimizer=mezo_adam", "optimizer.lr=1e-3"),  # from best.safetensors
        ("optimizer=mezo_adam", "train.keep_weights=false"),  # from the ledger
        pytest.param(("optimizer=adamw", "tuning=lora", "train.select=last"), marks=SMOKE),
        pytest.param(("optimizer=zero_shot",), marks=SMOKE),
    ],
    ids=" ".join,
)
def test_a_finished_run_exports_what_it_would_have_exported(
    command: Command, options: tuple[str, ...]
) -> None:
    """The same id and the same files, and no attempt; a third launch does nothing."""
    assert command(*SHORT, *options, "suite=with", "train.export=true")[0] == 0
    assert command(*SHORT, *options, "suite=after")[0] == 0
    expected, folder = folder_in("with"), folder_in("after")
    assert folder.path.name == expected.path.name and not folder.model.exists()
    before = {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    status, out, err = command(*SHORT, *options, "suite=after", "train.export=true")
    assert status == 0, err
    assert "skipped, test" in out
    assert contents(folder.model) == contents(expected.model)
    after = {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    assert after == before and folder.attempts in after
    made = folder.model.stat().st_mtime_ns
    assert command(*SHORT, *options, "suite=after", "train.export=true")[0] == 0
    assert folder.model.stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        ("adamw", "AdamW is not a zeroth-order optimizer, and a ledger has no gradients; and best"),
        ("mezo", "no loss on dev was finite"),
    ],
)
def test_an_export_that_is_not_possible_says_why(
    command: Command, optimizer: str, reason: str
) -> None:
    """In a line, with status 1; the result stays."""
    options = (*SHORT, f"optimizer={optimizer}", "suite=s", "train.keep_weights=false")
    assert command(*options)[0] == 0
    folder = folder_in("s")
    if optimizer == "mezo":
        write_json(folder.result, folder.ended() | {"dev": {}})
    before = folder.result.read_bytes()
    status, _, err = command(*options, "train.export=true")
    assert status == 1 and "Traceback" not in err
    [line] = [line for line in err.splitlines() if reason in line]
    assert line.startswith("failed: ")
    assert folder.result.read_bytes() == before and not folder.model.exists()


def test_a_lost_ledger_is_named(command: Command) -> None:
    """Without weights and ledger there is nothing to export."""
    options = (*SHORT, "suite=s", "train.keep_weights=false")
    assert command(*options)[0] == 0
    folder_in("s").ledger.unlink()
    status, _, err = command(*options, "train.export=true")
    assert status == 1 and "ledger.bin" in err and "Traceback" not in err


def test_a_model_without_a_format_is_refused_before_training(command: Command) -> None:
    """`from_pretrained` loads no quadratic."""
    status, _, err = command("task=quadratic", "logger=none", "suite=s", "train.export=true")
    assert status == 1 and "train.export=true: only models of transformers" in err
    assert not list(Path(os.environ["ZOBENCH_RUNS"]).glob("s/*/metrics.jsonl"))
