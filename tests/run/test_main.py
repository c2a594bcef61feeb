"""How a run that fails is described."""

import json
from pathlib import Path

import pytest
import torch

from zobench.errors import UserError
from zobench.run import __main__ as command

CASES = {
    "input": (UserError("task.x=3: no"), "task.x=3: no"),
    "memory": (torch.OutOfMemoryError("CUDA out of memory. Tried.\nIncluding much"), "CUDA out of"),
    "crash": (KeyError("x"), "KeyError: 'x'"),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_failure_has_a_kind_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What the user can mend, what the machine lacks, and what is a defect are told apart."""
    error, begins = CASES[kind]

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(command, "run", failing)
    (tmp_path / "config.yaml").write_text("{}")
    assert command.main([str(tmp_path)]) == 1
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["kind"] == kind
    assert failure["reason"].startswith(begins)
    assert "\n" not in failure["reason"] and "Including" not in failure["reason"]
