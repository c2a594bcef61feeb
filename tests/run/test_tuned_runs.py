"""Whole runs of each way of tuning: what is trained is what is kept and exported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from zobench.build import build
from zobench.paths import conf_dir
from zobench.run.folder import RunFolder, read_json
from zobench.run.runner import run

TUNINGS = sorted(path.stem for path in (conf_dir() / "tuning").glob("*.yaml"))
SIZES = ("task.sizes.train=32", "task.sizes.dev=16", "task.sizes.test=16", "budget.steps=4")


@pytest.mark.parametrize("optimizer", ["mezo", "adamw"])
@pytest.mark.parametrize("tuning", TUNINGS)
def test_a_run_trains_and_keeps_what_its_tuning_says(
    tuning: str, optimizer: str, compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """The kept weights are the trainable ones, they have moved, and the model is exported."""
    options = ("logger=none", "threads=1", "train.eval_every=2", "train.export=true", *SIZES)
    settings = compose(f"tuning={tuning}", f"optimizer={optimizer}", "optimizer.lr=1e-3", *options)
    folder = RunFolder(tmp_path / "run")
    choices = {"task": "t", "model": "tiny", "tuning": tuning, "optimizer": optimizer}
    meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": choices}
    folder.begin(settings, meta)
    result = run(folder)
    assert result["status"] == "done" and result["steps"] == 4
    model = build(settings["tuning"])(build(settings["model"]).model)
    trainable = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    kept = load_file(folder.weights)
    assert kept.keys() == trainable.keys()
    assert read_json(folder.meta)["parameters"] == sum(p.numel() for p in trainable.values())
    moved = any(not torch.equal(kept[name], weight) for name, weight in trainable.items())
    assert moved is (result["best_step"] > 0)
    names = {path.name for path in folder.model.iterdir()}
    assert names & {"model.safetensors", "adapter_model.safetensors"}
