"""Captured forwards on a CUDA device: the losses of launched ones, with every kind of method."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.run.test_captured import ROWS, SIZES
from zobench.bench import gpu_evaluation
from zobench.run.folder import RunFolder
from zobench.run.runner import run
from zobench.zo.ledger import read

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("row", ROWS)
def test_captured_losses_are_those_of_launched_forwards(
    compose: Callable[..., dict[str, Any]], tmp_path: Any, row: str
) -> None:
    """Up to the rounding of products of other sizes, over eight steps."""
    found = []
    for capture in ("null", "false"):
        folder = RunFolder(tmp_path / capture)
        words = f"optimizer={row} +model.capture={capture} device=cuda logger=none".split()
        settings = compose(*words, *SIZES, "budget.steps=8", "optimizer.lr=1e-6")
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
        meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": choices}
        folder.begin(settings, meta)
        run(folder)
        found.append([loss for record in read(folder.ledger) for loss in record.losses])
    rough = 2e-2 if "bfloat16" in row else 1e-4
    assert found[0] == pytest.approx(found[1], rel=rough)
    assert len(found[0]) >= 8


def test_captured_evaluations_are_those_of_launched_ones() -> None:
    """Rows alike, shared prefixes and texts of a model of random weights in float32."""
    device = torch.device("cuda")
    rows = gpu_evaluation.evaluation(device, 70, 1, ["model.dtype=float32"])
    assert all(row.get("loss apart", 0.0) < 1e-4 for row in rows)
    texts = gpu_evaluation.generation(device, 8, 16, ["model.dtype=float32"])
    assert all(row["texts are equal"] == 1.0 for row in texts)
