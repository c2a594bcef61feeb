"""All that a run's next step depends on, as a checkpoint holds it; and taking it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from zobench.errors import UserError
from zobench.run.best import put
from zobench.run.journal import value_of

if TYPE_CHECKING:
    from zobench.run.loop import Loop

_SCALARS = ("steps_taken", "timed_steps", "train_loss", "losses")
_PHASES = ("train", "eval", "diagnose")  # which a run's costs are read from


def snapshot(loop: Loop) -> dict[str, Any]:
    """Trained weights, the optimizer's state, torch's generators, counters.

    Data order and ZO noise have no state, and what dev said is in the journal.
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "weights": {n: p.detach() for n, p in loop.model.named_parameters() if p.requires_grad},
        "optimizer": loop.optimizer.state_dict(),
        "generators": {"cpu": torch.get_rng_state(), "cuda": cuda},
        "loop": {name: getattr(loop, name) for name in _SCALARS},
        "cost": {"tokens": loop.steps.loss.tokens, "forwards": loop.steps.loss.forwards},
        "seconds": {name: loop.meter.seconds(name) for name in _PHASES},
        "peaks": loop.meter.peaks,
        "skips": loop.skips.state_dict(),
        "diagnosis": loop.diagnosis.state_dict() if loop.diagnosis else None,
    }


def go_on(loop: Loop, state: Mapping[str, Any]) -> None:
    """Bring a loop to where the snapshot was taken.

    Raises UserError where the best weights of the evaluations before it are gone.
    """
    put(state["weights"], loop.model)
    loop.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["generators"]["cpu"])
    if state["generators"]["cuda"]:
        torch.cuda.set_rng_state_all(state["generators"]["cuda"])
    for name, value in state["loop"].items():
        setattr(loop, name, value)
    loop.steps.loss.tokens = state["cost"]["tokens"]
    loop.steps.loss.forwards = state["cost"]["forwards"]
    for name, peaks in state["peaks"].items():
        if name in _PHASES:
            loop.meter.recall(name, state["seconds"][name], peaks)
    if "skips" in state:  # checkpoints once had none
        loop.skips.load_state_dict(state["skips"])
    if loop.diagnosis is not None and state["diagnosis"] is not None:
        loop.diagnosis.load_state_dict(state["diagnosis"])
    for row in loop.journal.about("dev"):
        if row["step"] <= loop.steps_taken:
            loop.final = dev_of(row)
            loop.best.evaluated(row["step"], loop.final, save=False)
            loop.patience.evaluated(loop.final["loss"])
    if not loop.best.last and loop.best.dev and loop.best.stored < loop.best.step:
        raise UserError(
            f"{loop.best.path}: the best weights so far, of step {loop.best.step}, are not there"
            " any more; remove the run's folder to begin anew"
        )


def recall_costs(loop: Loop) -> None:
    """After the last step that was replayed: the times and peaks of the last row of metrics.

    What came after that row is not known, and its steps do not count in the time of a step.
    """
    if not loop.journal.rows:
        return
    row = loop.journal.rows[-1]
    peak = {"peak_gib": value_of(row["memory/peak_gib"])}
    loop.meter.recall("train", value_of(row["time/train_s"]), peak)
    loop.meter.recall("eval", value_of(row["time/eval_s"]))
    if diagnosed := loop.journal.about("diagnose"):
        loop.meter.recall("diagnose", value_of(diagnosed[-1]["diagnose/seconds"]))
    per_step = row["time/step_s"]
    loop.timed_steps = round(row["time/train_s"] / per_step) if per_step else 0


def dev_of(row: Mapping[str, float | None]) -> dict[str, float]:
    """What an evaluation of dev found, from its row of metrics."""
    return {k.removeprefix("dev/"): value_of(v) for k, v in row.items() if k.startswith("dev/")}
